"""Drafts: what followed the last few tokens where they stood before. A guess, for the model to check in one pass.

Looked up in the prompt first, then elsewhere: in the rest of the folder's text (see `hoard`).
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol

LONGEST = 3
"""Tokens that must agree for what followed them to be drafted, tried first; then one fewer."""

COST = 0.25
"""What checking a draft of a few tokens costs beyond a plain step, in steps, until it was measured."""

_CREDIT = 2.0  # steps that drafts may lose before they have earned any
_MOST = 4.0  # credit that can be saved up
_INTEREST = 0.01  # earned by every step: where drafts never pay, they cost one step in a hundred
_TIMED = 15  # steps of a kind whose median is its cost
_DEAREST = 2.0  # a hiccup of the machine must not end drafting for long


@dataclass(frozen=True)
class Draft:
    """Tokens that may come next, and where they were found."""

    ids: list[int] = field(default_factory=list)
    source: str = ""


class DraftSource(Protocol):
    """Text besides the prompt that can be searched."""

    def continuation(self, run: list[int], most: int) -> list[int]:
        """Up to `most` tokens that followed a run of LONGEST tokens there; none where it never stood."""


class DraftBudget:
    """Whether drafts pay, kept as an account in steps: a draft costs, a token it saved earns, and time heals."""

    def __init__(self) -> None:
        self._steps = _CREDIT

    def good(self, cost: float = COST) -> bool:
        """Whether another draft may be tried."""
        return self._steps >= min(cost, _CREDIT)

    def book(self, drafted: bool, saved: int, cost: float = COST) -> None:
        """Settle one step."""
        self._steps = min(self._steps + _INTEREST - (cost if drafted else 0.0) + saved, _MOST)


class DraftBudgets:
    """An account for each source of drafts, and what a draft costs on this model and machine."""

    SOURCES = ("prompt", "draft_source")

    def __init__(self) -> None:
        self._accounts = {name: DraftBudget() for name in self.SOURCES}
        self._plain: deque[float] = deque(maxlen=_TIMED)
        self._checked: deque[float] = deque(maxlen=_TIMED)

    @property
    def cost(self) -> float:
        """What a draft costs beyond a plain step, in steps."""
        if len(self._plain) < _TIMED or len(self._checked) < _TIMED:
            return COST
        return min(max(median(self._checked) / max(median(self._plain), 1e-9) - 1.0, 0.0), _DEAREST)

    @property
    def good(self) -> Collection[str]:
        """The sources that may be tried."""
        cost = self.cost
        return {name for name, account in self._accounts.items() if account.good(cost)}

    def book(self, guess: Draft, saved: int) -> None:
        """Settle one step."""
        cost = self.cost
        for name, account in self._accounts.items():
            mine = bool(guess.ids) and guess.source == name
            account.book(mine, saved if mine else 0, cost)

    def timed(self, drafted: int, seconds: float) -> None:
        """A step that checked so many drafted tokens took so long."""
        (self._checked if drafted else self._plain).append(seconds)


class DraftLookup:
    """A text that can be searched for runs of tokens, and grows.

    `cursor` is where writing goes on: in a fill-in-the-middle prompt the end of the text before it, else the end.
    """

    def __init__(self, ids: list[int], cursor: int, draft_source: DraftSource | None = None) -> None:
        self._ids, self._draft_source = ids.copy(), draft_source
        self._tail = ids[max(0, cursor - LONGEST) : cursor]
        self._text = array("i", ids[:-1]).tobytes()  # searched as bytes: an index would cost more than is asked of it

    def extend(self, ids: list[int]) -> None:
        """Add tokens that were written at the cursor."""
        for token in ids:
            self._ids.append(token)
            self._tail = [*self._tail, token][-LONGEST:]

    def propose(self, most: int, sources: Collection[str] = DraftBudgets.SOURCES) -> Draft:
        """Up to `most` tokens that may come next; none where the last tokens were not seen before.

        A long run in the prompt is the best sign, one elsewhere the next, a shorter one in the prompt the last.
        """
        here, there = (name in sources for name in DraftBudgets.SOURCES)
        if here and (ids := self._found(LONGEST, most)):
            return Draft(ids, "prompt")
        asked = self._draft_source if there and len(self._tail) == LONGEST else None
        if asked is not None and (ids := asked.continuation(self._tail, most)):
            return Draft(ids, "draft_source")
        return Draft(self._found(LONGEST - 1, most), "prompt") if here else Draft()

    def _found(self, size: int, most: int) -> list[int]:
        """What followed the last run of the `size` last tokens."""
        if len(self._tail) < size:
            return []
        run = array("i", self._tail[-size:])
        wanted, end = run.tobytes(), len(self._text)
        while (at := self._text.rfind(wanted, 0, end)) >= 0:
            if at % run.itemsize == 0:
                begin = at // run.itemsize + size
                return self._ids[begin : begin + most]
            end = at + len(wanted) - 1  # in the midst of numbers
        return []
