"""Snapshots of a folder (path → content digest), and the scan that brings one up to date.

The digest decides whether a file changed. Size and modification time only save reading a file again. They are not
trusted for a file that changed so shortly before it was read that a second change could have the same time stamp
(git calls such a file racily clean).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeAlias

import msgspec

from c2l_lsp.errors import FolderError
from c2l_lsp.repo.filter.files import FileFilter, FileText

RACY_NS = 2_000_000_000
"""The coarsest time-stamp resolution of the file systems in use (FAT: 2 s)."""

UNSETTLED = 0
"""`mtime_ns` of an entry that the next scan must read again."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One file. `mtime_ns` is UNSETTLED if the file was younger than RACY_NS when it was read."""

    digest: bytes
    size: int
    mtime_ns: int

    @classmethod
    def from_file(cls, file: FileText, read_at_ns: int) -> Entry:
        """Return the entry of a file whose reading began at `read_at_ns` (time.time_ns)."""
        settled = 0 < file.mtime_ns < read_at_ns - RACY_NS
        return cls(file.digest, file.size, file.mtime_ns if settled else UNSETTLED)


Snapshot: TypeAlias = "dict[str, Entry]"


class Scan:
    """A comparison of a folder with its previous snapshot, done in steps.

    Without `hints`, the scan walks the whole folder and skips files whose size and modification time are unchanged.
    With `hints` (paths of files or directories from a watcher), it looks only at those and always reads a hinted
    file. `on_read` receives every file that the scan reads, so that the caller need not read it again. `previous` is
    not modified. Raises FolderError if the root is missing: a missing folder does not mean that its files were
    deleted.
    """

    def __init__(
        self,
        filter: FileFilter,
        previous: Snapshot,
        hints: frozenset[str] | None = None,
        on_read: Callable[[str, FileText], None] | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._filter = filter
        self._previous = previous
        self._on_read = on_read
        self._clock_ns = clock_ns
        self._steps = self._scan_all() if hints is None else self._scan_hinted(hints)
        self._found: Snapshot = {}
        self._done = False

    def step(self, budget_s: float) -> bool:
        """Scan for about `budget_s` seconds, one file or directory at least; return whether the scan is done."""
        deadline = time.monotonic() + budget_s
        for _ in self._steps:
            if time.monotonic() >= deadline:
                return False
        self._done = True
        return True

    @property
    def snapshot(self) -> Snapshot:
        """The new snapshot. Raises RuntimeError before the scan is done."""
        if not self._done:
            raise RuntimeError("the scan is not done")
        return self._found

    def _scan_all(self) -> Iterator[None]:
        self._require_root()
        for path in self._filter.walk_in_steps():
            if path is not None:
                yield from self._check_file(path)
            yield
        self._require_root()

    def _scan_hinted(self, hints: frozenset[str]) -> Iterator[None]:
        self._require_root()
        directories = {path for path in hints if self._may_be_directory(path)}
        self._found = {**self._previous}
        for path in hints:
            self._found.pop(path, None)
        if directories:
            self._found = {path: entry for path, entry in self._found.items() if not _is_below(path, directories)}
        yield
        spellings = Counter(path.casefold() for path in hints)
        for path in sorted(hints - directories):
            # After a rename that changes only the case, the old name still opens the file on a case-insensitive
            # file system. Such a pair of hints is checked against the directory listing.
            if spellings[path.casefold()] == 1 or self._filter.has_exact_name(path):
                yield from self._check_file(path, trust_mtime=False)
            yield
        for directory in sorted(directories):
            for below in self._filter.walk_in_steps(directory):
                if below is not None and below not in hints:
                    yield from self._check_file(below)
                yield
        self._require_root()

    def _check_file(self, path: str, *, trust_mtime: bool = True) -> Iterator[None]:
        """Add the entry of a file to the new snapshot, reading the file if it may have changed."""
        previous = self._previous.get(path)
        if trust_mtime and previous is not None and self._is_unchanged(path, previous):
            self._found[path] = previous
            return
        read_at_ns = self._clock_ns()
        file = yield from self._filter.read_in_slices(path)
        if file is None:
            return
        self._found[path] = Entry.from_file(file, read_at_ns)
        if self._on_read is not None:
            self._on_read(path, file)

    def _is_unchanged(self, path: str, entry: Entry) -> bool:
        try:
            status = (self._filter.root / path).lstat()
        except OSError:
            return False
        return entry.mtime_ns != UNSETTLED and (status.st_size, status.st_mtime_ns) == (entry.size, entry.mtime_ns)

    def _may_be_directory(self, path: str) -> bool:
        """Return whether a hint covers all files below it: a directory, or a missing path that was not a file."""
        full = self._filter.root / path
        return os.path.isdir(full) or (path not in self._previous and not os.path.isfile(full))  # noqa: PTH112, PTH113

    def _require_root(self) -> None:
        if not self._filter.root.is_dir():
            raise FolderError(f"{self._filter.root} no longer exists.")


def _is_below(path: str, directories: set[str]) -> bool:
    while path := path.rpartition("/")[0]:
        if path in directories:
            return True
    return "" in directories
