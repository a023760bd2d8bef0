"""Fill-in-the-middle spans: which part of a text an example asks for.

Spans follow what an editor asks: the rest of a line, a line, a few lines, an indented block, what stands between
brackets; and random characters, so that no boundary is special.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from c2l_lsp.model.lm.token_healing import forced_prefix_of

_OPEN, _CLOSE = "([{", ")]}"


@dataclass(frozen=True)
class Split:
    """A text cut in three; `prefix + middle + suffix` is the text."""

    prefix: str
    middle: str
    suffix: str


def _line_starts(text: str) -> list[int]:
    starts = [0]
    while (at := text.find("\n", starts[-1])) >= 0:
        starts.append(at + 1)
    return starts


def _line(text: str, dice: random.Random) -> tuple[int, int, int]:
    """(start, first character that is no indentation, end without newline) of a random line that is not blank."""
    starts = _line_starts(text)
    for _ in range(20):
        start = dice.choice(starts)
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        body = start + len(text[start:end]) - len(text[start:end].lstrip())
        if body < end:
            return start, body, end
    return 0, 0, min(len(text), 1)


def rest_of_line(text: str, dice: random.Random) -> tuple[int, int]:
    """From a place within a line to its end."""
    _, body, end = _line(text, dice)
    return dice.randint(body, max(body, end - 1)), end


def whole_line(text: str, dice: random.Random) -> tuple[int, int]:
    """A line after its indentation, as an editor leaves it after Enter."""
    _, body, end = _line(text, dice)
    return body, end


def few_lines(text: str, dice: random.Random) -> tuple[int, int]:
    """From a line's beginning or a place within it to the end of the second to eighth line."""
    start, body, end = _line(text, dice)
    begin = body if dice.random() < 0.6 else dice.choice([start, dice.randint(body, end)])
    for _ in range(dice.randint(1, 7)):
        after = text.find("\n", end + 1)
        if after < 0:
            break
        end = after
    return begin, end


def block(text: str, dice: random.Random) -> tuple[int, int]:
    """The indented block under a random line that ends with a colon; falls back to a few lines."""
    lines = text.split("\n")
    heads = [i for i, line in enumerate(lines[:-1]) if line.rstrip().endswith(":") and lines[i + 1].strip()]
    if not heads:
        return few_lines(text, dice)
    head = dice.choice(heads)
    depth = len(lines[head]) - len(lines[head].lstrip())
    last = head
    for i in range(head + 1, min(len(lines), head + 25)):
        if lines[i].strip() and len(lines[i]) - len(lines[i].lstrip()) <= depth:
            break
        last = i if lines[i].strip() else last
    begin = sum(len(line) + 1 for line in lines[: head + 1]) - 1
    end = begin + sum(len(line) + 1 for line in lines[head + 1 : last + 1])
    if dice.random() < 0.7:  # the cursor after Enter and its automatic indentation
        begin += 1 + len(lines[head + 1]) - len(lines[head + 1].lstrip())
    return min(begin, end), end


def brackets(text: str, dice: random.Random) -> tuple[int, int]:
    """What stands between a random pair of brackets; falls back to the rest of a line."""
    opens = [i for i, letter in enumerate(text) if letter in _OPEN]
    if not opens:
        return rest_of_line(text, dice)
    begin = dice.choice(opens) + 1
    depth = 1
    for i in range(begin, min(len(text), begin + 400)):
        depth += (text[i] in _OPEN) - (text[i] in _CLOSE)
        if depth == 0:
            return begin, i
    return rest_of_line(text, dice)


def characters(text: str, dice: random.Random) -> tuple[int, int]:
    """Two random places, mostly near each other."""
    begin = dice.randint(0, len(text))
    length = int(len(text) * dice.random() ** 3)
    return begin, min(len(text), begin + length)


SPANS: tuple[tuple[float, Callable[[str, random.Random], tuple[int, int]]], ...] = (
    (0.32, rest_of_line),
    (0.12, whole_line),
    (0.24, few_lines),
    (0.12, block),
    (0.10, brackets),
    (0.10, characters),
)


HEALED = 0.7
"""Share of holes that begin where the engine's prompts end (see `model.lm.token_healing`); others begin anywhere."""


def split(text: str, dice: random.Random) -> Split:
    """Cut `text` (not empty) by one of SPANS; sometimes what follows is left out, as at a file's end."""
    (chosen,) = dice.choices([span for _, span in SPANS], [weight for weight, _ in SPANS])
    begin, end = chosen(text, dice)
    if dice.random() < HEALED:
        begin -= len(forced_prefix_of(text[:begin]))
    suffix = "" if dice.random() < 0.12 else text[end:]
    return Split(text[:begin], text[begin:end], suffix)
