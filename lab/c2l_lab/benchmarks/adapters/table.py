"""Turns the results of the units into rows. Intervals are bootstrap intervals over repositories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from c2l_lab.benchmarks.adapters.metrics import LAST, Values
from c2l_lab.benchmarks.adapters.run import Unit
from c2l_lab.benchmarks.adapters.scoring import PREFIXES
from c2l_lab.benchmarks.stats import RESAMPLES, Row, row
from c2l_lab.repositories.spans import STRATA
from c2l_lab.train.memory.held_out import calibration_error

CEILING = "sgd"
RETRIEVAL = "retrieval"
COST_BAR = 1 / 50
CALIBRATION_BAR = "≤ 0.03"
_CALIBRATION_RESAMPLES = 1000


class Results:
    """The results, by part, method and repository."""

    def __init__(self, values: Mapping[Unit, Values]) -> None:
        self._values = values
        self.methods = list(dict.fromkeys(unit.method for unit in values))
        self.repositories = list(dict.fromkeys(unit.repository for unit in values))

    def of(self, part: str, method: str) -> dict[str, Values]:
        """Repository → result of a part."""
        return {u.repository: v for u, v in self._values.items() if (u.part, u.method) == (part, method)}

    def gains(self, method: str, prefix: int) -> dict[str, float]:
        """Repository → change of the loss against the base model, at a prefix."""
        found = self.of("loss", method)
        return {
            name: value[str(prefix)]["loss"] - value[str(prefix)]["base"]
            for name, value in found.items()
            if value.get(str(prefix), {}).get("tokens")
        }

    def lines(self, method: str, key: str, stratum: str = "", prefix: int = LAST) -> dict[str, float]:
        """Repository → mean of a field of its completions at a prefix, over one stratum or all."""
        means = {}
        for name, value in self.of("line", method).items():
            chosen = [float(a[key]) for a in value[str(prefix)] if not stratum or a["stratum"] == stratum]
            if chosen:
                means[name] = float(np.mean(chosen))
        return means


def rows(results: Results) -> list[Row]:
    """All rows, by method."""
    found: list[Row] = []
    for method in results.methods:
        found += _loss(results, method)
        found += _lines(results, method)
        found += conditioning(results.of("others", method), method)
        found += _tracking(results, method)
        found += _renaming(results, method)
        found += _costs(results, method)
    return found


def _loss(results: Results, method: str) -> list[Row]:
    found = _calibration(results, method)
    for prefix in PREFIXES:
        gains = results.gains(method, prefix)
        if method == "base" or not gains:
            continue
        found.append(row(f"delta_ce/prefix{prefix}", method, list(gains.values()), "nat/token"))
        worst = max(gains, key=lambda name: gains[name])
        found.append(Row(f"worst_repository/prefix{prefix}", method, gains[worst], unit=f"nat/token, {worst}"))
        if prefix == LAST:
            found[-1] = replace(found[-1], bar="≤ +0.01", holds=gains[worst] <= 0.01)
            found += _ceiling(results, method)
    return found


def _calibration(results: Results, method: str) -> list[Row]:
    """The expected calibration error at the longest prefix; every repository has the same weight."""
    cells = [value.get(str(LAST), {}) for value in results.of("loss", method).values()]
    tables = [torch.tensor(cell["calibration"], dtype=torch.float64) for cell in cells if cell.get("calibration")]
    if not tables:
        return []
    draws = np.random.default_rng(0).integers(0, len(tables), (_CALIBRATION_RESAMPLES, len(tables)))
    low, high = np.percentile([calibration_error([tables[i] for i in draw]) for draw in draws], [2.5, 97.5])
    name, value = f"calibration_error/prefix{LAST}", calibration_error(tables)
    return [Row(name, method, value, float(low), float(high), "of 1", CALIBRATION_BAR, value <= 0.03)]


def _ceiling(results: Results, method: str) -> list[Row]:
    """The gain of a method divided by the gain of the per-repository LoRA, both means over the same repositories."""
    mine, top = results.gains(method, LAST), results.gains(CEILING, LAST)
    names = [name for name in mine if name in top]
    if method == CEILING or not names:
        return []
    value, low, high = ratio([mine[name] for name in names], [top[name] for name in names])
    if value is None:
        reason = f"{CEILING} has no gain"
        return [Row(f"ceiling_fraction/prefix{LAST}", method, float("nan"), unit=reason, bar="≥ 1", holds=None)]
    return [Row(f"ceiling_fraction/prefix{LAST}", method, value, low, high, "of 1", bar="≥ 1", holds=value >= 1.0)]


def ratio(above: Sequence[float], below: Sequence[float], seed: int = 0) -> tuple[float | None, float, float]:
    """The mean of `above` divided by the mean of `below`, and its 95 % bootstrap interval over repositories.

    Both are changes of the loss, so a gain is negative. The value is None if the mean of `below` is not negative.
    """
    a, b = np.asarray(above), np.asarray(below)
    if b.mean() >= 0:
        return None, float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(0, len(a), (RESAMPLES, len(a)))
    tops, bottoms = a[draws].mean(1), np.minimum(b[draws].mean(1), -1e-9)
    low, high = np.percentile(tops / bottoms, [2.5, 97.5])
    return float(a.mean() / b.mean()), float(low), float(high)


def _lines(results: Results, method: str) -> list[Row]:
    found = []
    for name, key in (("exact_match", "exact"), ("edit_similarity", "similarity")):
        for stratum in ("", *STRATA):
            found += _written(results, method, (name, key), f"/{stratum}" if stratum else "", stratum, LAST)
        for prefix in PREFIXES:
            if prefix != LAST:
                found += _written(results, method, (name, key), f"/prefix{prefix}", "", prefix)
    return found


def _written(results: Results, method: str, measure: tuple[str, str], tag: str, stratum: str, prefix: int) -> list[Row]:
    """A metric of the completions, and its difference to the base model on the same spans."""
    name, key = measure
    mine, base = results.lines(method, key, stratum, prefix), results.lines("base", key, stratum, prefix)
    if not mine:
        return []
    found = [row(name + tag, method, list(mine.values()), "of 1")]
    if method == "base":
        return found
    gain = row(f"{name}_gain{tag}", method, [mine[n] - base[n] for n in mine if n in base], "against base")
    if name == "exact_match" and not tag:
        gain = replace(gain, bar="interval > 0 (goal +0.03)", holds=bool(gain.low is not None and gain.low > 0))
    return [*found, gain]


def conditioning(values: Mapping[str, Values], method: str) -> list[Row]:
    """The repository's adapter against those of other repositories and their mean."""
    found: list[Row] = []
    for prefix in PREFIXES:
        cells = [value[str(prefix)] for value in values.values() if str(prefix) in value]
        if not cells:
            continue
        tag, decides = f"/prefix{prefix}", prefix == LAST
        total = f"of {len(cells[0]['others']) + 1}"
        mean = row("own_minus_mean" + tag, method, [c["own"] - c["mean"] for c in cells], "nat/token")
        first = row("top1" + tag, method, [float(rank_of(c) == 1) for c in cells], total)
        if decides:
            holds = mean.value <= -0.04 and mean.high is not None and mean.high < 0
            mean = replace(mean, bar="≤ -0.04, interval < 0", holds=holds)
            first = replace(first, bar="≥ 0.85", holds=first.value >= 0.85)
        others = [c["own"] - float(np.mean(list(c["others"].values()))) for c in cells]
        found += [mean, row("own_minus_other" + tag, method, others, "nat/token"), first]
        found.append(row("mean_rank" + tag, method, [rank_of(c) for c in cells], total))
    alike = [float(np.mean(list(value["cosine"].values()))) for value in values.values()]
    return [*found, row("adapter_cosine", method, alike, "with others'")] if alike else found


