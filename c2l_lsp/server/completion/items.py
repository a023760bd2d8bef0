"""What of the text after the cursor a suggestion replaces, and how a selected popup entry enters it. No LSP types."""

from __future__ import annotations

from dataclasses import dataclass

from c2l_lsp.server.workspace.documents import Document
from c2l_lsp.text import leading_closers

_PAIRS = {")": "(", "]": "[", "}": "{"}
_QUOTES = "\"'`"


def covered(text: str, rest: str) -> int:
    """How many characters of the rest of the line the text writes again and therefore replaces.

    Only closers that the text does not itself open count: `a, b)` before `)` covers it, `f(a)` before `)` does not.
    """
    for size in range(len(leading_closers(rest).rstrip()), 0, -1):
        tail = rest[:size]
        if tail.strip() and text.endswith(tail) and _closed(text[:-size]):
            return size
    return 0


def _closed(text: str) -> bool:
    """Whether nothing stays open at the end of a text that may begin inside brackets or a string."""
    open_brackets: list[str] = []
    for char in text:
        if char in _PAIRS.values():
            open_brackets.append(char)
        elif char in _PAIRS and open_brackets and open_brackets[-1] == _PAIRS[char]:
            open_brackets.pop()
    return not open_brackets and all(text.count(quote) % 2 == 0 for quote in _QUOTES)


@dataclass(frozen=True)
class Selected:
    """The popup entry under the cursor: the editor's range for it, and its text."""

    start: tuple[int, int]
    end: tuple[int, int]
    text: str


@dataclass(frozen=True)
class Target:
    """Where a suggestion goes: it replaces start..end by `head` + a candidate, which begins with `must_start`."""

    line: int
    start: int
    end: int
    cursor: int
    head: str = ""
    must_start: str = ""
    fixed: bool = False


def target(document: Document, position: tuple[int, int], selected: Selected | None) -> Target:
    """The target at the editor's position. With a popup entry selected, the suggestion extends that entry."""
    line, cursor = document.locate(*position)
    if selected is None:
        return Target(line, cursor, cursor, cursor)
    (first, start), (last, end) = document.locate(*selected.start), document.locate(*selected.end)
    if first != line or last != line or start > cursor or end < cursor:
        return Target(line, cursor, cursor, cursor)  # an entry elsewhere says nothing about this place
    typed = document.lines[line][start:cursor]
    if selected.text.startswith(typed):
        return Target(line, start, end, cursor, typed, selected.text[len(typed) :], fixed=True)
    return Target(line, start, end, start, "", selected.text, fixed=True)
