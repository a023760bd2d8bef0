"""The text of a document before a burst of edits: as long as only one word or one `def` line changes, it is kept.

Decides nothing about what changed; `recognition` does. Works on lines, without parsing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from c2l_lsp.text import is_word_character

_DEF = re.compile(r"\s*(?:async\s+)?def\s+\w+\s*\(")
_LONGEST_HEADER = 40  # lines
_LONGEST_LINE = 5000  # characters


class WordChange(NamedTuple):
    """A word that was replaced by another one at a place; either may be empty."""

    line: int
    column: int
    old: str
    new: str


@dataclass
class Burst:
    """`base`: the lines before the burst; `now`: the present ones. Both are never changed in place."""

    base: list[str]
    now: list[str]

    def feed(self, lines: list[str]) -> None:
        """Take the lines after one more edit."""
        if not _continues(self.now, lines):
            self.base = lines  # several places at once: a reload, another tool
        elif not self._belongs(lines):
            self.base = self.now
        self.now = lines

    def _belongs(self, lines: list[str]) -> bool:
        """Whether an edit belongs to the burst. After a word was replaced, an edit of another word does not."""
        if self.base == lines or word_change(self.base, lines) is not None:
            return True
        replaced = word_change(self.base, self.now)
        return not (replaced and replaced.old and replaced.new) and _continues(self.base, lines)

    @property
    def changed(self) -> bool:
        """Whether the text differs from the one before the burst."""
        return self.base is not self.now and self.base != self.now


def word_change(before: list[str], after: list[str]) -> WordChange | None:
    """The one word in which two texts differ; None if they differ in more, or not at all."""
    top, old_end, new_end = _changed_lines(before, after)
    if (old_end, new_end) != (top + 1, top + 1):
        return None
    old, new = before[top], after[top]
    if max(len(old), len(new)) > _LONGEST_LINE:
        return None
    start = _shared(old, new)
    while start and is_word_character(old[start - 1]):
        start -= 1
    most = min(len(old), len(new)) - start
    end = min(_shared(old[::-1], new[::-1]), most)
    while end and is_word_character(old[len(old) - end]):
        end -= 1
    words = old[start : len(old) - end], new[start : len(new) - end]
    return WordChange(top, start, *words) if all(not word or word.isidentifier() for word in words) else None


def _shared(one: str, other: str) -> int:
    """The length of the beginning that two texts share."""
    most = min(len(one), len(other))
    return next((at for at in range(most) if one[at] != other[at]), most)


def _continues(base: list[str], lines: list[str]) -> bool:
    top, old_end, new_end = _changed_lines(base, lines)
    return old_end == new_end == top or word_change(base, lines) is not None or _in_header(base, top, old_end)


def _changed_lines(before: list[str], after: list[str]) -> tuple[int, int, int]:
    """The first changed line, and the ends of the changed lines in both texts."""
    most = min(len(before), len(after))
    top = next((at for at in range(most) if before[at] != after[at]), most)
    rest = most - top
    same = next((at for at in range(rest) if before[-1 - at] != after[-1 - at]), rest)
    return top, len(before) - same, len(after) - same


def _in_header(lines: list[str], top: int, end: int) -> bool:
    """Whether the lines top..end lie between `def` and the bracket that closes its parameters."""
    for first in range(top, max(-1, top - _LONGEST_HEADER), -1):
        if first < len(lines) and _DEF.match(lines[first]):
            depth = 0
            for at in range(first, min(len(lines), first + _LONGEST_HEADER)):
                depth += sum(lines[at].count(char) for char in "([{") - sum(lines[at].count(char) for char in ")]}")
                if depth <= 0:
                    return end <= at + 1
            return False
    return False
