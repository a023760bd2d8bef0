"""What a folder held when it was last looked at: path → content hash, and the scan that brings it up to date.

The content hash is the truth. Size and time only save reading a file again, and never when the file changed so
shortly before it was read that a second change could carry the same time.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeAlias

import msgspec

from c2l_lsp.errors import FolderError
from c2l_lsp.repo.filter.files import FileFilter, FileText, Refusal

RACY_NS = 2_000_000_000
"""Coarsest time stamp of the file systems in use (FAT: 2 s)."""

UNSETTLED = 0
"""mtime_ns of an entry that must be read again at the next scan."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One file. `mtime_ns` is UNSETTLED when the file was younger than RACY_NS as it was read."""

    digest: bytes
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, file: FileText, read_at_ns: int) -> Entry:
        """The entry of a file whose reading began at `read_at_ns` (time.time_ns)."""
        settled = 0 < file.mtime_ns < read_at_ns - RACY_NS
        return cls(file.digest, file.size, file.mtime_ns if settled else UNSETTLED)


Snapshot: TypeAlias = "dict[str, Entry]"


class Scan:
    """One look at a folder, in steps of the caller's choice.

    Without `only` the whole folder is walked; files whose size and time are those of `known` are taken over unread.
    With `only` (a watcher's hints: files or directories) just these are looked at, and a hinted file is always read.
    `on_read` gets every file that was read, so that nothing is read twice. `known` is not changed.
    Raises FolderError when the root is gone: a folder that vanished is not a folder whose files were deleted.
    """

    def __init__(
        self,
        filter: FileFilter,
        known: Snapshot,
        only: frozenset[str] | None = None,
        on_read: Callable[[str, FileText], None] | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._filter = filter
        self._known = known
        self._on_read = on_read
        self._clock_ns = clock_ns
        self._work = self._whole() if only is None else self._hinted(only)
        self._found: Snapshot = {}
        self.done = False
        self.seen = 0
        """Files looked at."""
        self.read = 0
        """Files read."""
        self.refused: Counter[Refusal] = Counter()
        """Files that the path rules admit and that were refused, by reason."""

    def step(self, budget_s: float) -> bool:
        """Work for about `budget_s` seconds (one file or directory at least); whether the scan is done."""
        until = time.monotonic() + budget_s
        for _ in self._work:
            if time.monotonic() >= until:
                return False
        self.done = True
        return True

    @property
    def snapshot(self) -> Snapshot:
        """The folder as it is now. Only when done."""
        if not self.done:
            raise RuntimeError("the scan is not done")
        return self._found

    def finish(self) -> Snapshot:
        """Work to the end, however long it takes."""
        while not self.step(1.0):
            pass
        return self._found

    def _whole(self) -> Iterator[None]:
        self._require_root()
        for path in self._filter.steps():
            if path is not None:
                self._look(path)
            yield
        self._require_root()

    def _hinted(self, only: frozenset[str]) -> Iterator[None]:
        self._require_root()
        trees = {path for path in only if self._may_be_tree(path)}
        self._found = {**self._known}
        for path in only:
            self._found.pop(path, None)
        if trees:
            self._found = {path: entry for path, entry in self._found.items() if not _below(path, trees)}
        yield
        alike = Counter(path.casefold() for path in only)
        for path in sorted(only - trees):
            # renamed in its letters' case: where that does not count, the old name opens the file still
            if alike[path.casefold()] == 1 or self._filter.lists(path):
                self._look(path, trust_time=False)
            yield
        for tree in sorted(trees):
            for below in self._filter.steps(tree):
                if below is not None and below not in only:
                    self._look(below)
                yield
        self._require_root()

    def _look(self, path: str, *, trust_time: bool = True) -> None:
        self.seen += 1
        known = self._known.get(path)
        if trust_time and known is not None and self._unchanged(path, known):
            self._found[path] = known
            return
        began = self._clock_ns()
        file = self._filter.load(path)
        if isinstance(file, Refusal):
            if file not in (Refusal.MISSING, Refusal.EXCLUDED):
                self.refused[file] += 1
            return
        self.read += 1
        self._found[path] = Entry.of(file, began)
        if self._on_read is not None:
            self._on_read(path, file)

    def _unchanged(self, path: str, known: Entry) -> bool:
        try:
            status = (self._filter.root / path).lstat()
        except OSError:
            return False
        return known.mtime_ns != UNSETTLED and (status.st_size, status.st_mtime_ns) == (known.size, known.mtime_ns)

    def _may_be_tree(self, path: str) -> bool:
        """Whether a hint stands for all below it: it is a directory, or it is gone and was no file."""
        full = self._filter.root / path
        return os.path.isdir(full) or (path not in self._known and not os.path.isfile(full))  # noqa: PTH112, PTH113

    def _require_root(self) -> None:
        if not self._filter.root.is_dir():
            raise FolderError(f"{self._filter.root} is not there any more.")


def _below(path: str, trees: set[str]) -> bool:
    while path := path.rpartition("/")[0]:
        if path in trees:
            return True
    return "" in trees
