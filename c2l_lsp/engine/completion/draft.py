"""Drafts: guesses of the next tokens, which the model verifies in one forward pass.

A draft is the text that followed the last few tokens where they occurred before (prompt lookup decoding). It is looked
up in the prompt, then in a draft source: the index of the folder's other files (see `draft_index`).
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol

MATCH_TOKENS = 3
"""The last tokens that must match for a draft. The prompt is also searched for one token fewer."""

DEFAULT_COST = 0.25
"""Cost of verifying a draft beyond a plain decode step, in plain steps, until it is measured."""

_START_BALANCE = 2.0  # steps that drafts may lose before they have saved any
_MAX_BALANCE = 4.0  # steps
_STEP_CREDIT = 0.01  # added by every step, so that a source that never pays still costs at most one step in 100
_TIMED_STEPS = 15  # steps of a kind, whose median is its duration
_MAX_COST = 2.0  # steps; one slow step must not stop drafting for long


@dataclass(frozen=True)
class Draft:
    """Guessed token ids (may be empty), and their source: one of DraftBudgets.SOURCES, or "" if there are none."""

    ids: list[int] = field(default_factory=list)
    source: str = ""


class DraftSource(Protocol):
    """Text besides the prompt in which drafts are looked up."""

    def continuation(self, run: list[int], limit: int) -> list[int]:
        """Return up to `limit` tokens that followed a run of MATCH_TOKENS tokens; [] if the run does not occur."""


class DraftBudget:
    """Decides whether drafts pay. The balance is in plain decode steps: a draft costs, each saved token earns one."""

    def __init__(self) -> None:
        self._balance = _START_BALANCE

    def allows(self, cost: float = DEFAULT_COST) -> bool:
        """Return whether the balance covers another draft."""
        return self._balance >= min(cost, _START_BALANCE)

    def record(self, drafted: bool, saved: int, cost: float = DEFAULT_COST) -> None:
        """Update the balance after one decode step. `saved` is the number of accepted tokens."""
        self._balance = min(self._balance + _STEP_CREDIT - (cost if drafted else 0.0) + saved, _MAX_BALANCE)


class DraftBudgets:
    """One budget for each source of drafts, and the measured cost of a draft on this model and machine."""

    SOURCES = ("prompt", "index")

    def __init__(self) -> None:
        self._budgets = {source: DraftBudget() for source in self.SOURCES}
        self._plain_times: deque[float] = deque(maxlen=_TIMED_STEPS)
        self._draft_times: deque[float] = deque(maxlen=_TIMED_STEPS)

    @property
    def cost(self) -> float:
        """Cost of a draft beyond a plain step, in plain steps."""
        if len(self._plain_times) < _TIMED_STEPS or len(self._draft_times) < _TIMED_STEPS:
            return DEFAULT_COST
        return min(max(median(self._draft_times) / max(median(self._plain_times), 1e-9) - 1.0, 0.0), _MAX_COST)

    @property
    def allowed(self) -> Collection[str]:
        """The sources whose budget allows another draft."""
        cost = self.cost
        return {source for source, budget in self._budgets.items() if budget.allows(cost)}

    def record(self, draft: Draft, saved: int) -> None:
        """Update all budgets after one decode step that verified `draft` and accepted `saved` of its tokens."""
        cost = self.cost
        for source, budget in self._budgets.items():
            used = bool(draft.ids) and draft.source == source
            budget.record(used, saved if used else 0, cost)

    def record_time(self, drafted: int, seconds: float) -> None:
        """Record the duration of a decode step that verified `drafted` tokens."""
        (self._draft_times if drafted else self._plain_times).append(seconds)


class DraftLookup:
    """Looks up drafts for one completion.

    `ids` is the prompt. `before` are the last tokens of the text before the cursor, which the answer continues; a
    fill-in-the-middle prompt does not always end with them.
    """

    def __init__(self, ids: list[int], before: list[int], draft_source: DraftSource | None = None) -> None:
        self._ids, self._draft_source = ids.copy(), draft_source
        self._tail = before[-MATCH_TOKENS:]
        self._searched = array("i", ids[:-1]).tobytes()  # few look-ups per prompt: a byte search beats an index

    def extend(self, ids: list[int]) -> None:
        """Append decoded tokens at the cursor."""
        for token in ids:
            self._ids.append(token)
            self._tail = [*self._tail, token][-MATCH_TOKENS:]

    def propose(self, limit: int, sources: Collection[str] = DraftBudgets.SOURCES) -> Draft:
        """Return a draft of up to `limit` tokens.

        The order is by expected acceptance: a full match in the prompt, a match in the draft source, a match of one
        token fewer in the prompt.
        """
        use_prompt, use_index = (source in sources for source in DraftBudgets.SOURCES)
        if use_prompt and (ids := self._find(MATCH_TOKENS, limit)):
            return Draft(ids, "prompt")
        source = self._draft_source if use_index and len(self._tail) == MATCH_TOKENS else None
        if source is not None and (ids := source.continuation(self._tail, limit)):
            return Draft(ids, "index")
        return Draft(self._find(MATCH_TOKENS - 1, limit), "prompt") if use_prompt else Draft()

    def _find(self, size: int, limit: int) -> list[int]:
        """Up to `limit` tokens that followed the last occurrence of the last `size` tokens in the prompt."""
        if len(self._tail) < size:
            return []
        run = array("i", self._tail[-size:])
        wanted, end = run.tobytes(), len(self._searched)
        while (offset := self._searched.rfind(wanted, 0, end)) >= 0:
            if offset % run.itemsize == 0:
                begin = offset // run.itemsize + size
                return self._ids[begin : begin + limit]
            end = offset + len(wanted) - 1  # the match starts inside a token id
        return []
