"""Spans to complete: from the start of a Python token to the end of its line.

The stratum of a span is the first in this table that applies to its first token.

| stratum     | first token                                                                             |
|-------------|-----------------------------------------------------------------------------------------|
| `unseen`    | a name that occurs in other files of the repository and nowhere else in this file        |
| `attribute` | a name after a dot                                                                      |
| `literal`   | a string or a number                                                                    |
| `other`     | anything else                                                                           |

Lines with comments and lines within multi-line strings have no spans.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import keyword
import random
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

STRATA = ("unseen", "attribute", "literal", "other")
SHORTEST, LONGEST = 3, 60
"""Characters of a span."""

_MIN_BEFORE = 200  # characters of the file before a span
_NAME = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` of the file `path`."""

    path: str
    start: int
    end: int
    stratum: str


def names_of(texts: Iterable[str]) -> frozenset[str]:
    """The names in some texts."""
    return frozenset(name for text in texts for name in _NAME.findall(text))


def spans_of(targets: Mapping[str, str], known: frozenset[str], count: int) -> list[Span]:
    """About `count` spans, evenly from all strata, chosen by a hash of their positions; at most one a line.

    known: the names in the repository's other files.
    """
    found: dict[str, list[Span]] = defaultdict(list)
    for path in sorted(targets):
        for line, choices in _candidates(path, targets[path], known).items():
            rng = random.Random(_place(path, line))  # noqa: S311 - a sample, not a secret
            rare = [span for span in choices if span.stratum == "unseen"]
            one = rng.choice(rare or choices)
            found[one.stratum].append(one)
    for spans in found.values():
        spans.sort(key=lambda span: _place(span.path, span.start))
    return sorted(_dealt(found, count), key=lambda span: (span.path, span.start))


def _dealt(found: Mapping[str, list[Span]], count: int) -> list[Span]:
    """Spans taken from the strata in turn."""
    chosen: list[Span] = []
    for turn in range(max(map(len, found.values()), default=0)):
        for stratum in STRATA:
            if len(chosen) < count and turn < len(found.get(stratum, ())):
                chosen.append(found[stratum][turn])
    return chosen


def _candidates(path: str, text: str, known: frozenset[str]) -> dict[int, list[Span]]:
    """Line, counted from 0 → the spans that may start on it."""
    lines = text.splitlines(keepends=True)
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
    counts = Counter(_NAME.findall(text))
    found: dict[int, list[Span]] = defaultdict(list)
    closed: set[int] = set()
    before = ""
    for token in _tokens(text):
        first, last = token.start[0] - 1, token.end[0] - 1
        if token.type == tokenize.COMMENT or last > first:
            closed.update(range(first, last + 1))  # a comment, or a string over several lines
        end = offsets[first] + len(lines[first].rstrip()) if first < len(lines) else 0
        start = offsets[first] + token.start[1] if first < len(lines) else 0
        stratum = _stratum(token, before, counts, known)
        if stratum and start >= _MIN_BEFORE and SHORTEST <= end - start <= LONGEST:
            found[first].append(Span(path, start, end, stratum))
        if token.string.strip():
            before = token.string
    return {line: spans for line, spans in found.items() if line not in closed}


def _tokens(text: str) -> list[tokenize.TokenInfo]:
    """The tokens before the first syntax error or the end of a truncated text."""
    found: list[tokenize.TokenInfo] = []
    with contextlib.suppress(tokenize.TokenError, SyntaxError):  # a truncated file may end within a token
        found.extend(tokenize.generate_tokens(io.StringIO(text).readline))
    return found


def _stratum(token: tokenize.TokenInfo, before: str, counts: Counter[str], known: frozenset[str]) -> str:
    if token.type == tokenize.NAME:
        word = token.string
        if not keyword.iskeyword(word) and counts[word] == 1 and word in known:
            return "unseen"
        return "attribute" if before == "." else "other"
    return "literal" if token.type in (tokenize.STRING, tokenize.NUMBER) else ""


def _place(path: str, at: int) -> str:
    return hashlib.blake2b(f"{path}:{at}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
