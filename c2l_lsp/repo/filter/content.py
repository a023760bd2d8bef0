"""Content rules: text passes, and its secrets are redacted. Works on bytes; knows no paths and opens no files."""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from hashlib import blake2b

from c2l_lsp.cooperative import Slices
from c2l_lsp.redaction import Span, redact
from c2l_lsp.repo.filter import screen

MAX_LINE_LENGTH = 5000
"""In characters. A file with a longer line is minified or generated."""

_REMEMBERED = 8192  # texts whose secrets are known: a file is read two or three times while it is indexed


class Refusal(str, Enum):
    """The reason why a file is not read. The value completes the sentence "excluded because …"."""

    EXCLUDED = "the ignore rules exclude it"
    MISSING = "it does not exist"
    UNREADABLE = "it cannot be opened"
    LINK = "its path contains a symbolic link"
    IRREGULAR = "it is not a regular file"
    TOO_LARGE = "it is larger than files.maxSizeKb"
    BINARY = "it is not text (NUL byte or invalid UTF-8)"
    MINIFIED = f"it has a line of more than {MAX_LINE_LENGTH} characters"


def check_content_in_slices(data: bytes) -> Slices[Refusal | str]:
    """Return the text of `data` with its secrets redacted (`redaction`), or the reason why it is refused."""
    if b"\0" in data:
        return Refusal.BINARY
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return Refusal.BINARY
    if _has_long_line(text):
        return Refusal.MINIFIED
    secrets = yield from _secrets(text, blake2b(data, digest_size=16).digest())
    yield
    return redact(text, secrets)


def _has_long_line(text: str) -> bool:
    at = 0
    while len(text) - at > MAX_LINE_LENGTH:
        end = text.rfind("\n", at, at + MAX_LINE_LENGTH + 1)
        if end < 0:
            return True
        at = end + 1
    return False


_known: OrderedDict[bytes, list[Span]] = OrderedDict()
"""Digest of a text → the places of its secrets. Only places and digests: no text is held, and nothing is stored."""


def _secrets(text: str, digest: bytes) -> Slices[list[Span]]:
    if digest not in _known:
        found = yield from screen.secret_spans_in_slices(text)
        _known[digest] = found
        while len(_known) > _REMEMBERED:
            _known.popitem(last=False)
    return _known[digest]
