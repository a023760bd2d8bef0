"""A scaling law for loss against parameters and tokens, and its predictions for planned runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from c2l_lab.benchmarks.stats import Row
from c2l_lsp.errors import TrainingError

TRUSTED = 0.05
"""The largest relative error of a law that may predict new runs."""


@dataclass(frozen=True)
class Point:
    """One trained model: parameters without embeddings, training tokens, bits per byte on the common text."""

    name: str
    weights: float
    tokens: float
    bits: float


@dataclass(frozen=True)
class Law:
    """bits = floor + size · weights^-ALPHA + data · tokens^-beta, all terms ≥ 0 (Hoffmann et al., arXiv 2203.15556).

    The floor is needed: a law without one predicts zero loss for enough text, and it did not fit.
    """

    floor: float
    size: float
    data: float
    beta: float

    def bits(self, weights: float, tokens: float) -> float:
        """Predicted bits per byte."""
        return self.floor + self.size * weights**-ALPHA + self.data * tokens**-self.beta


ALPHA = 0.34
"""The exponent of size from that paper: with two sizes it cannot be separated from the floor."""

_BETAS = np.arange(0.1, 1.01, 0.01)


def fit(points: Sequence[Point]) -> Law:
    """Fit by least squares of the relative errors. TrainingError for fewer than four points, two sizes or three counts
    of tokens."""
    if len({p.weights for p in points}) < 2 or len({p.tokens for p in points}) < 3 or len(points) < 4:
        raise TrainingError(
            "The models cannot separate size from tokens. Add one of another size and one with more tokens."
        )
    return min((_fit_at(points, float(beta)) for beta in _BETAS), key=lambda one: one[0])[1]


def _fit_at(points: Sequence[Point], beta: float) -> tuple[float, Law]:
    """(squared error, law) for one exponent: the best choice of terms without negative coefficients."""
    bits = np.array([p.bits for p in points])
    columns = np.array([[1.0, p.weights**-ALPHA, p.tokens**-beta] for p in points]) / bits[:, None]
    best: tuple[float, Law] = (math.inf, Law(0.0, 0.0, 0.0, beta))
    for count in (1, 2, 3):
        for terms in itertools.combinations(range(3), count):
            found = np.linalg.lstsq(columns[:, terms], np.ones(len(points)), rcond=None)[0]
            error = float(np.square(columns[:, terms] @ found - 1).sum())
            if (found >= 0).all() and error < best[0]:
                whole = np.zeros(3)
                whole[list(terms)] = found
                best = (error, Law(float(whole[0]), float(whole[1]), float(whole[2]), beta))
    return best


def rows(points: Sequence[Point], planned: Sequence[tuple[str, float, float]]) -> list[Row]:
    """A row for each point with its leave-one-out prediction, and the planned runs if all those were good.

    If the error at a left-out point is larger than TRUSTED, the law makes no predictions.
    """
    made = [
        Row(f"scaling/{p.weights / 1e6:.2f}M/{p.tokens / 1e6:.1f}M", p.name, p.bits, unit="bit/byte") for p in points
    ]
    law, misses = fit(points), list[float]()
    for left_out in points:
        value = _from_the_others(points, left_out)
        misses.append(abs(math.log(value / left_out.bits)))
        made.append(Row("scaling/from_the_others", left_out.name, value, unit="bit/byte"))
    trusted = max(misses) <= TRUSTED
    made.append(Row("scaling/largest_miss", "law", max(misses), bar=f"≤ {TRUSTED}", holds=trusted))
    for name, weights, tokens in planned if trusted else ():
        value = law.bits(weights, tokens)
        made.append(Row(f"scaling/predicted/{weights / 1e6:.2f}M/{tokens / 1e6:.0f}M", name, value, unit="bit/byte"))
    return [*made, Row("scaling/floor", "law", law.floor, unit="bit/byte"), Row("scaling/beta", "law", law.beta)]


def _from_the_others(points: Sequence[Point], left_out: Point) -> float:
    try:
        return fit([point for point in points if point is not left_out]).bits(left_out.weights, left_out.tokens)
    except TrainingError:
        return math.inf
