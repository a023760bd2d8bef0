"""Cuts the text of a file into chunks, which are added to and removed from a state one by one.

A chunk consists of whole top-level blocks (functions, classes, runs of statements), or is a part of a long block. Cuts
depend only on the text near them, so an edit changes few chunks besides those it is in.
"""

from __future__ import annotations

import hashlib
import itertools
import re

from c2l_lsp.redaction import pieces

TARGET_CHARS = 1500
"""A chunk ends with the first block that brings it to this many characters (400 to 500 tokens of code)."""
MAX_CHARS = 3000
"""A longer block is cut before one of its least indented inner lines."""

_TOP_LEVEL = re.compile(r"^(?![ \t\r\n#)\]}'\"])", re.MULTILINE)


def blocks(text: str) -> list[str]:
    """The top-level blocks of a text, in order. A block starts at an unindented line after an indented or blank one."""
    lines = text.splitlines(keepends=True)
    starts = [0]
    for number in range(1, len(lines)):
        before = lines[number - 1]
        if _TOP_LEVEL.match(lines[number]) and (not before.strip() or before[0] in " \t"):
            starts.append(number)
    bounds = [*starts, len(lines)]
    return ["".join(lines[a:b]) for a, b in itertools.pairwise(bounds) if b > a]


def split(text: str) -> list[str]:
    """The chunks of a text, in order; joined they are the text without its marks (`c2l_lsp.redaction`).

    Blocks are collected up to TARGET_CHARS. One block in four, chosen by its hash, also ends a chunk if that has at
    least a third of TARGET_CHARS. A chunk also ends before a mark, and the next one begins after it. So an inserted
    block shifts the cuts after it only up to the next such block (content-defined chunking).
    """
    out: list[str] = []
    collected = ""
    for block in blocks(text):
        for part in _parts(block):
            if collected and len(collected) + len(part) > MAX_CHARS:
                out.append(collected)
                collected = ""
            collected += part
            if len(collected) >= TARGET_CHARS or (len(collected) >= TARGET_CHARS // 3 and _ends_chunk(part)):
                out.append(collected)
                collected = ""
    if collected:
        out.append(collected)
    return [piece for chunk in out for piece in pieces(chunk)]


def key(chunk: str, rule: str = "") -> bytes:
    """Sixteen bytes that identify a chunk's text and the rule (at most 64 bytes) under which it is embedded."""
    return hashlib.blake2b(chunk.encode("utf-8", "surrogatepass"), digest_size=16, key=rule.encode()[:64]).digest()


def _ends_chunk(block: str) -> bool:
    return hashlib.blake2b(block.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] < 64


def _parts(block: str) -> list[str]:
    """The block in parts of at most MAX_CHARS, cut before the least indented lines; a longer line stays whole."""
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
    """Index in [low, high] of the last non-blank line with the least indentation."""
    best, depth = high, 10**9
    for number in range(low, min(high, len(lines) - 1) + 1):
        line = lines[number]
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent <= depth:
            best, depth = number, indent
    return best
