"""File texts by digest, so that a hypernetwork that embeds diffs can compare a file with its previous version."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from c2l_lsp.engine.storage.cache import Cache
from c2l_lsp.errors import StorageError


class FileTexts:
    """Texts in the cache; in memory if there is no cache, or while it cannot be written.

    `on_error` receives each StorageError. After a failed write, texts stay in memory until `resume`.
    """

    def __init__(self, cache: Cache | None, on_error: Callable[[StorageError], None]) -> None:
        self._cache, self._on_error = cache, on_error
        self._in_memory: dict[bytes, str] = {}
        self._paused = False

    def get(self, digests: Iterable[bytes]) -> dict[bytes, str]:
        """Return the stored texts of these digests. A missing or damaged text is left out."""
        wanted = list(digests)
        found = {digest: self._in_memory[digest] for digest in wanted if digest in self._in_memory}
        if self._cache is not None:
            try:
                found |= self._cache.get_texts(wanted)
            except StorageError as error:
                self._on_error(error)
        return found

    def put(self, new: Mapping[bytes, str], alive: set[bytes]) -> None:
        """Store new texts, and delete every text whose digest is not in `alive`."""
        texts = self._in_memory | dict(new)
        if self._cache is None or self._paused:
            self._in_memory = {digest: text for digest, text in texts.items() if digest in alive}
            return
        try:
            self._cache.put_texts(texts, alive)
            self._in_memory = {}
        except StorageError as error:
            self._in_memory = texts
            self._paused = True
            self._on_error(error)

    def resume(self) -> None:
        """Write to the cache again. The texts in memory are stored by the next `put`."""
        self._paused = False
