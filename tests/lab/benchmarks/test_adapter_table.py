"""The arithmetic of the rows: conditioning, chance level, gains, ratios."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from c2l_lab.benchmarks.adapters import table
from c2l_lab.benchmarks.adapters.run import Unit, controls
from c2l_lab.benchmarks.adapters.table import Results, conditioning, rank_of, ratio
from c2l_lab.train.memory.held_out import Scores


def _others(own: float, spread: float, seed: int) -> dict:
    """Values of a method whose own adapter has a loss `own` below the others."""
    dice = np.random.default_rng(seed)
    cells = {}
    for prefix in ("0", "256", "1024"):
        losses = 3.0 + spread * dice.random(15)
        cells[prefix] = {
            "base": 3.1,
            "own": 3.0 - own,
            "mean": 3.0,
            "others": {f"r{i}": float(x) for i, x in enumerate(losses)},
        }
    return {**cells, "cosine": {f"r{i}": 0.1 for i in range(15)}, "lambda": {"own": [3.0] * 5, "other": [3.0] * 5}}


def _row(rows, name):
    return next(row for row in rows if row.name == name)


def test_repository_specific_adapter_passes_and_constant_one_fails():
    good = conditioning({f"a{i}": _others(0.1, 0.1, i) for i in range(12)}, "memory")
    assert _row(good, "own_minus_mean/prefix1024").holds and _row(good, "top1/prefix1024").holds
    assert _row(good, "mean_rank/prefix1024").value == 1.0
    constant = {name: _others(0.0, 0.0, 0) for name in "abcdefgh"}  # the same adapter for everybody: all losses equal
    rows = conditioning(constant, "memory")
    assert _row(rows, "own_minus_mean/prefix1024").holds is False
    assert _row(rows, "top1/prefix1024").holds is False
    assert _row(rows, "mean_rank/prefix1024").value == 8.5  # ties share their places: the middle of 16
    assert _row(rows, "own_minus_mean/prefix0").bar is None  # only the longest prefix decides


def shuffled(values, seed):
    """The same values with the label "own" on a random adapter: the result of chance."""
    rng = np.random.default_rng(seed)
    out = {}
    for name, value in values.items():
        cells = {}
        for prefix in ("0", "256", "1024"):
            if prefix in value:
                cell = value[prefix]
                losses = [cell["own"], *cell["others"].values()]
                own = int(rng.integers(len(losses)))
                rest = [loss for i, loss in enumerate(losses) if i != own]
                cells[prefix] = {**cell, "own": losses[own], "others": dict(zip(cell["others"], rest, strict=True))}
        out[name] = {**value, **cells}
    return out


def test_shuffled_labels_score_at_chance():
    values = {f"a{i}": _others(0.1, 0.1, i) for i in range(24)}
    firsts = [_row(conditioning(shuffled(values, seed), "m"), "top1/prefix1024").value for seed in range(40)]
    assert np.mean(firsts) == pytest.approx(1 / 16, abs=0.02)
    ranks = [_row(conditioning(shuffled(values, seed), "m"), "mean_rank/prefix1024").value for seed in range(40)]
    assert np.mean(ranks) == pytest.approx(8.5, abs=0.5)


def test_rank_halves_ties():
    assert rank_of({"own": 1.0, "others": {"a": 2.0, "b": 3.0}}) == 1
    assert rank_of({"own": 2.5, "others": {"a": 2.0, "b": 3.0}}) == 2
    assert rank_of({"own": 2.0, "others": {"a": 2.0, "b": 1.0}}) == 2.5


def test_ceiling_fraction_is_ratio_of_means():
    value, low, high = ratio([-0.2, -0.1, -0.3], [-0.1, -0.1, -0.2])
    assert value == pytest.approx(1.5) and low <= value <= high
    assert ratio([-0.2], [0.1])[0] is None


def _loss(base: float, loss: float, seconds: float = 1.0) -> dict:
    cell = {"base": base, "loss": loss, "tokens": 500}
    return {"seconds": seconds, "norm": 1.0, "0": cell, "256": cell, "1024": cell}


def _lines(*exact: bool, ms: float = 10.0) -> dict:
    strata = ("unseen", "attribute", "literal", "other")
    answers = [
        {
            "stratum": strata[i % 4],
            "exact": e,
            "similarity": 0.5 + 0.5 * e,
            "ms": ms,
            "prompt_tokens": 100,
            "text": "",
        }
        for i, e in enumerate(exact)
    ]
    return {"0": answers[:1], "256": answers[:2], "1024": answers}


def _results() -> Results:
    values = {}
    for i, name in enumerate(("a/x", "b/y", "c/z")):
        values[Unit(name, "base", "loss")] = _loss(3.0, 3.0, 0.0)
        values[Unit(name, "base", "line")] = _lines(False, False, True, False)
        values[Unit(name, "memory", "loss")] = _loss(3.0, 2.9 + 0.06 * i, 0.1)
        values[Unit(name, "memory", "line")] = _lines(True, False, True, False)
        values[Unit(name, "sgd", "loss")] = _loss(3.0, 2.95, 40.0)
        values[Unit(name, "sgd", "line")] = _lines(False, False, True, False)
        values[Unit(name, "retrieval", "loss")] = _loss(3.0, 2.97, 0.1)
        values[Unit(name, "retrieval", "line")] = _lines(False, False, True, False, ms=20.0)
    return Results(values)


def test_rows_contain_gains_worst_repository_ceiling_and_costs():
    by = {(row.name, row.method): row for row in table.rows(_results())}
    assert by["delta_ce/prefix1024", "memory"].value == pytest.approx(-0.04)
    worst = by["worst_repository/prefix1024", "memory"]
    assert worst.value == pytest.approx(0.02) and worst.holds is False and "c/z" in worst.unit
    assert by["ceiling_fraction/prefix1024", "memory"].value == pytest.approx(0.8)
    assert by["exact_match", "memory"].value == 0.5 and by["exact_match/unseen", "base"].value == 0.0
    assert by["exact_match_gain", "memory"].value == 0.25 and by["exact_match_gain", "memory"].holds
    assert by["exact_match_gain", "sgd"].holds is False
    assert by["adapter_seconds_of_sgd", "memory"].holds and by["adapter_seconds_of_sgd", "memory"].value == 0.0025
    assert ("delta_ce/prefix0", "base") not in by
    assert by["exact_match/prefix256", "memory"].value == 0.5 and by["exact_match/prefix0", "base"].value == 0.0
    assert (
        by["exact_match_gain/prefix0", "memory"].value == 1.0 and by["exact_match_gain/prefix0", "memory"].bar is None
    )


def test_calibration_gives_every_repository_the_same_weight():
    def unit(confidence: float, right: list[bool]) -> dict:
        found = Scores()
        logits = torch.log(torch.tensor([[confidence, 1 - confidence]])).repeat(len(right), 1)
        found.add(logits, torch.tensor([0 if hit else 1 for hit in right]))
        cell = {"base": 3.0, "loss": 3.0, "tokens": found.positions, "calibration": found.calibration.tolist()}
        return {"1024": cell, "seconds": 0.0, "norm": 0.0}

    small, large = unit(0.9, [True] * 9 + [False]), unit(0.6, [True] * 100)  # errors of 0 and 0.4
    results = Results({Unit("a/x", "tokens", "loss"): small, Unit("b/y", "tokens", "loss"): large})
    found = _row(table.rows(results), "calibration_error/prefix1024")
    assert found.value == pytest.approx(0.2, abs=1e-6) and found.holds is False
    assert found.low == pytest.approx(0, abs=1e-6) and found.high == pytest.approx(0.4, abs=1e-6)
    assert not [row for row in table.rows(_results()) if "calibration" in row.name]  # results without a table


def test_gain_is_divided_by_request_time():
    by = {(row.name, row.method): row for row in table.rows(_results())}
    assert by["gain_per_ms/prefix1024", "memory"].value == pytest.approx(0.004)
    assert by["gain_per_ms/prefix1024", "memory"].holds and "0.0015" in by["gain_per_ms/prefix1024", "memory"].bar
    assert by["gain_per_ms/prefix1024", "retrieval"].bar is None and ("gain_per_ms/prefix1024", "base") not in by


def test_staleness_compares_updated_state_with_twenty_commits_old_one():
    values = {}
    for name in ("a/x", "b/y", "c/z"):
        loss = {"0": 2.90, "20": 2.95, "followed20": 2.88, "followed": 2.89}
        values[Unit(name, "memory", "ages")] = {"base": 3.0, "loss": loss, "exact": {"0": [True, False]}}
    values[Unit("d/w", "memory", "ages")] = {"base": 3.0, "loss": {"0": 2.9, "followed20": 2.9}}  # a short past
    by = {row.name: row for row in table.rows(Results(values))}
    assert by["fresh_minus_stale20"].value == pytest.approx(-0.07) and by["fresh_minus_stale20"].holds
    assert by["fresh_minus_stale20/snapshot"].value == pytest.approx(-0.05)
    assert by["stale_exact_match/0"].value == 0.5 and not math.isnan(by["stale_ce/20"].value)


def test_controls_are_nearest_repositories_then_random_ones():
    from c2l_lab.repositories.cases import Case

    def case(name: str, words: str) -> Case:
        return Case(name, "", {}, [], {0: {"a.py": words}}, {0: {}}, {})

    found = {f"r{i}": case(f"r{i}", f"word{i // 6} shared own{i}") for i in range(24)}
    chosen = controls(found)
    assert all(len(set(names)) == 15 and name not in names for name, names in chosen.items())
    assert set(chosen["r0"][:5]) == {"r1", "r2", "r3", "r4", "r5"}
    assert chosen == controls(found)
