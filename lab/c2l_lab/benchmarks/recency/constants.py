"""The best constants of the recent memory: decay, step size, shrinkage and fading, by the loss on the next commits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from c2l_lab.benchmarks.recency.replay import (
    Replay,
    Step,
    mean_by_repository,
    next_loss,
    recent_direction,
    recent_weight,
)
from c2l_lsp.model.hypernet.prior import PriorScalars

Report = Callable[[str], None]

DECAYS = (0.0, 0.5, 0.8, 0.95, 1.0)
GRID = {
    "eta_recent": (0.0, 0.01, 0.02, 0.04, 0.06, 0.09),
    "n0_recent": (50.0, 200.0, 800.0, 3200.0),
    "fade_recent": (100.0, 300.0, 1000.0, 1e9),
}
_ORDER = ("fade_recent", "n0_recent", "eta_recent")


@dataclass(frozen=True)
class Constants:
    """A decay γ and the scalars of the recent memory; β = 1."""

    decay: float
    scalars: PriorScalars


class Follower:
    """The directions of the recent memory under one decay, which do not depend on the other constants."""

    def __init__(self, replays: Sequence[Replay], decay: float, scalars: PriorScalars) -> None:
        self._moves: list[list[tuple[Tensor, Tensor, Step]]] = []
        with torch.inference_mode():
            for one in replays:
                recent = torch.zeros_like(one.steps[0].dS)
                moves = []
                for step in one.steps:
                    recent = decay * recent + step.dS
                    if not len(step.targets):
                        continue
                    direction, n_rec = recent_direction(step, recent, scalars)
                    moves.append((step.hidden @ direction.T, n_rec, step))
                self._moves.append(moves)

    @torch.inference_mode()
    def losses(self, head: Tensor, scalars: PriorScalars) -> list[float]:
        """The mean loss of each repository."""
        found = []
        for moves in self._moves:
            rows = []
            for moved, n_rec, step in moves:
                loss = next_loss(head, step.mapped + recent_weight(n_rec, scalars) * moved, step)
                rows.append((float(loss), len(step.targets)))
            found.append(rows)
        return mean_by_repository(found)


def best_constants(replays: Sequence[Replay], head: Tensor, scalars: PriorScalars, report: Report) -> Constants:
    """The constants with the lowest mean loss over repositories: for each decay a coordinate search of the others."""
    best: tuple[float, Constants] | None = None
    for decay in DECAYS:
        follower = Follower(replays, decay, scalars)
        here = scalars
        for name in _ORDER:
            tried = [(_mean(follower.losses(head, replace(here, **{name: v}))), v) for v in GRID[name]]
            loss, value = min(tried)
            here = replace(here, **{name: value})
        report(f"decay {decay:g}: {loss:.5f} with {here.eta_recent:g}, {here.n0_recent:g}, {here.fade_recent:g}")
        if best is None or loss < best[0]:
            best = loss, Constants(decay, here)
    assert best is not None  # noqa: S101 - DECAYS is not empty
    return best[1]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
