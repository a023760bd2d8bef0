"""The state directories of all folders on this machine: list them, delete one, limit their total size."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from c2l_lsp.config import state_root
from c2l_lsp.engine.storage import disk
from c2l_lsp.engine.storage.store import MARKER_FILES, FolderStore, folder_key
from c2l_lsp.errors import StateError, StorageError

MAX_TOTAL_MB = 4096.0
"""Limit of all state directories together. Above it, the states that were written longest ago are deleted."""


def inventory() -> dict[str, Any]:
    """Return {"root", "folders": [{folder, generation, files, mb, updated, key, readable}]} of the state root.

    `updated` is local time; a row that is not readable has an "error" too.
    """
    root = state_root()
    rows = [_row(path) for path in sorted(_states(root))]
    return {"root": str(root), "folders": [row for row in rows if row is not None]}


def _states(root: Path) -> list[Path]:
    """All state directories, also without a complete generation. The root may hold other directories too."""
    try:
        return [path for path in root.iterdir() if any((path / mark).exists() for mark in MARKER_FILES)]
    except OSError:
        return []


def _row(directory: Path) -> dict[str, Any] | None:
    """The row of a state directory. Without a complete generation it takes space as well, so it is listed."""
    written = _written(directory)
    if written is None:
        return None  # was deleted meanwhile
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
        return {**unknown, "error": "There is no complete saved state."}
    generation, files = loaded.generation, len(loaded.files)
    return {**row, "folder": loaded.folder, "generation": generation, "files": files, "readable": True}


def _written(directory: Path) -> float | None:
    """Unix time of the last write; None if the directory does not exist."""
    for path in (directory / "CURRENT", directory):
        try:
            return path.stat().st_mtime
        except OSError:
            continue
    return None


def forget(folder: Path) -> int:
    """Delete the state of a folder and return the bytes freed.

    Raises StorageError if it cannot be deleted or the folder is open in a server.
    """
    directory = state_root() / folder_key(folder)
    if not directory.is_dir():
        return 0
    freed = disk.directory_size(directory)
    store = FolderStore(directory)
    if not store.acquire():
        raise StorageError(
            f"{folder} is open in a running server, which would save its state again. Close it there first."
        )
    store.clear()
    return freed


def prune(root: Path, max_mb: float = MAX_TOTAL_MB) -> list[Path]:
    """Delete the states written longest ago until all together have at most `max_mb` MiB. Return those deleted.

    States that another process has locked, and those that cannot be deleted, are left.
    """
    ages = {path: written for path in _states(root) if (written := _written(path)) is not None}
    sizes = {path: disk.directory_size(path) / 2**20 for path in ages}
    excess, deleted = sum(sizes.values()) - max_mb, []
    for path in sorted(ages, key=lambda path: ages[path]):
        if excess <= 0:
            break
        store = FolderStore(path)
        try:
            if store.acquire():
                store.clear()
                deleted.append(path)
                excess -= sizes[path]
        except StorageError:
            continue
        finally:
            store.close()
    return deleted
