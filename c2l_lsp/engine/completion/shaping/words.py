"""Cuts from a text what already follows the cursor on its line: the rest of a word, or more."""

from __future__ import annotations

from c2l_lsp.text import is_word_character

_SHORTEST_OVERLAP = 3
"""So many characters of the rest of the line count as repeated although the rest goes on after them."""


def without_rest(text: str, rest: str) -> str:
    """Return `text` without its end if that is the beginning of `rest`, the cursor line after the cursor.

    An end counts if it holds a word character and is the whole rest, its first word, or at least three characters. A
    text that begins with the first word of `rest` repeats it, so nothing is left. Brackets and quotes are not the
    subject of this module.
    """
    rest = rest.rstrip()
    if not rest or "\n" in text:
        return text
    word = _first_word(rest)
    if word and text.startswith(word) and not is_word_character((text + " ")[len(word)]):
        return ""
    for size in range(min(len(rest), len(text)), 0, -1):
        end = rest[:size]
        whole = size == len(rest) or (word and size == len(word)) or size >= _SHORTEST_OVERLAP
        if whole and text.endswith(end) and any(map(is_word_character, end)):
            return text[:-size]
    return text


def _first_word(rest: str) -> str:
    size = 0
    while size < len(rest) and is_word_character(rest[size]):
        size += 1
    return rest[:size]
