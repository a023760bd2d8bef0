"""What changed between two snapshots, and one file's change as text in git's form."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Literal

import msgspec

from c2l_lsp.repo.history.patch import unified
from c2l_lsp.repo.history.snapshot import Entry, Snapshot

__all__ = ["DiffBatch", "FileDiff", "between", "unified"]


class FileDiff(msgspec.Struct, frozen=True):
    """One file's change. `old_path` is set for renames only; an Entry is None on the side where the file is absent."""

    path: str
    kind: Literal["added", "modified", "deleted", "renamed"]
    old_path: str | None = None
    old: Entry | None = None
    new: Entry | None = None


class DiffBatch(msgspec.Struct, frozen=True):
    """What is folded into the state in one update. `trigger` says what brought it about, for logs and status."""

    diffs: tuple[FileDiff, ...]
    trigger: str

    def __bool__(self) -> bool:
        return bool(self.diffs)


def between(old: Snapshot, new: Snapshot, trigger: str = "diff") -> DiffBatch:
    """The changes from `old` to `new`, sorted by path. Only contents count: a touched file did not change.

    A file that went away and one that came with the same content are one rename. Empty files are never renamed: they
    all look alike.
    """
    gone = {path: entry for path, entry in old.items() if path not in new}
    came = {path: entry for path, entry in new.items() if path not in old}
    diffs = [
        FileDiff(path, "modified", None, old[path], entry)
        for path, entry in new.items()
        if path in old and old[path].digest != entry.digest
    ]
    for path, source in _renames(gone, came):
        diffs.append(FileDiff(path, "renamed", source, gone.pop(source), came.pop(path)))
    diffs += [FileDiff(path, "added", None, None, entry) for path, entry in came.items()]
    diffs += [FileDiff(path, "deleted", None, entry, None) for path, entry in gone.items()]
    return DiffBatch(tuple(sorted(diffs, key=lambda diff: (diff.path, diff.kind))), trigger)


def _renames(gone: Snapshot, came: Snapshot) -> list[tuple[str, str]]:
    """(new path, old path) of equal contents, each path once; an equal file name goes first, then path order."""
    pairs: list[tuple[str, str]] = []
    for by_name in (True, False):
        sources: dict[tuple[bytes, str], deque[str]] = defaultdict(deque)
        taken = {old for _, old in pairs}
        for old in sorted(gone.keys() - taken):
            sources[_look(old, gone[old], by_name=by_name)].append(old)
        for path in sorted(came.keys() - {new for new, _ in pairs}):
            left = sources.get(_look(path, came[path], by_name=by_name))
            if left and came[path].size:
                pairs.append((path, left.popleft()))
    return pairs


def _look(path: str, entry: Entry, *, by_name: bool) -> tuple[bytes, str]:
    return entry.digest, path.rpartition("/")[2] if by_name else ""
