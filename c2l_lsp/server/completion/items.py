"""The range that a suggestion replaces, with and without a selected popup entry. Uses no LSP types."""

from __future__ import annotations

from dataclasses import dataclass

from c2l_lsp.server.workspace.documents import Document
from c2l_lsp.text import leading_closers

_PAIRS = {")": "(", "]": "[", "}": "{"}
_QUOTES = "\"'`"


def overlap(text: str, rest: str) -> int:
    """Number of characters after the cursor that a suggestion repeats and therefore replaces.

    Only closing brackets and quotes that the suggestion does not open count: `a, b)` before `)` replaces it, `f(a)`
    before `)` does not.
    """
    for size in range(len(leading_closers(rest).rstrip()), 0, -1):
        tail = rest[:size]
        if tail.strip() and text.endswith(tail) and _is_balanced(text[:-size]):
            return size
    return 0


def _is_balanced(text: str) -> bool:
    """Whether a text closes everything that it opens. It may start inside brackets."""
    open_brackets: list[str] = []
    for char in text:
        if char in _PAIRS.values():
            open_brackets.append(char)
        elif char in _PAIRS and open_brackets and open_brackets[-1] == _PAIRS[char]:
            open_brackets.pop()
    return not open_brackets and all(text.count(quote) % 2 == 0 for quote in _QUOTES)


@dataclass(frozen=True)
class Selected:
    """The selected popup entry: the range that it replaces, in the editor's positions, and its text."""

    start: tuple[int, int]
    end: tuple[int, int]
    text: str


@dataclass(frozen=True)
class Target:
    """The range of a suggestion: it replaces columns start..end with `head` + a candidate.

    The candidate must begin with `must_start`. `fixed`: the range is the popup entry's and does not grow.
    """

    line: int
    start: int
    end: int
    cursor: int
    head: str = ""
    must_start: str = ""
    fixed: bool = False


def find_target(document: Document, position: tuple[int, int], selected: Selected | None) -> Target:
    """The target at an editor's position. A suggestion continues the selected popup entry if there is one."""
    line, cursor = document.locate(*position)
    if selected is None:
        return Target(line, cursor, cursor, cursor)
    (first, start), (last, end) = document.locate(*selected.start), document.locate(*selected.end)
    if first != line or last != line or start > cursor or end < cursor:
        return Target(line, cursor, cursor, cursor)  # the entry is for another position
    typed = document.lines[line][start:cursor]
    if selected.text.startswith(typed):
        return Target(line, start, end, cursor, typed, selected.text[len(typed) :], fixed=True)
    return Target(line, start, end, start, "", selected.text, fixed=True)
