"""Chunk embeddings by key: from the cache on disk, from memory while the disk fails, or computed by the base model."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from c2l_lsp.cooperative import Slices, timed
from c2l_lsp.engine.adaptation.update_plan import SLICE_S
from c2l_lsp.engine.storage.cache import Cache
from c2l_lsp.errors import StateError, StorageError
from c2l_lsp.model.hypernet.protocol import ENTRIES, Chunk, ChunkEmbedding, Hypernetwork, key_with_gradients

_KEYS_A_SLICE = 128
_FIRST_BATCH_CHARS = 2000
_MAX_BATCH_CHARS = 48000
_BATCH_S = 1.0  # a batch takes at most about this long: an edit waits for its end


class ChunkEmbeddings:
    """The embeddings of one workspace under one hypernetwork.

    `on_error` is called when the cache cannot be used. From then on embeddings stay in memory, until `resume`.
    """

    def __init__(self, cache: Cache | None, network: Hypernetwork, on_error: Callable[[StorageError], None]) -> None:
        self._cache, self._network, self._on_error = cache, network, on_error
        self._in_memory: dict[bytes, ChunkEmbedding] = {}
        self._paused = False
        self.seconds = 0.0
        """Time spent computing embeddings."""

    def get(self, keys: Iterable[bytes]) -> dict[bytes, ChunkEmbedding]:
        """Return the embeddings that exist; unknown keys are left out.

        One of neural keys alone is taken from the whole one of the same chunk if it does not exist itself.
        """
        wanted = list(dict.fromkeys(keys))
        found = self._get(wanted)
        whole = {key: name for key in wanted if key not in found and (name := key_with_gradients(key)) is not None}
        if whole:
            sources = self._get(list(whole.values()))
            parts: dict[bytes, ChunkEmbedding] = {
                key: {part: sources[name][part] for part in ENTRIES} for key, name in whole.items() if name in sources
            }
            if parts:
                self.put(parts)
            found |= parts
        return found

    def _get(self, wanted: list[bytes]) -> dict[bytes, ChunkEmbedding]:
        found = {key: self._in_memory[key] for key in wanted if key in self._in_memory}
        rest = [key for key in wanted if key not in found]
        if self._cache is not None and rest:
            try:
                found |= self._cache.get(rest, self._network.digest, self._network.check_embedding)
            except StorageError as error:
                self._pause(error)
        return found

    def get_in_slices(self, keys: Iterable[bytes]) -> Slices[dict[bytes, ChunkEmbedding]]:
        """As `get`, `_KEYS_A_SLICE` keys a slice."""
        wanted, found = list(dict.fromkeys(keys)), dict[bytes, ChunkEmbedding]()
        for start in range(0, len(wanted), _KEYS_A_SLICE):
            found |= self.get(wanted[start : start + _KEYS_A_SLICE])
            yield
        return found

    def compute(
        self,
        chunks: Iterable[Chunk],
        progress: Callable[[int, int], None],
        interrupted: Callable[[], bool] = lambda: False,
    ) -> Slices[bool]:
        """Embed chunks and store the result; return whether all were embedded before `interrupted` returned true.

        `progress(done, total)` is called after every batch, `interrupted` before every batch but the first. What was
        embedded is stored in any case. Chunks are sorted by length, so that a batch has little padding. The batch size
        follows the measured time: its longest slice takes about `SLICE_S`, all of it at most about `_BATCH_S`.
        """
        waiting = sorted(chunks, key=lambda chunk: (len(chunk.text), chunk.key))
        total, done, size = len(waiting), 0, _FIRST_BATCH_CHARS
        while waiting:
            if done and interrupted():  # at least one batch each time: constant changes cannot stop the work
                return False
            batch = _take(waiting, size)
            embeddings, slices = yield from timed(self._network.embed_in_slices(batch))
            self.seconds += sum(slices)
            self._require_sound(batch, embeddings)
            self.put(dict(zip((chunk.key for chunk in batch), embeddings, strict=True)))
            growth = min(2.0, SLICE_S / max(*slices, 1e-4), _BATCH_S / max(sum(slices), 1e-4))
            size = int(min(_MAX_BATCH_CHARS, max(_FIRST_BATCH_CHARS, size * growth)))
            done += len(batch)
            progress(done, total)
            yield
        return True

    def _require_sound(self, chunks: list[Chunk], embeddings: list[ChunkEmbedding]) -> None:
        """Raise FloatingPointError if the model computed what could not be loaded again, such as NaN."""
        for chunk, embedding in zip(chunks, embeddings, strict=True):
            try:
                self._network.check_embedding(chunk.key, embedding)
            except StateError as error:
                raise FloatingPointError(f"the model's embedding of a chunk is not sound: {error}") from error

    def put(self, embeddings: dict[bytes, ChunkEmbedding]) -> None:
        """Store embeddings under their keys."""
        if self._cache is None or self._paused:
            self._in_memory |= embeddings
            return
        try:
            self._cache.put(embeddings, self._network.digest)
        except StorageError as error:
            self._pause(error)
            self._in_memory |= embeddings

    def prune(self, alive: set[bytes], texts: set[bytes]) -> bool:
        """Delete embeddings other than `alive` and cached texts other than `texts`; False if the disk refused."""
        self._in_memory = {key: embedding for key, embedding in self._in_memory.items() if key in alive}
        if self._cache is not None and not self._paused:
            try:
                self._cache.prune(alive, self._network.digest, texts)
            except StorageError as error:
                self._pause(error)
        return not self._paused

    def resume(self) -> None:
        """Use the cache again, and write to it what was held in memory meanwhile."""
        self._paused = False
        held, self._in_memory = self._in_memory, {}
        if held:
            self.put(held)

    def _pause(self, error: StorageError) -> None:
        self._paused = True
        self._on_error(error)


def _take(waiting: list[Chunk], chars: int) -> list[Chunk]:
    """Remove and return the longest chunks whose padded size stays within `chars`, at least one."""
    longest = max(len(waiting[-1].text), 1)
    count = max(1, min(len(waiting), chars // longest))
    batch = waiting[-count:]
    del waiting[-count:]
    return batch
