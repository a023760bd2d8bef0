"""Whole scans of a folder, and the changes between two snapshots."""

from __future__ import annotations

from collections.abc import Callable

from c2l_lsp.repo.filter.files import FileFilter, FileText
from c2l_lsp.repo.history.snapshot import Scan, Snapshot


def scan(
    files: FileFilter,
    previous: Snapshot | None = None,
    hints: frozenset[str] | None = None,
    on_read: Callable[[str, FileText], None] | None = None,
) -> Snapshot:
    """Return the snapshot of a scan that runs to its end."""
    running = Scan(files, previous or {}, hints, on_read)
    while not running.step(1.0):
        pass
    return running.snapshot


def changes(old: Snapshot, new: Snapshot) -> dict[str, str]:
    """Return "added", "modified" or "deleted" for each path whose content differs."""
    kinds = dict.fromkeys(new.keys() - old.keys(), "added") | dict.fromkeys(old.keys() - new.keys(), "deleted")
    kinds |= {path: "modified" for path in old.keys() & new.keys() if old[path].digest != new[path].digest}
    return dict(sorted(kinds.items()))
