"""Whether a file has changed, from its status alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

Stamp: TypeAlias = "tuple[int, int, int, int]"
"""Device, inode, size in bytes and modification time in ns."""


def stamp(path: Path | str) -> Stamp | None:
    """Return the stamp of a file or directory, links followed; None if it cannot be reached."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a str or a Path
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
