"""Cuts the lines of a text that stand around the cursor already: the line below, the line above, the block above."""

from __future__ import annotations

from c2l_lsp.engine.completion.shaping.place import Place
from c2l_lsp.text import splits_word

_CLOSING_WORDS = frozenset(("end", "fi", "done", "esac", "else", "else:", "else {", "END"))
"""Lines that stand in many places. So do lines without a word character, such as `})`; brackets decide about those."""


def without_neighbours(text: str, place: Place) -> str:
    """Return the beginning of `text` before the first line that repeats a neighbour of the cursor.

    A line repeats the next line if one is the other's beginning. A line repeats the text above if it equals the line
    above it. A text that begins with the block above is dropped. The first line counts with the text before the cursor
    on its line.
    """
    lines = text.split("\n")
    written = [place.line + lines[0], *lines[1:]]
    said: list[str] = []
    for number, line in enumerate(map(str.strip, written)):
        if not line:
            continue
        nearest = said[-1:] or place.above[-1:]
        if _says_something(line) and (_repeats(line, place.following) or [line] == nearest):
            return "\n".join(lines[:number])
        said.append(line)
        if len(said) > 1 and said == place.above[-len(said) :]:
            return ""
    return text


def _repeats(line: str, following: str) -> bool:
    """Whether one of two lines is the other's beginning."""
    if not _says_something(following):
        return False
    shorter, longer = sorted((line, following), key=len)
    return longer.startswith(shorter) and not splits_word(shorter, longer[len(shorter) :])


def _says_something(line: str) -> bool:
    return any(map(str.isalnum, line)) and line.strip("}); ") not in _CLOSING_WORDS
