"""Opening of regular files only: no link, FIFO, socket or device is opened, and no open waits.

The folder's own files, the state directory and model folders are all read through this module.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_OPEN_FLAG_NAMES = ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY")
OPEN_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in _OPEN_FLAG_NAMES)
"""With these flags, opening does not wait for the writer of a FIFO and does not acquire a terminal."""
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_HAS_OPENAT = hasattr(os, "O_NOFOLLOW") and hasattr(os, "O_DIRECTORY") and os.open in os.supports_dir_fd


class NotRegular(OSError):
    """A path is, or passes through, something else than a regular file and directories. `is_link`: a link."""

    def __init__(self, path: str | Path, *, is_link: bool = False) -> None:
        kind = "a link" if is_link else "not a regular file"
        super().__init__(errno.ELOOP if is_link else errno.EINVAL, f"it is {kind}", str(path))
        self.is_link = is_link


def open_below(root: Path, path: str) -> int:
    """Return a descriptor of the regular file `path` (relative, with '/') below `root`, which may be a link itself.

    No link below `root` is followed. Raises NotRegular or another OSError.
    """
    if not _HAS_OPENAT:
        return _open_without_openat(root, path)
    *parents, name = path.split("/")
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for parent in parents:
            inner = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = inner
        # Checked before opening as well, because opening a device can have effects.
        _require_regular(os.stat(name, dir_fd=directory, follow_symlinks=False), path)
        return os.open(name, OPEN_FLAGS | NO_FOLLOW, dir_fd=directory)
    finally:
        os.close(directory)


def _open_without_openat(root: Path, path: str) -> int:
    """Open a file on systems without openat (Windows): the resolved path must equal the path."""
    full = root / path
    _require_regular(full.lstat(), path)
    if passes_through_link(root, path):
        raise NotRegular(path, is_link=True)
    return os.open(full, OPEN_FLAGS | NO_FOLLOW)


def passes_through_link(root: Path, path: str) -> bool:
    """Return whether the path below `root` contains a link; False if the path does not exist."""
    full = os.path.normcase(root / path)
    return os.path.normcase(os.path.realpath(full)) != full


def read_up_to(descriptor: int, limit: int) -> bytes:
    """Return at most `limit` bytes."""
    chunks = []
    while limit > 0 and (chunk := os.read(descriptor, min(limit, 1 << 18))):
        chunks.append(chunk)
        limit -= len(chunk)
    return b"".join(chunks)


def read(root: Path, path: str, limit: int) -> bytes:
    """Return the content of a regular file below `root`.

    Raises NotRegular, an OSError with EFBIG if the file has more than `limit` bytes, or another OSError.
    """
    descriptor = open_below(root, path)
    try:
        status = os.fstat(descriptor)
        _require_regular(status, path)
        content = b"" if status.st_size > limit else read_up_to(descriptor, limit + 1)
        if status.st_size > limit or len(content) > limit:  # the file may have grown since fstat
            raise OSError(errno.EFBIG, f"it has more than {limit} bytes", path)
        return content
    finally:
        os.close(descriptor)


def is_regular(path: Path) -> bool:
    """Return whether a path is a regular file, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):  # a path with NUL
        return False


def _require_regular(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotRegular(path, is_link=stat.S_ISLNK(status.st_mode))
