"""The range that a suggestion replaces, with and without a selected popup entry. Uses no LSP types."""

from __future__ import annotations

from dataclasses import dataclass

from c2l_lsp.server.workspace.documents import Document


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
