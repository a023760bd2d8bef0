"""A GRU over the batches of a commit stream, trained to set decay, write strength and weight of the recent memory.

    g' = GRU([features, cos(ΔS, S_rec)], g)      γ, β, m = σ(a), 2 σ(b), exp(c)      a, b, c: linear in g'
    S_rec ← γ S_rec + β ΔS                       the recent part of the final map is multiplied by m

The linear map starts at zero weights, so an untrained gate is the best constants. Training unrolls the whole stream
(backpropagation through time over all its batches) and minimises the base model's loss on the lines that each next
commit adds. Such a gate controls a fast-weight memory in the sense of arXiv 2102.11174.

S_rec is a weighted sum of the changes, S_rec = Σ w_s ΔS_s. Norms and cosines follow from the Gram matrix of the
changes. The shift of a hidden state is a sum of shifts that are computed once, if clipping is taken as the linear map
that it is under the constants. Training uses that; selection and results use the exact final map.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from c2l_lab.benchmarks.recency.constants import Constants
from c2l_lab.benchmarks.recency.replay import (
    FEATURES,
    Replay,
    clip_factor,
    mean_by_repository,
    next_loss,
    recent_direction,
    recent_weight,
)

Report = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """`weighted`: the gate also sets m. `projected`: inputs include this many coordinates of the preconditioned ΔS."""

    name: str
    weighted: bool = False
    projected: int = 0
    hidden: int = 16
    rate: float = 5e-3
    epochs: int = 6
    repositories: int = 4  # per optimiser step
    norm: float = 1e-3  # weight of the squared distance of a, b, c from their constants
    seed: int = 0


@dataclass(frozen=True)
class Unrolled:
    """A replay prepared for a gate: inputs [T, …], Gram matrix [T, T] of the changes over token_energy, and shifts.

    shifts[t] [t + 1, N, d]: how each earlier change moves the hidden states scored after batch t, before division by
    n_rec.
    """

    replay: Replay
    inputs: Tensor
    gram: Tensor
    shifts: list[Tensor]


class RecencyGate(nn.Module):
    """The gate of a recipe. `basis` [projected, R·R] are the directions of ΔS that it reads."""

    def __init__(self, recipe: Recipe, constants: Constants, replays: Sequence[Replay]) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.recipe, self.constants = recipe, constants
        self.basis: Tensor
        self.mean: Tensor
        self.deviation: Tensor
        self.start: Tensor
        self.register_buffer("basis", _principal(replays, recipe.projected))
        rows = torch.cat([self._inputs(one) for one in replays])
        self.register_buffer("mean", rows.mean(0))
        self.register_buffer("deviation", rows.std(0).clamp(min=1e-3))
        self.cell = nn.GRUCell(FEATURES + recipe.projected + 1, recipe.hidden)
        self.head = nn.Linear(recipe.hidden, 3)
        decay = min(max(constants.decay, 0.02), 0.98)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.copy_(torch.tensor([math.log(decay / (1 - decay)), 0.0, 0.0]))
        self.register_buffer("start", self.head.bias.detach().clone())

    @torch.no_grad()
    def unroll(self, replay: Replay, *, shifts: bool) -> Unrolled:
        """A replay prepared for this gate; without `shifts` it cannot be trained on."""
        scalars, recent = self.constants.scalars, torch.zeros_like(replay.steps[0].dS)
        moves = torch.stack([step.dS.flatten() for step in replay.steps])
        gram = moves @ moves.T / scalars.token_energy
        found: list[Tensor] = []
        for at, step in enumerate(replay.steps if shifts else ()):
            recent = self.constants.decay * recent + step.dS
            left = clip_factor(step.P @ recent @ step.Q, scalars.clip) @ step.P
            turned = step.hidden @ step.Q.T
            found.append(torch.stack([(turned @ earlier.dS.T) @ left.T for earlier in replay.steps[: at + 1]]))
        return Unrolled(replay, (self._inputs(replay) - self.mean) / self.deviation, gram, found)

    def forward(self, inputs: Tensor, gram: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Weights w [t + 1] of the changes after each batch t, m [T], and the squared distance from the constants."""
        g, w = torch.zeros(1, self.recipe.hidden), torch.zeros(0)
        weights, factors, away = [], [], torch.zeros(())
        for at, row in enumerate(inputs):
            energy = (w @ gram[:at, :at] @ w * gram[at, at]).clamp(min=1e-9).sqrt()
            cosine = gram[at, :at] @ w / energy
            g = self.cell(torch.cat([row, cosine.detach()[None]])[None], g)
            a, b, c = self.head(g)[0]
            away = away + (torch.stack([a, b, c]) - self.start).square().sum() / len(inputs)
            w = torch.cat([torch.sigmoid(a) * w, 2 * torch.sigmoid(b)[None]])
            weights.append(w)
            factors.append(c.clamp(-2, 2).exp() if self.recipe.weighted else torch.ones(()))
        return weights, torch.stack(factors), away

    def loss(self, one: Unrolled, head: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss over the scored tokens of a stream, and the squared distance from the constants."""
        scalars = self.constants.scalars
        weights, factors, away = self(one.inputs, one.gram)
        total, count = torch.zeros(()), 0
        for at, (step, w) in enumerate(zip(one.replay.steps, weights, strict=True)):
            if not (n := len(step.targets)):
                continue
            n_rec = (w @ one.gram[: at + 1, : at + 1] @ w).clamp(min=1e-9)
            shift = torch.einsum("s,snd->nd", w / n_rec, one.shifts[at])
            moved = step.mapped + factors[at] * recent_weight(n_rec, scalars) * shift
            total, count = total + n * next_loss(head, moved, step), count + n
        return total / max(1, count), away

    @torch.no_grad()
    def maps(self, replay: Replay) -> list[Tensor]:
        """The recent part [R, R] of the final map after each batch."""
        one, scalars, found = self.unroll(replay, shifts=False), self.constants.scalars, []
        weights, factors, _ = self(one.inputs, one.gram)
        for at, (step, w) in enumerate(zip(replay.steps, weights, strict=True)):
            recent = sum((v * earlier.dS for v, earlier in zip(w, replay.steps, strict=False)), torch.zeros(()))
            direction, n_rec = recent_direction(step, recent, scalars)
            found.append(factors[at] * recent_weight(n_rec, scalars) * direction)
        return found

    @torch.no_grad()
    def losses(self, replays: Sequence[Replay], head: Tensor) -> list[float]:
        """The mean loss of each repository, with the exact final map."""
        found = []
        for one in replays:
            pairs = [(s, C) for s, C in zip(one.steps, self.maps(one), strict=True) if len(s.targets)]
            rows = [(float(next_loss(head, s.mapped + s.hidden @ C.T, s)), len(s.targets)) for s, C in pairs]
            found.append(rows)
        return mean_by_repository(found)

    def _inputs(self, replay: Replay) -> Tensor:
        """The features [T, FEATURES + projected] that do not depend on the gate."""
        if not len(self.basis):
            return replay.features
        moves = torch.stack([_normed(step.P @ step.dS @ step.Q) for step in replay.steps])
        return torch.cat([replay.features, moves @ self.basis.T], dim=1)


def train(
    recipe: Recipe,
    constants: Constants,
    replays: Sequence[Replay],
    tune: Sequence[Replay],
    head: Tensor,
    report: Report,
) -> tuple[RecencyGate, float]:
    """The gate with the lowest mean loss on the tuning repositories after any epoch, and that loss."""
    gate = RecencyGate(recipe, constants, replays)
    unrolled = [gate.unroll(one, shifts=True) for one in replays]
    optimiser = torch.optim.Adam(gate.parameters(), lr=recipe.rate)
    rng = random.Random(recipe.seed)  # noqa: S311 - an order of training
    best, kept = _mean(gate.losses(tune, head)), copy.deepcopy(gate.state_dict())
    report(f"{recipe.name}: tune {best:.5f} before training")
    for epoch in range(recipe.epochs):
        order = rng.sample(range(len(replays)), len(replays))
        seen = []
        for start in range(0, len(order), recipe.repositories):
            optimiser.zero_grad(set_to_none=True)
            chosen = order[start : start + recipe.repositories]
            for index in chosen:
                loss, away = gate.loss(unrolled[index], head)
                ((loss + recipe.norm * away) / len(chosen)).backward()  # type: ignore[no-untyped-call]
                seen.append(float(loss.detach()))
            nn.utils.clip_grad_norm_(gate.parameters(), 1.0)
            optimiser.step()
        loss_now = _mean(gate.losses(tune, head))
        report(f"{recipe.name}: epoch {epoch + 1}, train {_mean(seen):.5f}, tune {loss_now:.5f}")
        if loss_now < best:
            best, kept = loss_now, copy.deepcopy(gate.state_dict())
    gate.load_state_dict(kept)
    return gate, best


@torch.no_grad()
def _principal(replays: Sequence[Replay], count: int) -> Tensor:
    """The leading `count` right singular vectors [count, R·R] of the normalised, preconditioned changes."""
    if not count:
        return torch.zeros(0, 0)
    rows = torch.stack([_normed(step.P @ step.dS @ step.Q) for one in replays for step in one.steps[::3]])
    rows = rows - rows.mean(0)
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    return (vectors[:, -count:].T @ rows) / values[-count:].clamp(min=1e-9).sqrt()[:, None]


def _normed(matrix: Tensor) -> Tensor:
    return torch.nn.functional.normalize(matrix.flatten(), dim=0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
