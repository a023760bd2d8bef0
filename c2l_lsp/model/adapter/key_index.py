"""Key index: the positions of a repository that have a neural key, sorted so that those of one token lie together.

    ids     … −1 s t₁ t₂ … tₙ −1 s u₁ …     each chunk: a boundary, the start token, its tokens
    places  the indices in `ids` of all tokens that have a next one, sorted by token, then by place
    keys    the key of each place, in the order of `places`

The chunks stand in the order of their names, a hash of their ids. So the index is a function of the set of chunks,
however it was reached. Equal chunks are stored once, with the number of their uses. One array of keys serves look-up
and update: an index costs D + 12 bytes a position, and an update makes one copy of it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from c2l_lsp.errors import AdapterError, StateError
from c2l_lsp.model.runtime.kernel import Int32Array

BOUNDARY = -1
"""First id of every chunk; equals no token, so a match never extends beyond its chunk."""

Int8Array = NDArray[np.int8]

Entries = Mapping[str, Tensor]
"""The datastore entries of one chunk: ids int32 [n + 2] (a boundary, the start token, n tokens), keys int8 [n, D]."""

Chunks = dict[bytes, tuple[int, int, int]]
"""Name of a chunk → its first index in `ids`, its length with the boundary, and the number of its uses."""


@dataclass(frozen=True, eq=False)
class KeyIndex:
    """The index of a multiset of chunks. It is immutable; the module explains the arrays.

    ids int32 [M], places int32 [N], keys int8 [N, D].
    """

    ids: Int32Array
    places: Int32Array
    keys: Int8Array
    chunks: Chunks = field(default_factory=dict)

    @classmethod
    def empty(cls, width: int) -> KeyIndex:
        """An index without chunks, for keys of `width` numbers."""
        none = np.zeros(0, np.int32)
        return cls(none, none, np.zeros((0, width), np.int8))

    @classmethod
    def of(cls, ids: Tensor, keys: Tensor) -> KeyIndex:
        """The index of chunks that stand one after another: ids int32 [M], keys int8 [N, D] in the order of the ids.

        For search only: it has no names, so `updated` cannot remove these chunks. Raises AdapterError if the number of
        keys is not the number of positions.
        """
        tokens = ids.numpy()
        places = _places(tokens)
        if len(places) != len(keys):
            raise AdapterError(
                f"The kNN memory is damaged: it holds {len(keys)} keys for {len(places)} positions. "
                "Run c2l.resetAdapter to index the folder again."
            )
        order = np.argsort(tokens[places], kind="stable")
        return cls(tokens, places[order], keys.numpy()[order])

    def __len__(self) -> int:
        """The number of positions with a key."""
        return len(self.places)

    @cached_property
    def last(self) -> Int32Array:
        """The token at each place [N], ascending."""
        return self.ids[self.places]

    @cached_property
    def digest(self) -> bytes:
        """Sixteen bytes that identify the positions and their keys."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (self.ids, self.places, self.keys):
            digest.update(array.tobytes())
        return digest.digest()

    def to_tensors(self) -> tuple[Tensor, Tensor]:
        """The arguments of `of`."""
        return torch.from_numpy(self.ids), torch.from_numpy(self.keys[np.argsort(self.places)])

    # --- update ------------------------------------------------------------------------------------------------------

    def updated(self, added: Iterable[Entries], removed: Iterable[Entries] = ()) -> KeyIndex:
        """The index with some chunks added and others removed. What is removed more often than it is used is ignored.

        Takes time proportional to the index, and n log n for n positions added.
        """
        changes, entries = Counter[bytes](), dict[bytes, Entries]()
        for sign, some in ((1, added), (-1, removed)):
            for chunk in some:
                name = _name(chunk["ids"])
                changes[name] += sign
                if sign > 0:
                    entries.setdefault(name, chunk)
        uses = {name: use for name, (_, _, use) in self.chunks.items()}
        for name, change in changes.items():
            uses[name] = uses.get(name, 0) + change
        alive = {name: use for name, use in uses.items() if use > 0 and (name in self.chunks or name in entries)}
        if alive.keys() == self.chunks.keys():
            chunks = {name: (start, length, alive[name]) for name, (start, length, _) in self.chunks.items()}
            return KeyIndex(self.ids, self.places, self.keys, chunks)
        return self._rebuilt(alive, {name: entries[name] for name in alive if name not in self.chunks})

    def _rebuilt(self, uses: Mapping[bytes, int], new: Mapping[bytes, Entries]) -> KeyIndex:
        """The index of the chunks in `uses`; those in `new` are not in this one."""
        moved = np.full(len(self.ids), -1, np.int32)  # where each id goes
        parts, chunks, at = list[Int32Array](), Chunks(), 0
        fresh_places, fresh_keys = [np.zeros(0, np.int32)], [np.zeros((0, self.keys.shape[1]), np.int8)]
        for name in sorted(uses):
            if name in new:
                part = new[name]["ids"].numpy()
                fresh_places.append(_places(part) + np.int32(at))
                fresh_keys.append(new[name]["keys"].numpy())
            else:
                start, length, _ = self.chunks[name]
                part = self.ids[start : start + length]
                moved[start : start + length] = np.arange(at, at + length, dtype=np.int32)
            parts.append(part)
            chunks[name] = (at, len(part), uses[name])
            at += len(part)
        if at > np.iinfo(np.int32).max:
            raise ValueError("a key index holds at most 2³¹ tokens")
        ids = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        places, keys = self._merged(ids, moved[self.places], np.concatenate(fresh_places), fresh_keys)
        return KeyIndex(ids, places, keys, chunks)

    def _merged(
        self, ids: Int32Array, kept: Int32Array, fresh: Int32Array, fresh_keys: list[Int8Array]
    ) -> tuple[Int32Array, Int8Array]:
        """The sorted places and their keys: old ones at `kept` [N] (−1: removed) and new ones at `fresh`."""
        order = np.argsort(ids[fresh], kind="stable")  # their places ascend already
        fresh = fresh[order]
        rows = np.flatnonzero(kept >= 0).astype(np.int32)
        old = kept[rows]
        at = np.searchsorted(_rank(ids, old), _rank(ids, fresh)) + np.arange(len(fresh))  # rows of the new ones
        places = np.empty(len(old) + len(fresh), np.int32)
        is_old = np.ones(len(places), bool)
        is_old[at] = False
        places[is_old], places[at] = old, fresh
        keys = np.empty((len(places), self.keys.shape[1]), np.int8)
        targets = np.flatnonzero(is_old)
        for start, end in _runs(rows, targets):  # what stays together is copied at once
            keys[targets[start] : targets[start] + end - start] = self.keys[rows[start] : rows[start] + end - start]
        keys[at] = np.concatenate(fresh_keys)[order]
        return places, keys


