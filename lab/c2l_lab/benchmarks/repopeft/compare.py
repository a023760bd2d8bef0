"""Means, intervals and paired tests over repositories.

Tasks of one repository are correlated, so the published intervals over tasks are several times too narrow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from c2l_lab.benchmarks.stats import RESAMPLES, Row, clustered
from c2l_lsp.errors import CorpusError

Values = Mapping[str, Sequence[float]]
"""Repository → one value per task, in the same order for all methods."""


@dataclass(frozen=True)
class Difference:
    """a − b over tasks: the mean, its 95 % bootstrap interval over repositories, and a two-sided p-value.

    The p-value is from a sign-flip permutation test over repositories.
    """

    mean: float
    low: float
    high: float
    p: float


def by_repository(pairs: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    """The values of (repository, value) pairs by repository."""
    found: dict[str, list[float]] = defaultdict(list)
    for repository, value in pairs:
        found[repository].append(value)
    return dict(found)


def over_tasks(values: Values, seed: int = 0) -> tuple[float, float, float]:
    """The mean over all tasks (as published) and its 95 % bootstrap interval over repositories.

    With one repository the interval is NaN.
    """
    sums, counts = _totals(values)
    if len(sums) < 2:
        return float(sums.sum() / counts.sum()) if len(sums) else float("nan"), float("nan"), float("nan")
    means = _resampled(sums, counts, seed)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def paired(a: Values, b: Values, seed: int = 0) -> Difference:
    """The difference of `a` and `b` on the same tasks. CorpusError if the tasks differ."""
    if {name: len(values) for name, values in a.items()} != {name: len(values) for name, values in b.items()}:
        raise CorpusError("The two methods were not scored on the same tasks.")
    apart = {name: [x - y for x, y in zip(a[name], b[name], strict=True)] for name in a}
    mean, low, high = over_tasks(apart, seed)
    return Difference(mean, low, high, _flipped(_totals(apart)[0], seed))


def _flipped(sums: NDArray[np.float64], seed: int) -> float:
    """The share of sign flips whose sum is at least as far from 0: all flips, or RESAMPLES random ones if many."""
    count = len(sums)
    if not count:
        return float("nan")
    if 2**count <= RESAMPLES:
        signs = 1.0 - 2.0 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
    else:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], (RESAMPLES, count))
    reached = np.abs(signs @ sums) >= abs(sums.sum()) * (1 - 1e-9)
    drawn = 2**count > RESAMPLES  # the data themselves are one more draw, so p is never 0
    return float((reached.sum() + drawn) / (len(signs) + drawn))


def rows(name: str, method: str, values: Values, unit: str) -> list[Row]:
    """Two rows: `name`, the mean over tasks as published, and `name/repository`, the mean over repositories."""
    of_each = [float(np.mean(found)) for _, found in sorted(values.items()) if found]
    across = clustered(of_each) if len(of_each) > 1 else (sum(of_each), float("nan"), float("nan"))
    return [row(name, method, over_tasks(values), unit), row(f"{name}/repository", method, across, unit)]


def row(name: str, method: str, found: tuple[float, float, float], unit: str = "") -> Row:
    """A row, without an interval if it is NaN."""
    mean, low, high = found
    return Row(name, method, mean, None if np.isnan(low) else low, None if np.isnan(high) else high, unit)


def _totals(values: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    held = [found for _, found in sorted(values.items()) if found]
    sums = np.array([np.sum(found) for found in held], np.float64)
    return sums, np.array([len(found) for found in held], np.float64)


def _resampled(sums: NDArray[np.float64], counts: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """The mean over tasks in each of RESAMPLES draws of as many repositories."""
    draws = np.random.default_rng(seed).integers(0, len(sums), (RESAMPLES, len(sums)))
    means: NDArray[np.float64] = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    return means
