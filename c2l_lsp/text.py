"""Character classes that the engine and the server share: words, and characters that close something."""

from __future__ import annotations

import re

CLOSERS = ")]}>\"'`,;:"
"""Characters that may follow a complete expression on a line."""

_OTHER = re.compile(rf"[^\s{re.escape(CLOSERS)}]")


def leading_closers(text: str) -> str:
    """Return the part at the beginning of `text` that consists of closers and white space."""
    other = _OTHER.search(text)
    return text[: other.start()] if other is not None else text


def is_closers_only(text: str) -> bool:
    """Return whether `text` consists of closers and white space, or is empty."""
    return leading_closers(text) == text


def is_word_character(character: str) -> bool:
    """Return whether a character can be part of a word (an identifier in most languages)."""
    return character.isalnum() or character == "_"


def splits_word(before: str, after: str) -> bool:
    """Return whether the boundary between `before` and `after` lies inside a word."""
    return bool(before and after) and is_word_character(before[-1]) and is_word_character(after[0])


def word_at_end(text: str) -> str:
    """Return the word characters at the end of `text`."""
    start = len(text)
    while start and is_word_character(text[start - 1]):
        start -= 1
    return text[start:]
