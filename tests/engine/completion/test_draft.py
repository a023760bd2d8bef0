"""Draft look-up, and the budget that decides whether drafts pay."""

from __future__ import annotations

import pytest

from c2l_lsp.engine.completion.draft import Draft, DraftBudget, DraftBudgets, DraftLookup


def test_a_longer_match_wins_over_a_later_one_and_a_later_match_over_an_earlier_one():
    lookup = DraftLookup([1, 2, 3, 10, 5, 2, 3, 20, 2, 3, 30], [1, 2, 3])
    assert lookup.propose(1).ids == [10]  # the only match of 1, 2, 3
    lookup = DraftLookup([1, 2, 3, 10, 5, 2, 3, 20, 4, 2, 3], [4, 2, 3])
    assert lookup.propose(2).ids == [20, 4]  # 4, 2, 3 does not occur earlier; the last match of 2, 3


def test_a_draft_comes_from_the_source_if_the_prompt_has_only_a_shorter_match():
    class Index:
        def continuation(self, run: list[int], limit: int) -> list[int]:
            return [7, 8, 9][:limit] if run == [4, 2, 3] else []

    ids = [1, 2, 3, 20, 4, 2, 3]
    assert DraftLookup(ids, ids, Index()).propose(2) == Draft([7, 8], "index")
    assert DraftLookup(ids, ids, Index()).propose(2, {"prompt"}) == Draft([20, 4], "prompt")
    assert DraftLookup(ids, ids, Index()).propose(2, {"index"}) == Draft([7, 8], "index")
    assert DraftLookup(ids, ids, Index()).propose(2, set()) == Draft()


def test_a_budget_runs_out_and_recovers_with_time():
    budget = DraftBudget()
    tried = 0
    while budget.allows():
        budget.record(drafted=True, saved=0)
        tried += 1
    assert tried == 8
    for _ in range(25):
        budget.record(drafted=False, saved=0)
    assert budget.allows()


def test_a_source_that_never_pays_does_not_stop_the_other():
    budgets = DraftBudgets()
    for _ in range(8):
        budgets.record(Draft([1], "index"), 0)
        budgets.record(Draft([1], "prompt"), 1)
    assert set(budgets.allowed) == {"prompt"}


def test_the_cost_of_a_draft_is_measured():
    budgets = DraftBudgets()
    assert budgets.cost == 0.25
    for _ in range(15):
        budgets.record_time(0, 2.0)
        budgets.record_time(4, 3.0)
    assert budgets.cost == pytest.approx(0.5)
    budgets.record_time(4, 1000.0)  # one slow step
    assert budgets.cost == pytest.approx(0.5)
