"""The texts of a folder's files as they were last folded: a hypernetwork that reads diffs needs both sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from c2l_lsp.engine.adaptation.update_plan import FileRecord, UpdatePlan
from c2l_lsp.engine.storage.cache import Cache
from c2l_lsp.errors import StorageError


class FileTexts:
    """Texts by digest, in the cache; in memory where there is none."""

    def __init__(self, cache: Cache | None, on_trouble: Callable[[StorageError], None]) -> None:
        self._cache, self._on_trouble = cache, on_trouble
        self._held: dict[bytes, str] = {}
        self._paused = False

    def of(self, records: Mapping[str, FileRecord]) -> dict[bytes, str]:
        """The kept texts of some files, by digest; a lost one is not in the answer."""
        wanted = [record.entry.digest for record in records.values()]
        found = {digest: self._held[digest] for digest in wanted if digest in self._held}
        if self._cache is not None:
            try:
                found |= self._cache.texts(wanted)
            except StorageError as error:
                self._on_trouble(error)
        return found

    def keep(self, planned: UpdatePlan) -> None:
        """Keep the texts that came with a plan; those of no file any more are forgotten."""
        came = {planned.records[path].entry.digest: text for path, text in planned.came.items()}
        alive = {record.entry.digest for record in planned.records.values()}
        if self._cache is None or self._paused:
            self._held = {digest: text for digest, text in (self._held | came).items() if digest in alive}
            return
        try:
            self._cache.put_texts(self._held | came, alive)
            self._held = {}
        except StorageError as error:
            self._held |= came
            self._paused = True
            self._on_trouble(error)

    def resume(self) -> None:
        """The cache can be written again; it gets what is held with the next texts."""
        self._paused = False
