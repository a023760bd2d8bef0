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

from c2l_lsp.cooperative import Slices
from c2l_lsp.regular_files import NotRegular, open_below, read_up_to
from c2l_lsp.repo.filter import content
from c2l_lsp.repo.filter.plain_text import Refusal

_LINK_ERRORS = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EMLINK})


class FileText(NamedTuple):
    """A file that was read. `text` is redacted: marks stand for its secrets (`c2l_lsp.redaction`).

    `digest` is the blake2b-16 of the redacted text in UTF-8, so that it says nothing of a secret. `size` is the number
    of bytes of the file.
    """

    text: str
    digest: bytes
    size: int
    mtime_ns: int


def read_text_in_slices(root: Path, path: str, limit: int) -> Slices[FileText | Refusal]:
    """Return the text of `path` (relative to the resolved `root`, with '/'), or the reason why it is refused.

    The file is read at once, and closed; its secrets are then searched in slices.
    """
    try:
        descriptor = open_below(root, path)
    except OSError as error:
        return _refusal_of(error)
    try:
        found = _read_open(descriptor, limit)
    except OSError:
        return Refusal.UNREADABLE
    finally:
        os.close(descriptor)
    return found if isinstance(found, Refusal) else (yield from check_bytes_in_slices(*found))


def check_bytes_in_slices(data: bytes, mtime_ns: int) -> Slices[FileText | Refusal]:
    """Return the decoded and redacted file, or the reason why the content rules refuse its bytes."""
    found = yield from content.check_content_in_slices(data)
    if isinstance(found, Refusal):
        return found
    return FileText(found, blake2b(found.encode("utf-8"), digest_size=16).digest(), len(data), mtime_ns)


def _read_open(descriptor: int, limit: int) -> tuple[bytes, int] | Refusal:
    """The bytes of an open file, and its mtime in ns."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return Refusal.IRREGULAR
    if status.st_size > limit:
        return Refusal.TOO_LARGE
    data = read_up_to(descriptor, limit + 1)
    if len(data) > limit:  # the file grew since fstat
        return Refusal.TOO_LARGE
    return data, status.st_mtime_ns


def _refusal_of(error: OSError) -> Refusal:
    if isinstance(error, NotRegular) and not error.is_link:
        return Refusal.IRREGULAR
    if error.errno in _LINK_ERRORS:
        return Refusal.LINK
    if error.errno == errno.ENOENT:
        return Refusal.MISSING
    return Refusal.IRREGULAR if error.errno == errno.ENXIO and sys.platform != "win32" else Refusal.UNREADABLE
