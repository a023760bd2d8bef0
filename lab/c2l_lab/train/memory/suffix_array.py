"""A suffix array over reversed contexts: the positions of some chunks that share the longest context with a query.

In NumPy, for fitting the mixture gate and as a reference in tests. Chunks are lists of token ids that begin with the
start token; a match never extends beyond its chunk.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from c2l_lsp.model.adapter.mixture import TokenCandidates

_Int64Array = NDArray[np.int64]

MAX_CONTEXT = 64
"""Tokens of context that are compared: a power of two."""

_BOUNDARY = -1  # before each chunk; equals no token


class SuffixArray:
    """All positions that have a next token, ordered by reversed context, equal contexts by next token."""

    def __init__(self, chunks: Sequence[Sequence[int]]) -> None:
        text = np.array([token for chunk in chunks for token in (_BOUNDARY, *chunk)], np.int64)
        starts = np.repeat(
            np.cumsum([0, *(len(chunk) + 1 for chunk in chunks)])[:-1], [len(chunk) + 1 for chunk in chunks]
        )
        followed = np.flatnonzero((text[:-1] != _BOUNDARY) & (text[1:] != _BOUNDARY)) if len(text) else text
        ranks = _context_ranks(text, starts)
        order = np.lexsort((text[followed + 1], ranks[followed])) if len(followed) else followed
        self._text: list[int] = text.tolist()
        self._positions: list[int] = followed[order].tolist()

    def __len__(self) -> int:
        """Positions."""
        return len(self._positions)

    def look_up(self, before: Sequence[int], most: int) -> TokenCandidates | None:
        """Up to `most` candidates for the position after the tokens `before`; None if its last token does not occur.

        Positions with the longest match come first, then those of each shorter match length. Of a length with too many
        positions, some at equal distances are taken.
        """
        levels = list(self._levels(before))
        if not levels:
            return None
        lengths, next_tokens = list[int](), list[int]()
        inner = (levels[-1][0], levels[-1][0])
        for length in range(len(levels), 0, -1):
            low, high = levels[length - 1]
            below = inner[0] - low
            new = below + high - inner[1]
            taken = min(new, most - len(lengths))
            for number in range(taken):
                at = number * new // taken
                place = low + at if at < below else inner[1] + at - below
                next_tokens.append(self._text[self._positions[place] + 1])
            lengths += [length] * taken
            inner = low, high
        low, high = levels[-1]
        return TokenCandidates(np.array(lengths, np.int32), np.array(next_tokens, np.int32), high - low)

    def _levels(self, before: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Ranges of positions whose last 1, 2, … tokens are those of `before`, up to the longest match."""
        low, high = 0, len(self._positions)
        for back, token in zip(range(MAX_CONTEXT), reversed(before), strict=False):

            def token_before(position: int, back: int = back) -> int:
                return self._text[position - back]

            low = bisect.bisect_left(self._positions, token, low, high, key=token_before)
            high = bisect.bisect_right(self._positions, token, low, high, key=token_before)
            if low == high:
                return
            yield low, high


def _context_ranks(text: _Int64Array, starts: _Int64Array) -> _Int64Array:
    """The rank of each position's reversed context within its chunk (prefix doubling)."""
    if not len(text):
        return text
    ranks = np.unique(text, return_inverse=True)[1].astype(np.int64) + 1
    at, step = np.arange(len(text)), 1
    while step < MAX_CONTEXT:
        earlier = np.where(at - step > starts, ranks[np.maximum(at - step, 0)], 0)
        ranks = np.unique(ranks * (int(ranks.max()) + 1) + earlier, return_inverse=True)[1].astype(np.int64) + 1
        step *= 2
    return ranks
