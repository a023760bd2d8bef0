"""Safe reading of one file: a regular file, no link anywhere in its path, a bounded number of bytes.

Knows no name rules; `FileFilter` checks those first.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from c2l_lsp.repo.filter import content
from c2l_lsp.repo.filter.content import Refusal

_OPEN_FLAG_NAMES = ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY")
OPEN_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in _OPEN_FLAG_NAMES)
"""With these flags, opening does not wait for the writer of a FIFO and does not acquire a terminal."""
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_HAS_OPENAT = hasattr(os, "O_NOFOLLOW") and hasattr(os, "O_DIRECTORY") and os.open in os.supports_dir_fd
_LINK_ERRORS = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EMLINK})


class FileText(NamedTuple):
    """A file that was read. `digest` is the blake2b-16 of its UTF-8 text, `size` the number of bytes."""

    text: str
    digest: bytes
    size: int
    mtime_ns: int


class _Refused(Exception):
    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason.value)
        self.reason = reason


def read_text(root: Path, path: str, limit: int) -> FileText | Refusal:
    """Return the text of `path` (relative to the resolved `root`, with '/'), or the reason why it is refused."""
    try:
        descriptor = _open(root, path)
    except _Refused as refused:
        return refused.reason
    except OSError as error:
        return _refusal_of(error)
    try:
        return _read_open(descriptor, limit)
    except OSError:
        return Refusal.UNREADABLE
    finally:
        os.close(descriptor)


def check_bytes(data: bytes, mtime_ns: int) -> FileText | Refusal:
    """Return the decoded file if its bytes pass the content rules, or the reason why it is refused."""
    found = content.check_content(data)
    if isinstance(found, Refusal):
        return found
    return FileText(found, blake2b(data, digest_size=16).digest(), len(data), mtime_ns)


def _open(root: Path, path: str) -> int:
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
        _require_regular(os.stat(name, dir_fd=directory, follow_symlinks=False))
        return os.open(name, OPEN_FLAGS | NO_FOLLOW, dir_fd=directory)
    finally:
        os.close(directory)


def _open_without_openat(root: Path, path: str) -> int:
    """Open a file on systems without openat (Windows): the resolved path must equal the path."""
    full = root / path
    _require_regular(full.lstat())
    if passes_through_link(root, path):
        raise _Refused(Refusal.LINK)
    return os.open(full, OPEN_FLAGS | NO_FOLLOW)


def passes_through_link(root: Path, path: str) -> bool:
    """Return whether the path below `root` contains a link; False if the path does not exist."""
    full = os.path.normcase(root / path)
    return os.path.normcase(os.path.realpath(full)) != full


def _read_open(descriptor: int, limit: int) -> FileText | Refusal:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return Refusal.IRREGULAR
    if status.st_size > limit:
        return Refusal.TOO_LARGE
    data = read_up_to(descriptor, limit + 1)
    if len(data) > limit:  # the file grew since fstat
        return Refusal.TOO_LARGE
    return check_bytes(data, status.st_mtime_ns)


def read_up_to(descriptor: int, limit: int) -> bytes:
    """Return at most `limit` bytes."""
    chunks = []
    while limit > 0 and (chunk := os.read(descriptor, min(limit, 1 << 18))):
        chunks.append(chunk)
        limit -= len(chunk)
    return b"".join(chunks)


def _require_regular(status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise _Refused(Refusal.LINK)
    if not stat.S_ISREG(status.st_mode):
        raise _Refused(Refusal.IRREGULAR)


def _refusal_of(error: OSError) -> Refusal:
    if error.errno in _LINK_ERRORS:
        return Refusal.LINK
    if error.errno == errno.ENOENT:
        return Refusal.MISSING
    return Refusal.IRREGULAR if error.errno == errno.ENXIO and sys.platform != "win32" else Refusal.UNREADABLE
