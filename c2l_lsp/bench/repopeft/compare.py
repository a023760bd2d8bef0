"""Figures of a benchmark run, and of one against another. The unit of chance is the repository, never the task.

Tasks of one repository resemble each other, so intervals over tasks, as published, are several times too narrow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from c2l_lsp.bench.stats import RESAMPLES, Row, clustered
from c2l_lsp.errors import CorpusError

Values = Mapping[str, Sequence[float]]
"""Repository → one value for each of its tasks, in an order that all methods share."""


@dataclass(frozen=True)
class Difference:
    """a − b over tasks: the mean, its 95 % interval and a two-sided p, from resampling repositories."""

    mean: float
    low: float
    high: float
    p: float


def by_repository(pairs: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    """(repository, value) of tasks, gathered."""
    found: dict[str, list[float]] = defaultdict(list)
    for repository, value in pairs:
        found[repository].append(value)
    return dict(found)


def over_tasks(values: Values, seed: int = 0) -> tuple[float, float, float]:
    """Mean over all tasks (as published) and its 95 % interval from resampling whole repositories."""
    sums, counts = _totals(values)
    if not len(sums):
        return float("nan"), float("nan"), float("nan")
    means = _resampled(sums, counts, seed)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def paired(a: Values, b: Values, seed: int = 0) -> Difference:
    """How much better `a` is than `b` on the same tasks. CorpusError when they are not the same."""
    if {name: len(values) for name, values in a.items()} != {name: len(values) for name, values in b.items()}:
        raise CorpusError("The two methods were not scored on the same tasks.")
    apart = {name: [x - y for x, y in zip(a[name], b[name], strict=True)] for name in a}
    mean, low, high = over_tasks(apart, seed)
    sums, counts = _totals(apart)
    if not len(sums):
        return Difference(mean, low, high, float("nan"))
    means = _resampled(sums, counts, seed)
    # one more on either side: a p of a finite number of draws is never 0
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return Difference(mean, low, high, min(1.0, 2 * (tail + 1) / (len(means) + 1)))


def rows(name: str, method: str, values: Values, unit: str) -> list[Row]:
    """`name` over tasks, as published, and `name/repository` as a mean over repositories."""
    mean, low, high = over_tasks(values)
    of_each = [float(np.mean(found)) for _, found in sorted(values.items()) if found]
    return [
        Row(name, method, mean, low, high, unit),
        Row(f"{name}/repository", method, *clustered(of_each), unit),
    ]


def _totals(values: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    held = [found for _, found in sorted(values.items()) if found]
    sums = np.array([np.sum(found) for found in held], np.float64)
    return sums, np.array([len(found) for found in held], np.float64)


def _resampled(sums: NDArray[np.float64], counts: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """The mean over tasks in each of RESAMPLES draws of as many repositories."""
    draws = np.random.default_rng(seed).integers(0, len(sums), (RESAMPLES, len(sums)))
    means: NDArray[np.float64] = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    return means