def _name(ids: Tensor) -> bytes:
    return hashlib.blake2b(ids.numpy().tobytes(), digest_size=16).digest()


def _places(ids: Int32Array) -> Int32Array:
    """Indices of the tokens that have a next one in their chunk."""
    return np.flatnonzero((ids[:-1] != BOUNDARY) & (ids[1:] != BOUNDARY)).astype(np.int32)


def _rank(ids: Int32Array, places: Int32Array) -> NDArray[np.int64]:
    """A number for each place that orders places by token, then by place."""
    return (ids[places].astype(np.int64) << 32) | places


def _runs(rows: Int32Array, targets: NDArray[np.intp]) -> Iterable[tuple[int, int]]:
    """Ranges in which both arrays count up one by one."""
    if not len(rows):
        return []
    breaks = np.flatnonzero((np.diff(rows) != 1) | (np.diff(targets) != 1)) + 1
    return pairwise([0, *breaks.tolist(), len(rows)])


def check_entries(entries: Entries, width: int, vocabulary: int) -> None:
    """Raise StateError unless these are the entries of one chunk of known tokens, with keys of `width` numbers."""
    ids, keys = entries["ids"], entries["keys"]
    if ids.dtype != torch.int32 or keys.dtype != torch.int8 or ids.dim() != 1 or tuple(keys.shape[1:]) != (width,):
        raise StateError("a chunk's entries in the kNN memory have other types or shapes")
    if len(keys) != len(ids) - 2:
        raise StateError(f"a chunk has {len(keys)} keys, which does not fit its {len(ids)} token ids")
    tokens = ids.numpy()
    if tokens[0] != BOUNDARY or int(tokens[1:].min()) < 0 or int(tokens.max()) >= vocabulary:
        raise StateError("a chunk has token ids outside the model's vocabulary")
