"""Fill-in-the-middle (FIM) spans: the part of a text that an example asks for.

The spans resemble the completions that editors request: the rest of a line, a line, a few lines, an indented block, the
text between brackets. Some spans have random ends, so that the model does not rely on certain boundaries.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from c2l_lsp.model.lm.token_healing import forced_prefix_of

_OPEN, _CLOSE = "([{", ")]}"


@dataclass(frozen=True)
class Split:
    """A text cut in three parts."""

    prefix: str
    middle: str
    suffix: str


def _line_starts(text: str) -> list[int]:
    starts = [0]
    while (at := text.find("\n", starts[-1])) >= 0:
        starts.append(at + 1)
    return starts


def _line(text: str, rng: random.Random) -> tuple[int, int, int]:
    """Return (start, end of the indentation, end without newline) of a random line that is not blank."""
    starts = _line_starts(text)
    for _ in range(20):
        start = rng.choice(starts)
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        body = start + len(text[start:end]) - len(text[start:end].lstrip())
        if body < end:
            return start, body, end
    return 0, 0, min(len(text), 1)


def rest_of_line(text: str, rng: random.Random) -> tuple[int, int]:
    """Return a span from a random position in a line to its end."""
    _, body, end = _line(text, rng)
    return rng.randint(body, max(body, end - 1)), end


def whole_line(text: str, rng: random.Random) -> tuple[int, int]:
    """Return the span of a line after its indentation, where the cursor is after Enter."""
    _, body, end = _line(text, rng)
    return body, end


def few_lines(text: str, rng: random.Random) -> tuple[int, int]:
    """Return a span that starts at or in a line and ends at the end of one of the next seven lines."""
    start, body, end = _line(text, rng)
    begin = body if rng.random() < 0.6 else rng.choice([start, rng.randint(body, end)])
    for _ in range(rng.randint(1, 7)):
        after = text.find("\n", end + 1)
        if after < 0:
            break
        end = after
    return begin, end


def block(text: str, rng: random.Random) -> tuple[int, int]:
    """Return the span of the block below a random line that ends with a colon; without one, a few lines."""
    lines = text.split("\n")
    heads = [i for i, line in enumerate(lines[:-1]) if line.rstrip().endswith(":") and lines[i + 1].strip()]
    if not heads:
        return few_lines(text, rng)
    head = rng.choice(heads)
    depth = len(lines[head]) - len(lines[head].lstrip())
    last = head
    for i in range(head + 1, min(len(lines), head + 25)):
        if lines[i].strip() and len(lines[i]) - len(lines[i].lstrip()) <= depth:
            break
        last = i if lines[i].strip() else last
    begin = sum(len(line) + 1 for line in lines[: head + 1]) - 1
    end = begin + sum(len(line) + 1 for line in lines[head + 1 : last + 1])
    if rng.random() < 0.7:  # the cursor after Enter and automatic indentation
        begin += 1 + len(lines[head + 1]) - len(lines[head + 1].lstrip())
    return min(begin, end), end


def brackets(text: str, rng: random.Random) -> tuple[int, int]:
    """Return the span between a random pair of brackets; without one, the rest of a line."""
    opens = [i for i, letter in enumerate(text) if letter in _OPEN]
    if not opens:
        return rest_of_line(text, rng)
    begin = rng.choice(opens) + 1
    depth = 1
    for i in range(begin, min(len(text), begin + 400)):
        depth += (text[i] in _OPEN) - (text[i] in _CLOSE)
        if depth == 0:
            return begin, i
    return rest_of_line(text, rng)


def characters(text: str, rng: random.Random) -> tuple[int, int]:
    """Return a span with random ends, usually short."""
    begin = rng.randint(0, len(text))
    length = int(len(text) * rng.random() ** 3)
    return begin, min(len(text), begin + length)


SPANS: tuple[tuple[float, Callable[[str, random.Random], tuple[int, int]]], ...] = (
    (0.32, rest_of_line),
    (0.12, whole_line),
    (0.24, few_lines),
    (0.12, block),
    (0.10, brackets),
    (0.10, characters),
)


HEALED_SHARE = 0.7
"""Share of spans that start where a prompt of the engine would end (see `model.lm.token_healing`)."""


def split(text: str, rng: random.Random) -> Split:
    """Cut a non-empty text by a random span. Sometimes the suffix is dropped, as at the end of a file."""
    (chosen,) = rng.choices([span for _, span in SPANS], [weight for weight, _ in SPANS])
    begin, end = chosen(text, rng)
    if rng.random() < HEALED_SHARE:
        begin -= len(forced_prefix_of(text[:begin]))
    suffix = "" if rng.random() < 0.12 else text[end:]
    return Split(text[:begin], text[begin:end], suffix)
