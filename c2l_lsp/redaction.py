"""Redacted text: secrets are replaced by marks, which nothing may learn, index or suggest.

Each character of a secret becomes one MARK, and line breaks stay: offsets and line numbers are those of the file. A
mark is no text: whoever turns text into tokens takes the `pieces` between marks, each as a sequence of its own. So no
token is predicted at, from or across a mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MARK = "\ufdd0"
"""A noncharacter: Unicode reserves it for internal use. A file that contains it is cut there as well."""

Span = tuple[int, int]
"""Start and end of a part of a text, in characters."""

_MARKED = re.compile(f"{MARK}(?:[{MARK}\r\n]*{MARK})?")
_LINE = re.compile(r"[^\r\n]+")


def redact(text: str, spans: Iterable[Span]) -> str:
    """Return `text` with the characters of some spans replaced by marks. Spans are in order and do not overlap."""
    out, at = list[str](), 0
    for start, end in spans:
        out += [text[at:start], _marks(text[start:end])]
        at = end
    return "".join([*out, text[at:]]) if out else text


def _marks(secret: str) -> str:
    if "\n" not in secret and "\r" not in secret:
        return MARK * len(secret)
    return _LINE.sub(lambda line: MARK * len(line[0]), secret)


def pieces(text: str) -> list[str]:
    """Return the non-empty parts of a text between its marks, in order."""
    return [piece for piece in _MARKED.split(text) if piece] if MARK in text else [text] if text else []


def without_marks(text: str) -> str:
    """Return a text without its marks, for an embedding of all of it that predicts nothing."""
    return "".join(pieces(text))


def longest_piece(text: str) -> str:
    """Return the longest part of a text between its marks; "" if there is none."""
    return max(pieces(text), key=len, default="")
