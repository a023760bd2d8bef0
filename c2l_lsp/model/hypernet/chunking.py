"""Cutting a file's text into chunks that are learned, and unlearned, on their own.

A chunk is one or more whole top-level blocks (a function, a class, a run of statements), or a part of a long one. Cuts
depend only on the text near them, so an edit changes the chunks it touches and no others.
"""

from __future__ import annotations

import hashlib
import itertools
import re

TARGET_CHARS = 1500
"""A chunk closes at the first block that reaches this many characters (about 400–500 tokens of code)."""
MAX_CHARS = 3000
"""A longer block is cut at its next inner line of least indentation."""

_TOP = re.compile(r"^(?![ \t\r\n#)\]}'\"])", re.MULTILINE)


def blocks(text: str) -> list[str]:
    """The text as consecutive top-level blocks; a block starts at an unindented line after an indented or blank one."""
    lines = text.splitlines(keepends=True)
    starts = [0]
    for number in range(1, len(lines)):
        before = lines[number - 1]
        if _TOP.match(lines[number]) and (not before.strip() or before[0] in " \t"):
            starts.append(number)
    bounds = [*starts, len(lines)]
    return ["".join(lines[a:b]) for a, b in itertools.pairwise(bounds) if b > a]


def split(text: str) -> list[str]:
    """The text cut into chunks, in order; joined they are the text again.

    Blocks are gathered until TARGET_CHARS. A chunk also closes where a block's own hash says so (one in four), so that
    an inserted block shifts the cuts behind it only as far as the next such block.
    """
    out: list[str] = []
    gathered = ""
    for block in blocks(text):
        for part in _parts(block):
            if gathered and len(gathered) + len(part) > MAX_CHARS:
                out.append(gathered)
                gathered = ""
            gathered += part
            if len(gathered) >= TARGET_CHARS or (len(gathered) >= TARGET_CHARS // 3 and _closes(part)):
                out.append(gathered)
                gathered = ""
    if gathered:
        out.append(gathered)
    return out


def key(chunk: str, rule: str = "") -> bytes:
    """Sixteen bytes that name a chunk's content under a reading rule."""
    return hashlib.blake2b(chunk.encode("utf-8", "surrogatepass"), digest_size=16, key=rule.encode()[:64]).digest()


def _closes(block: str) -> bool:
    return hashlib.blake2b(block.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] < 64


def _parts(block: str) -> list[str]:
    """A long block cut at inner lines: greedily, before a line of the least indentation within reach."""
    if len(block) <= MAX_CHARS:
        return [block]
    lines = block.splitlines(keepends=True)
    out: list[str] = []
    while lines:
        size, reach = 0, 0
        while reach < len(lines) and (size + len(lines[reach]) <= MAX_CHARS or reach == 0):
            size += len(lines[reach])
            reach += 1
        cut = reach if reach == len(lines) else _shallowest(lines, max(1, reach // 2), reach)
        out.append("".join(lines[:cut]))
        lines = lines[cut:]
    return out


def _shallowest(lines: list[str], low: int, high: int) -> int:
    """Index in [low, high] of the last line with the least indentation among non-blank lines."""
    best, depth = high, 10**9
    for number in range(low, min(high, len(lines) - 1) + 1):
        line = lines[number]
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent <= depth:
            best, depth = number, indent
    return best
