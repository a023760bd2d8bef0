"""What is kept on this machine: every folder's state directory, its size, and how to delete it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from c2l_lsp.config import state_root
from c2l_lsp.engine.storage import disk
from c2l_lsp.engine.storage.store import MARKS, FolderStore, folder_key
from c2l_lsp.errors import StateError, StorageError

MAX_TOTAL_MB = 4096.0
"""Everything kept together; beyond that the folders that were learned longest ago are forgotten."""


def inventory() -> dict[str, Any]:
    """{"root", "folders": [{folder, generation, files, mb, updated, readable}]} of the state root."""
    root = state_root()
    rows = [_row(path) for path in sorted(_states(root))]
    return {"root": str(root), "folders": [row for row in rows if row is not None]}


def _states(root: Path) -> list[Path]:
    """The folders' state directories, also those without a whole generation; other things are kept beside them."""
    try:
        return [path for path in root.iterdir() if any((path / mark).exists() for mark in MARKS)]
    except OSError:
        return []


def _row(directory: Path) -> dict[str, Any] | None:
    """A folder's row; one without a whole generation (learning was interrupted) is kept too, and takes room."""
    written = _written(directory)
    if written is None:
        return None  # deleted meanwhile
    when = dt.datetime.fromtimestamp(written, tz=dt.timezone.utc).astimezone()
    row = {
        "mb": disk.directory_size(directory) / 2**20,
        "updated": when.strftime("%Y-%m-%d %H:%M"),
        "key": directory.name,
    }
    unknown = {**row, "folder": directory.name, "generation": 0, "files": 0, "readable": False}
    try:
        loaded = FolderStore(directory).load_metadata()
    except StateError as error:
        return {**unknown, "error": str(error)}
    if loaded is None:
        return {**unknown, "error": "No whole generation is kept."}
    generation, files = loaded.generation, len(loaded.files)
    return {**row, "folder": loaded.folder, "generation": generation, "files": files, "readable": True}


def _written(directory: Path) -> float | None:
    """When a state was written last; None if it is not there."""
    for path in (directory / "CURRENT", directory):
        try:
            return path.stat().st_mtime
        except OSError:
            continue
    return None


def forget(folder: Path) -> int:
    """Delete a folder's state; the bytes freed. StorageError if it cannot be deleted, or a server keeps it just now."""
    directory = state_root() / folder_key(folder)
    if not directory.is_dir():
        return 0
    freed = disk.directory_size(directory)
    store = FolderStore(directory)
    if not store.acquire():
        raise StorageError(f"{folder} is open in a running server, which would learn it again; close it there first.")
    store.clear()
    return freed


def prune(root: Path, max_mb: float = MAX_TOTAL_MB) -> list[Path]:
    """Delete the states that were written longest ago until all together are small enough; which ones those were.

    One that a process holds is left alone, and so is what cannot be deleted.
    """
    ages = {path: written for path in _states(root) if (written := _written(path)) is not None}
    sizes = {path: disk.directory_size(path) / 2**20 for path in ages}
    over, gone = sum(sizes.values()) - max_mb, []
    for path in sorted(ages, key=lambda path: ages[path]):
        if over <= 0:
            break
        store = FolderStore(path)
        try:
            if store.acquire():
                store.clear()
                gone.append(path)
                over -= sizes[path]
        except StorageError:
            continue
        finally:
            store.close()
    return gone
