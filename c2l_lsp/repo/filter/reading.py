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

from c2l_lsp.regular_files import NotRegular, open_below, read_up_to
from c2l_lsp.repo.filter import content
from c2l_lsp.repo.filter.content import Refusal

_LINK_ERRORS = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EMLINK})


class FileText(NamedTuple):
    """A file that was read. `digest` is the blake2b-16 of its UTF-8 text, `size` the number of bytes."""

    text: str
    digest: bytes
    size: int
    mtime_ns: int


def read_text(root: Path, path: str, limit: int) -> FileText | Refusal:
    """Return the text of `path` (relative to the resolved `root`, with '/'), or the reason why it is refused."""
    try:
        descriptor = open_below(root, path)
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


def _refusal_of(error: OSError) -> Refusal:
    if isinstance(error, NotRegular) and not error.is_link:
        return Refusal.IRREGULAR
    if error.errno in _LINK_ERRORS:
        return Refusal.LINK
    if error.errno == errno.ENOENT:
        return Refusal.MISSING
    return Refusal.IRREGULAR if error.errno == errno.ENXIO and sys.platform != "win32" else Refusal.UNREADABLE
