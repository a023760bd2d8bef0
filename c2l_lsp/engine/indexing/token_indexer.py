"""Keeps the token index of one folder equal to its files.

Every chunk of every file is in the index once, however many files contain it. A changed file costs the tokens of its
new chunks and one merge into the sorted order. Tokens are computed in batches in a thread, on all cores; so the first
index of a folder takes about as long as its tokenization. Texts that a scan has read are handed over (`note`) and not
read again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from c2l_lsp.cooperative import Slices, in_background
from c2l_lsp.errors import StateError
from c2l_lsp.model.adapter.token_index import TokenIndex
from c2l_lsp.model.hypernet import chunking
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime.kernel import Int32Array

RULE = "tokens-1"
"""Version of the rules for chunks of the index. A new value discards saved indexes."""

_BATCH_CHARS = 500_000  # tokenised in one call: about 0.1 s on one core
_FILES_PER_SLICE = 16

_LARGE = 1 << 18  # tokens of an index of 2 MB, which is not written with every generation
_SHARE_UNSAVED = 50  # it is written again when one chunk in 50 has changed

Rows = dict[str, tuple[bytes, list[bytes]]]
"""The indexed files in their form on disk: path → (digest, names of the chunks, with repetitions)."""

_PREFIX = "tokens."
_TYPES = {"ids": np.int32, "order": np.int32, "names": np.uint8, "starts": np.int32}

Progress = Callable[[int, int], None]
"""(files done, files in total)"""


@dataclass(frozen=True)
class IndexedFile:
    """A file that the index contains: the digest of its text, and the names of its chunks with repetitions."""

    digest: bytes
    chunks: tuple[bytes, ...]


class TokenIndexer:
    """The token index of a folder, and the files that it contains."""

    def __init__(self, model: BaseModel) -> None:
        self.index = TokenIndex()
        self.changed: list[str] = []
        """The files that the last update indexed again or removed."""
        self.unsaved = 0
        """Chunks that came or went since `to_tensors`."""
        self._model = model
        self._files: dict[str, IndexedFile] = {}
        self._uses: Counter[bytes] = Counter()  # chunk → how often the files contain it
        self._read: dict[str, tuple[bytes, str]] = {}

    @property
    def files(self) -> Mapping[str, IndexedFile]:
        """The indexed files by path."""
        return self._files

    @property
    def key(self) -> str:
        """Names what an index depends on besides the texts."""
        return f"{RULE}/{self._model.digest}"

    def note(self, path: str, digest: bytes, text: str) -> None:
        """Keep the text of a file that was read for another purpose until the next update."""
        known = self._files.get(path)
        if known is None or known.digest != digest:
            self._read[path] = (digest, text)

    # --- updating ----------------------------------------------------------------------------------------------------

    def update_in_slices(
        self, digests: Mapping[str, bytes], read: Callable[[str], Slices[str]], progress: Progress
    ) -> Slices[int]:
        """Make the index that of the files with these digests; return the number of chunks that came and went.

        `read` returns the text of a path, "" if it may not be read.
        """
        changed = [path for path, digest in digests.items() if not self._has(path, digest)]
        gone = [path for path in self._files if path not in digests]
        target, new = yield from self._chunks_of(changed, digests, read)
        uses = self._uses_after([*changed, *gone], target.values())
        wanted = {name: text for name, text in new.items() if name not in self.index.chunks}
        tokens: dict[bytes, Int32Array] = {}
        for batch in _batches(wanted):
            tokens |= yield from in_background(partial(_encode, self._model, batch))
            progress(len(changed) * len(tokens) // len(wanted), len(changed))
        removed = [name for name in self.index.chunks if not uses[name]]
        if tokens or removed:
            self.index = yield from in_background(partial(self.index.updated, tokens, removed))
        self._files = {path: file for path, file in self._files.items() if path in digests} | target
        self._uses, self._read, self.changed = uses, {}, [*changed, *gone]
        self.unsaved += len(tokens) + len(removed)
        progress(len(changed), len(changed))
        return len(tokens) + len(removed)

    def _has(self, path: str, digest: bytes) -> bool:
        known = self._files.get(path)
        return known is not None and known.digest == digest

    def _chunks_of(
        self, paths: Sequence[str], digests: Mapping[str, bytes], read: Callable[[str], Slices[str]]
    ) -> Slices[tuple[dict[str, IndexedFile], dict[bytes, str]]]:
        """The records of changed files, and the texts of all their chunks by name."""
        target, new = dict[str, IndexedFile](), dict[bytes, str]()
        for number, path in enumerate(paths, 1):
            digest, text = self._read.pop(path, (b"", ""))
            if digest != digests[path]:
                text = yield from read(path)
            chunks = _named_chunks(text)
            target[path] = IndexedFile(digests[path], tuple(chunks))
            new |= chunks
            if number % _FILES_PER_SLICE == 0:
                yield
        return target, new

    def _uses_after(self, replaced: Iterable[str], new: Iterable[IndexedFile]) -> Counter[bytes]:
        uses = self._uses.copy()
        for path in replaced:
            if path in self._files:
                uses.subtract(self._files[path].chunks)
        for file in new:
            uses.update(file.chunks)
        return +uses

    def without(self, paths: Collection[str]) -> TokenIndex:
        """The index of all files but some."""
        held_out = self._uses_after(paths, ())
        return self.index.updated({}, [name for name in self.index.chunks if not held_out[name]])

    # --- storage -----------------------------------------------------------------------------------------------------

    @property
    def saved_well_enough(self) -> bool:
        """Whether a start with the index saved last would have few chunks to index again, and writing it takes long."""
        return len(self.index) >= _LARGE and self.unsaved * _SHARE_UNSAVED <= len(self.index.chunks)

    def rows(self) -> Rows:
        """The indexed files, to be saved beside the index."""
        return {path: (file.digest, list(file.chunks)) for path, file in self._files.items()}

    def to_tensors(self) -> dict[str, Tensor]:
        """The index as named int32 tensors, to be saved with a state."""
        self.unsaved = 0
        arrays = self.index.to_arrays()
        return {
            f"{_PREFIX}{name}": torch.from_numpy(np.ascontiguousarray(arrays[name]).view(np.int32)) for name in _TYPES
        }

    def restore(self, tensors: Mapping[str, Tensor], rows: Rows, key: str) -> None:
        """Take up a saved index that has this `key`; one of another model or of other rules is left.

        Files whose chunks it lacks are indexed again; chunks of no file are removed then. Raises StateError if the
        index is damaged.
        """
        if key != self.key:
            return
        found = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(_PREFIX)}
        if found.keys() != _TYPES.keys() or any(tensor.dtype != torch.int32 for tensor in found.values()):
            raise StateError("the token index has other tensors than an index")
        arrays = {name: found[name].numpy().view(kind) for name, kind in _TYPES.items()}
        self.index = TokenIndex.from_arrays(arrays, self._model.vocabulary)
        self._files = {
            path: IndexedFile(digest, tuple(names))
            for path, (digest, names) in rows.items()
            if all(name in self.index.chunks for name in names)
        }
        self._uses = self._uses_after((), self._files.values())

    def discard(self) -> None:
        """Drop the index and everything that was read for it."""
        self.index, self._files, self._uses, self._read = TokenIndex(), {}, Counter(), {}


def index_of(model: BaseModel, texts: Iterable[str]) -> TokenIndex:
    """The index of some texts, made at once."""
    chunks: dict[bytes, str] = {}
    for text in texts:
        chunks |= _named_chunks(text)
    return TokenIndex().updated(_encode(model, chunks))


def _named_chunks(text: str) -> dict[bytes, str]:
    """The chunks of a text that contain a letter or digit, by name."""
    return {chunking.key(chunk): chunk for chunk in chunking.split(text) if any(map(str.isalnum, chunk))}


def _encode(model: BaseModel, chunks: Mapping[bytes, str]) -> dict[bytes, Int32Array]:
    """The start token and the tokens of some chunks by name."""
    encoded = model.encode_batch(list(chunks.values()))
    return {name: np.array([model.start_id, *ids], np.int32) for name, ids in zip(chunks, encoded, strict=True)}


def _batches(chunks: Mapping[bytes, str]) -> Iterator[dict[bytes, str]]:
    """The chunks in parts of about _BATCH_CHARS characters."""
    batch: dict[bytes, str] = {}
    size = 0
    for name, text in chunks.items():
        batch[name] = text
        size += len(text)
        if size >= _BATCH_CHARS:
            yield batch
            batch, size = {}, 0
    if batch:
        yield batch


def without_index(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `TokenIndexer.to_tensors` did not write."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(_PREFIX)}
