"""Token ids of a text that is asked for again and again while it grows: all but its last lines are encoded once.

That needs a tokenizer that never joins the end of a line with what stands before it, as ours; others are asked for the
whole text every time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

Encode = Callable[[str], list[int]]

BLOCK_LINES = 16
"""Lines of a block."""

_KEPT = 512  # blocks: as many as are in sight of some documents
_ENDS = ("x", "x1", "_", ")", "):", '"', "# ?!", "x  ", "x\t", "é", "→", "a = b")
_BEGINNINGS = ("\n", "\nx", "\n\nx", "\n    x", "\n\t\t)", "\n\n    \n  x", "\r\n", "\r\n  x", '\n"""', "\n1")


class IncrementalTokenizer:
    """Encodes by `encode`, which depends on nothing but the text."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._known = lru_cache(_KEPT)(lambda block: tuple(encode(block)))
        self.can_split = all(encode(a + b) == [*encode(a), *encode(b)] for a in _ENDS for b in _BEGINNINGS)
        """Whether a text may be cut before the end of a line."""

    def __call__(self, text: str) -> list[int]:
        """The ids of a text, as `encode` gives them."""
        if not self.can_split:
            return self._encode(text)
        ids: list[int] = []
        places = [0, *_cuts(text)]
        for begin, end in pairwise(places):
            ids += self._known(text[begin:end])
        return [*ids, *self._encode(text[places[-1] :])]


def _cuts(text: str) -> list[int]:
    """Where blocks of a text end: before the line ends that precede every LINES-th line, empty lines before it too."""
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
