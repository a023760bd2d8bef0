"""Indents the lines of a text as the file does: with tabs or with spaces, by the file's own width."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

_INDENT = re.compile(r"^([ \t]+)(?=\S)", re.MULTILINE)
_SAMPLE = 8000  # characters before the cursor from which the style is read
_WIDTHS = (2, 3, 4, 8)


def reindented(text: str, prefix: str, suffix: str) -> str:
    """Return `text` with the indentation of its lines in the style of the file around the cursor.

    The first line continues the cursor line; its white space is adapted only if the line is blank before the cursor. A
    line is changed only if the file uses tabs and the line spaces, or the other way round.
    """
    if "\n" not in text and not text[:1].isspace():
        return text
    unit = unit_of(prefix[-_SAMPLE:], suffix[:_SAMPLE])
    if not unit:
        return text
    line = prefix.rpartition("\n")[2]
    first, *others = text.split("\n")
    if not line.strip() and first.strip():
        first = _adapted(first, unit, line)
    return "\n".join([first, *(_adapted(other, unit, "") for other in others)])


def unit_of(before: str, after: str = "") -> str:
    """Return the unit of indentation of a text: a tab or some spaces; "" if the text shows none."""
    head, newline, line = before.rpartition("\n")
    indent = line[: len(line) - len(line.lstrip(" \t"))]
    return _unit_of(head + newline + indent + "x" * bool(indent), after.partition("\n")[2])


@lru_cache(64)
def _unit_of(before: str, after: str) -> str:
    indents = [found.group(1) for text in (before, after) for found in _INDENT.finditer(text)]
    if not indents:
        return ""
    if sum("\t" in one for one in indents) * 2 > len(indents):
        return "\t"
    steps = Counter[int]()
    last = 0
    for one in indents:
        width = len(one)
        if width > last and (step := width - last) in _WIDTHS:
            steps[step] += 1
        last = width
    return " " * (steps.most_common(1)[0][0] if steps else 4)


def _adapted(line: str, unit: str, before: str) -> str:
    content = line.lstrip(" \t")
    indent = line[: len(line) - len(content)]
    if not content or not indent:
        return line
    if unit == "\t" and " " in indent and (not before or "\t" in before):
        width = 4 if indent.count(" ") % 4 == 0 or indent.count(" ") > 8 else 2
        columns = len(indent.replace("\t", " " * width))
        return "\t" * (columns // width) + " " * (columns % width) + content
    if unit != "\t" and "\t" in indent:
        return indent.replace("\t", unit) + content
    return line
