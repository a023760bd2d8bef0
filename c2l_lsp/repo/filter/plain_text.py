"""Which bytes are the text of a source file. Knows nothing of secrets, of paths and of the file system."""

from __future__ import annotations

from enum import Enum

MAX_LINE_LENGTH = 5000
"""In characters. A file with a longer line is minified or generated."""


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


def decode(data: bytes) -> Refusal | str:
    """Return the text of a file's bytes, or the reason why it is refused."""
    if b"\0" in data:
        return Refusal.BINARY
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return Refusal.BINARY
    return Refusal.MINIFIED if _has_long_line(text) else text


def _has_long_line(text: str) -> bool:
    at = 0
    while len(text) - at > MAX_LINE_LENGTH:
        end = text.rfind("\n", at, at + MAX_LINE_LENGTH + 1)
        if end < 0:
            return True
        at = end + 1
    return False
