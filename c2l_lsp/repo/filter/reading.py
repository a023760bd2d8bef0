"""Opening one file safely and reading it: regular files only, no link anywhere on the way, a bounded number of bytes.

Knows no rules of names; the filter asks those first.
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

_PLAIN = ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY")
FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in _PLAIN)
"""Opening never waits for a FIFO's writer and never takes over a terminal."""
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BY_DESCRIPTOR = hasattr(os, "O_NOFOLLOW") and hasattr(os, "O_DIRECTORY") and os.open in os.supports_dir_fd
_LINK_ERRORS = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EMLINK})


class FileText(NamedTuple):
    """An admitted file as it was read: `digest` is blake2b-16 of the UTF-8 text, `size` its bytes."""

    text: str
    digest: bytes
    size: int
    mtime_ns: int


class _Refused(Exception):
    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason.value)
        self.reason = reason


def read_text(root: Path, path: str, limit: int) -> FileText | Refusal:
    """The text of `path` (relative to the resolved `root`, with '/'), or why it is refused. Never raises for a file."""
    try:
        descriptor = _open(root, path)
    except _Refused as refused:
        return refused.reason
    except OSError as error:
        return _reason(error)
    try:
        return _read_open(descriptor, limit)
    except OSError:
        return Refusal.UNREADABLE
    finally:
        os.close(descriptor)


def check_bytes(data: bytes, mtime_ns: int) -> FileText | Refusal:
    """The content rules alone."""
    found = content.check_content(data)
    if isinstance(found, Refusal):
        return found
    return FileText(found, blake2b(data, digest_size=16).digest(), len(data), mtime_ns)


def _open(root: Path, path: str) -> int:
    if not _BY_DESCRIPTOR:
        return _open_checked(root, path)
    *parents, name = path.split("/")
    below = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for parent in parents:
            inner = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=below)
            os.close(below)
            below = inner
        # Asked before opening as well: opening a device can do things by itself.
        _require_regular(os.stat(name, dir_fd=below, follow_symlinks=False))
        return os.open(name, FLAGS | NO_FOLLOW, dir_fd=below)
    finally:
        os.close(below)


def _open_checked(root: Path, path: str) -> int:
    """Where openat is missing (Windows): the resolved path must be the path itself."""
    full = root / path
    _require_regular(full.lstat())
    if passes_through_link(root, path):
        raise _Refused(Refusal.LINK)
    return os.open(full, FLAGS | NO_FOLLOW)


def passes_through_link(root: Path, path: str) -> bool:
    """Whether a link stands anywhere below `root` on the way to `path`. A path that does not exist is not linked."""
    full = os.path.normcase(root / path)
    return os.path.normcase(os.path.realpath(full)) != full


def _read_open(descriptor: int, limit: int) -> FileText | Refusal:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return Refusal.IRREGULAR
    if status.st_size > limit:
        return Refusal.TOO_LARGE
    data = read_up_to(descriptor, limit + 1)
    if len(data) > limit:  # it grew meanwhile
        return Refusal.TOO_LARGE
    return check_bytes(data, status.st_mtime_ns)


def read_up_to(descriptor: int, limit: int) -> bytes:
    """At most `limit` bytes."""
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


def _reason(error: OSError) -> Refusal:
    if error.errno in _LINK_ERRORS:
        return Refusal.LINK
    if error.errno == errno.ENOENT:
        return Refusal.MISSING
    return Refusal.IRREGULAR if error.errno == errno.ENXIO and sys.platform != "win32" else Refusal.UNREADABLE
