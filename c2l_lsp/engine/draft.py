"""Drafts: what followed the last few tokens where they stood before. A guess, for the model to check in one pass."""

from __future__ import annotations

LONGEST = 3
"""Tokens that must agree for what followed them to be drafted, tried first; then one fewer."""

COST = 0.25
"""What checking a draft of a few tokens costs beyond a plain step, in steps (measured on the default model: 0.21)."""

_CREDIT = 2.0  # steps that drafts may lose before they have earned any
_MOST = 4.0  # credit that can be saved up
_INTEREST = 0.01  # earned by every step: where drafts never pay, they cost one step in a hundred


class Credit:
    """Whether drafts pay, kept as an account in steps: a draft costs, a token it saved earns, and time heals."""

    def __init__(self) -> None:
        self._steps = _CREDIT

    @property
    def good(self) -> bool:
        """Whether another draft may be tried."""
        return self._steps >= COST

    def book(self, drafted: bool, saved: int) -> None:
        """Settle one step."""
        self._steps = min(self._steps + _INTEREST - (COST if drafted else 0.0) + saved, _MOST)


class Lookup:
    """A text that can be searched for runs of tokens, and grows.

    `cursor` is where writing goes on: in a fill-in-the-middle prompt the end of the text before it, else the end.
    """

    def __init__(self, ids: list[int], cursor: int) -> None:
        self._ids = ids.copy()
        self._tail = ids[max(0, cursor - LONGEST) : cursor]
        self._after: list[dict[tuple[int, ...], int]] = []  # per run length: position after its last occurrence
        for size in (LONGEST, LONGEST - 1):
            runs = zip(*(ids[i:] for i in range(size)), strict=False)
            self._after.append(dict(zip(runs, range(size, len(ids)), strict=False)))

    def extend(self, ids: list[int]) -> None:
        """Add tokens that were written at the cursor."""
        for token in ids:
            self._ids.append(token)
            self._tail = [*self._tail, token][-LONGEST:]

    def propose(self, most: int) -> list[int]:
        """Up to `most` tokens that may come next; none where the last tokens were not seen before."""
        for size, after in zip((LONGEST, LONGEST - 1), self._after, strict=True):
            if (at := after.get(tuple(self._tail[-size:]))) is not None:
                return self._ids[at : at + most]
        return []
