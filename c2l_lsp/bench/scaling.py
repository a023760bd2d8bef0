"""Loss against size and tokens of the models trained so far, and what the next run should reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from c2l_lsp.bench.stats import Row
from c2l_lsp.errors import TrainingError

TRUSTED = 0.05
"""Relative miss up to which a law may be asked for runs that have not been made."""


@dataclass(frozen=True)
class Point:
    """One trained model: weights without embeddings, tokens read, bits per byte on the same text as the others'."""

    name: str
    weights: float
    tokens: float
    bits: float


@dataclass(frozen=True)
class Law:
    """bits = exp(constant) · weights^-alpha · tokens^-beta: for points far from the floor, which ours are."""

    constant: float
    alpha: float
    beta: float

    def bits(self, weights: float, tokens: float) -> float:
        """Predicted bits per byte."""
        return math.exp(self.constant - self.alpha * math.log(weights) - self.beta * math.log(tokens))


def fit(points: Sequence[Point]) -> Law:
    """Least squares in logarithms. TrainingError for fewer than three points of two sizes and two numbers of tokens."""
    columns = np.array([[1.0, -math.log(p.weights), -math.log(p.tokens)] for p in points])
    found, _, rank, _ = np.linalg.lstsq(columns, np.log([p.bits for p in points]), rcond=None)
    if rank < 3:
        raise TrainingError("The models do not tell size from tokens: add one of another size, and one of more tokens.")
    return Law(*(float(value) for value in found))


def rows(points: Sequence[Point], planned: Sequence[tuple[str, float, float]]) -> list[Row]:
    """Each point, what the law through the *others* says of it, and the planned runs if that came true for all.

    A law that misses a point it has not seen by more than TRUSTED says nothing of runs farther away.
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
    return [*made, Row("scaling/alpha", "law", law.alpha), Row("scaling/beta", "law", law.beta)]


def _from_the_others(points: Sequence[Point], left_out: Point) -> float:
    try:
        return fit([point for point in points if point is not left_out]).bits(left_out.weights, left_out.tokens)
    except TrainingError:
        return math.inf