def rank_of(cell: Mapping[str, Any]) -> float:
    """The rank of the repository's adapter, 1 is best; ties share the mean rank."""
    others = list(cell["others"].values())
    better, same = sum(o < cell["own"] for o in others), sum(o == cell["own"] for o in others)
    return 1 + better + same / 2


def _tracking(results: Results, method: str) -> list[Row]:
    values = [value for value in results.of("ages", method).values() if value]
    found = []
    for age in ("0", "1", "5", "20", "100", "followed"):
        gains = [v["loss"][age] - v["base"] for v in values if age in v["loss"]]
        if gains:
            found.append(row(f"stale_ce/{age}", method, gains, "nat/token"))
        exact = [float(np.mean(v["exact"][age])) for v in values if v.get("exact", {}).get(age)]
        if exact:
            found.append(row(f"stale_exact_match/{age}", method, exact, "of 1"))
    aged = [v for v in values if "20" in v["loss"]]
    if aged:
        fresh = row(
            "fresh_minus_stale20", method, [v["loss"]["followed20"] - v["loss"]["20"] for v in aged], "nat/token"
        )
        found.append(replace(fresh, bar="interval < 0", holds=bool(fresh.high is not None and fresh.high < 0)))
        snapshot = [v["loss"]["0"] - v["loss"]["20"] for v in aged]
        found.append(row("fresh_minus_stale20/snapshot", method, snapshot, "nat/token"))
    return found


def _renaming(results: Results, method: str) -> list[Row]:
    values = [value for value in results.of("rename", method).values() if value.get("sites")]
    if not values:
        return []
    rise = row("rename_rise", method, [v["after"] - v["before"] for v in values], "nat of the new name")
    fall = row("rename_revert", method, [v["reverted"] - v["after"] for v in values], "nat of the new name")
    return [
        replace(rise, bar="interval > 0", holds=bool(rise.low is not None and rise.low > 0)),
        replace(fall, bar="interval < 0", holds=bool(fall.high is not None and fall.high < 0)),
    ]


def _costs(results: Results, method: str) -> list[Row]:
    found = []
    for name, key, unit in (("ms_per_request", "ms", "ms"), ("prompt_tokens", "prompt_tokens", "tokens")):
        means = results.lines(method, key)
        if means:
            found.append(row(name, method, list(means.values()), unit))
    found += _worth(results, method)
    seconds = {name: value["seconds"] for name, value in results.of("loss", method).items()}
    top = {name: value["seconds"] for name, value in results.of("loss", CEILING).items()}
    if any(seconds.values()):
        found.append(row("adapter_seconds", method, list(seconds.values()), "s"))
        shares = [seconds[name] / top[name] for name in seconds if top.get(name)]
        if shares and method != CEILING:
            share = row(f"adapter_seconds_of_{CEILING}", method, shares, "of 1")
            found.append(replace(share, bar="≤ 0.02", holds=share.value <= COST_BAR))
    return found


def _worth(results: Results, method: str) -> list[Row]:
    """The gain per millisecond of a request: nat/token below the base model, divided by the time of a request."""
    worth = {}
    for one in (method, RETRIEVAL):
        gains, times = results.gains(one, LAST), results.lines(one, "ms")
        worth[one] = {name: -gains[name] / times[name] for name in gains if times.get(name)}
    mine = list(worth[method].values())
    if method == "base" or not mine:
        return []
    made = row(f"gain_per_ms/prefix{LAST}", method, mine, "nat/token for each ms of a request")
    against = list(worth[RETRIEVAL].values())
    if not against or method == RETRIEVAL:
        return [made]
    least = float(np.mean(against))
    return [replace(made, bar=f"> {RETRIEVAL}'s {least:.2g}", holds=made.value > least)]
