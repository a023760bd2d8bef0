"""The string literals of a source file, by a tokenizer for its language."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator

SUFFIXES = (".py", ".ts", ".go", ".js")

_STRING_TOKENS = {tokenize.STRING} | {
    getattr(tokenize, name) for name in ("FSTRING_MIDDLE", "TSTRING_MIDDLE") if hasattr(tokenize, name)
}
_TOKEN = re.compile(
    r"//[^\n]*|/\*[\s\S]*?(?:\*/|\Z)"
    r"|(?P<literal>\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`(?:\\[\s\S]|[^`\\])*`)"
)
"""Comments and literals of Go, JavaScript and TypeScript. A quote in a regular expression of JavaScript can hide
some."""


def literals(path: str, text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of every string literal, in characters; nothing for a file that cannot be tokenized."""
    if path.endswith(".py"):
        yield from _python(text)
        return
    for found in _TOKEN.finditer(text):
        if found["literal"] is not None:
            yield found.span()


def _python(text: str) -> Iterator[tuple[int, int]]:
    starts = [0]
    for line in io.StringIO(text):
        starts.append(starts[-1] + len(line))
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in _STRING_TOKENS:
                yield starts[token.start[0] - 1] + token.start[1], starts[token.end[0] - 1] + token.end[1]
    except (tokenize.TokenError, SyntaxError):
        return
