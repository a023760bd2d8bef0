"""Tokenization of a text that is encoded again and again while it grows; only its last lines are encoded anew.

This needs a tokenizer without tokens that span the end of a line and the text before it, as the shipped models have.
With any other tokenizer the whole text is encoded every time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

Encode = Callable[[str], list[int]]

BLOCK_LINES = 16
"""Lines of a cached block."""

_CACHED_BLOCKS = 512  # enough for the visible context of several documents
_ENDS = ("x", "x1", "_", ")", "):", '"', "# ?!", "x  ", "x\t", "é", "→", "a = b")
_BEGINNINGS = ("\n", "\nx", "\n\nx", "\n    x", "\n\t\t)", "\n\n    \n  x", "\r\n", "\r\n  x", '\n"""', "\n1")


class IncrementalTokenizer:
    """Encodes texts block by block with a cache; `encode` must be a pure function."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._encode_block = lru_cache(_CACHED_BLOCKS)(lambda block: tuple(encode(block)))
        self.can_split = all(encode(a + b) == [*encode(a), *encode(b)] for a in _ENDS for b in _BEGINNINGS)
        """Whether a text may be divided before the end of a line without changing its ids, judged on samples."""

    def __call__(self, text: str) -> list[int]:
        """The ids of a text, equal to `encode(text)`."""
        if not self.can_split:
            return self._encode(text)
        ids: list[int] = []
        cuts = [0, *_cuts(text)]
        for begin, end in pairwise(cuts):
            ids += self._encode_block(text[begin:end])
        return [*ids, *self._encode(text[cuts[-1] :])]


def _cuts(text: str) -> list[int]:
    """The ends of the blocks: before every BLOCK_LINES-th line, and before the line ends and blank lines above it."""
    cuts: list[int] = []
    at = 0
    for number, line in enumerate(text.split("\n")):
        if number and number % BLOCK_LINES == 0:
            begin = at - 1
            while begin > 0 and text[begin - 1] in "\r\n":
                begin -= 1
            if begin > (cuts[-1] if cuts else 0):
                cuts.append(begin)
        at += len(line) + 1
    return cuts
