"""The texts of a workspace's files at the last update: a hypernetwork that reads diffs needs both sides of a diff."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from c2l_lsp.engine.storage.cache import Cache
from c2l_lsp.errors import StorageError


class FileTexts:
    """Texts by digest, in the cache, or in memory without one.

    `on_error` is called when the cache cannot be used. From then on texts stay in memory, until `resume`.
    """

    def __init__(self, cache: Cache | None, on_error: Callable[[StorageError], None]) -> None:
        self._cache, self._on_error = cache, on_error
        self._in_memory: dict[bytes, str] = {}
        self._paused = False

    def get(self, digests: Iterable[bytes]) -> dict[bytes, str]:
        """Return the texts that exist, by digest; a lost text is left out."""
        wanted = list(digests)
        found = {digest: self._in_memory[digest] for digest in wanted if digest in self._in_memory}
        if self._cache is not None:
            try:
                found |= self._cache.texts(wanted)
            except StorageError as error:
                self._on_error(error)
        return found

    def put(self, texts: Mapping[bytes, str], alive: set[bytes]) -> None:
        """Store texts by digest, and delete those whose digest is not in `alive`."""
        if self._cache is None or self._paused:
            self._in_memory = {
                digest: text for digest, text in (self._in_memory | dict(texts)).items() if digest in alive
            }
            return
        try:
            self._cache.put_texts(self._in_memory | dict(texts), alive)
            self._in_memory = {}
        except StorageError as error:
            self._in_memory |= texts
            self._paused = True
            self._on_error(error)

    def resume(self) -> None:
        """Use the cache again; texts held in memory are written with the next ones."""
        self._paused = False
