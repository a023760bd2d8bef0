"""Fits the mixture gate on rows of training repositories, and measures it on rows of tuning repositories.

The likelihood of the mixture is smooth in the weights of the gate, so L-BFGS finds them. Every repository has the same
weight, and half of it goes to requests where the model can fill in. The numbers of the two scores are constants that
were chosen on the tuning list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from c2l_lab.train.memory.held_out import BINS
from c2l_lab.train.memory.mixture_rows import FORMS, Rows
from c2l_lsp.model.adapter.mixture import FEATURES, MAX_MEMORY_WEIGHT, VECTOR_SIZE, Float64Array, MixtureGate

HIDDEN = 16

_PENALTY = 1e-4  # on the squared weights of standardised features: of equally good fits the smaller one
_LEAST_SPREAD = 1e-3  # a feature that hardly varies is not blown up
_ITERATIONS = 120


def untrained() -> MixtureGate:
    """The numbers of both scores, and a gate of zeros."""
    scores = [0.6, 2.0, 2.0, 0.25, 0.05, 0.6]
    return MixtureGate.from_vector([*scores, *[0.0] * (VECTOR_SIZE - len(scores))])


@dataclass
class _Network:
    """The gate on standardised features, as tensors that a gradient can reach."""

    W: Tensor
    c: Tensor
    V: Tensor
    b: Tensor

    @classmethod
    def random(cls, seed: int) -> _Network:
        generator = torch.Generator().manual_seed(seed)
        W = torch.randn(HIDDEN, len(FEATURES), dtype=torch.float64, generator=generator) / len(FEATURES) ** 0.5
        V = 0.1 * torch.randn(2, HIDDEN, dtype=torch.float64, generator=generator)
        made = cls(W, torch.zeros(HIDDEN, dtype=torch.float64), V, torch.full((2,), -2.0, dtype=torch.float64))
        for tensor in made.tensors():
            tensor.requires_grad_(True)
        return made

    def tensors(self) -> list[Tensor]:
        return [self.W, self.c, self.V, self.b]

    def gate(self, mean: Tensor, spread: Tensor) -> MixtureGate:
        """The gate on features as they are."""
        W = self.W.detach() / spread
        biases = self.c.detach() - W @ mean
        V, b = self.V.detach(), self.b.detach()
        return replace(
            untrained(), hidden_weights=W.numpy(), hidden_biases=biases.numpy(), output_weights=V.numpy(),
            output_biases=b.numpy(),
        )  # fmt: skip


def memory_weights(z: Tensor, present: Tensor, strength: float = 1.0) -> Tensor:
    """(w_tok, w_key) [n, 2] of outputs z [n, 2]: `MixtureGate.weights` for many positions, with gradients."""
    odds = z.clamp(-30, 30).exp() * present
    weights = strength * odds / (1 + odds.sum(1, keepdim=True))
    return weights * (MAX_MEMORY_WEIGHT / weights.sum(1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)


def fit(repositories: Sequence[Rows], *, dropped: Sequence[str] = (), seed: int = 0) -> MixtureGate:
    """The gate with the lowest mean loss over repositories; the features named in `dropped` are not used."""
    features = torch.from_numpy(np.concatenate([rows.features for rows in repositories]))
    present = torch.from_numpy(np.concatenate([rows.present for rows in repositories])).double()
    target = torch.from_numpy(np.concatenate([rows.target for rows in repositories]))
    share = torch.from_numpy(np.concatenate([_shares(rows) for rows in repositories]))
    used = torch.tensor([name not in dropped for name in FEATURES]).double()
    mean, spread = features.mean(0), features.std(0).clamp(min=_LEAST_SPREAD)
    standard = (features - mean) / spread * used
    network = _Network.random(seed)
    optimiser = torch.optim.LBFGS(
        network.tensors(), max_iter=_ITERATIONS, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        z = torch.tanh(standard @ network.W.T + network.c) @ network.V.T + network.b
        loss = (_change(memory_weights(z, present), target) * share).sum() / len(repositories)
        loss = loss + _PENALTY * (network.W.square().sum() + network.V.square().sum())
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        network.W *= used
    return network.gate(mean, spread)


def _shares(rows: Rows) -> Float64Array:
    """The weights of the rows of one repository [n]: every form that occurs has the same part of 1."""
    counts = np.bincount(rows.form, minlength=len(FORMS))
    shares: Float64Array = 1 / counts[rows.form] / np.count_nonzero(counts)
    return shares


def _change(weights: Tensor, target: Tensor) -> Tensor:
    """Change of the loss against the base model alone [n], in nat."""
    p, votes = target[:, 0], target[:, 1:]
    return -(1 - weights.sum(1) + (weights * votes).sum(1) / p).log()


def _weights(gate: MixtureGate, rows: Rows, strength: float) -> Float64Array:
    """`MixtureGate.weights` of all rows [n, 2]."""
    hidden = np.tanh(rows.features @ gate.hidden_weights.T + gate.hidden_biases)
    z = torch.from_numpy(hidden @ gate.output_weights.T + gate.output_biases)
    result: Float64Array = memory_weights(z, torch.from_numpy(rows.present).double(), strength).numpy()
    return result


def change(gate: MixtureGate, rows: Rows, strength: float = 1.0) -> float:
    """Mean change of the loss against the base model alone, in nat/token."""
    return float(_change(torch.from_numpy(_weights(gate, rows, strength)), torch.from_numpy(rows.target)).mean())


def interval(values: Sequence[float], samples: int = 4000) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean over repositories."""
    array, rng = np.array(values), np.random.default_rng(0)
    means = array[rng.integers(0, len(array), (samples, len(array)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def calibration_error(gate: MixtureGate, repositories: Sequence[Rows]) -> float:
    """Expected calibration error of the mixture's most likely token in BINS bins; repositories have the same weight.

    The most likely token is sought among the favourites of the three experts.
    """
    confidence, right, share = list[Float64Array](), list[Float64Array](), list[Float64Array]()
    for rows in repositories:
        weights = _weights(gate, rows, 1.0)
        experts = np.concatenate([1 - weights.sum(1, keepdims=True), weights], 1)
        probabilities = (rows.favourites * experts[:, None, :]).sum(2)
        best = probabilities.argmax(1)[:, None]
        confidence.append(np.take_along_axis(probabilities, best, 1)[:, 0])
        right.append(np.take_along_axis(rows.right, best, 1)[:, 0].astype(np.float64))
        share.append(np.full(len(best), 1 / len(best) / len(repositories)))
    c, r, s = (np.concatenate(parts) for parts in (confidence, right, share))
    bins = np.minimum((c * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(bins, s * (c - r), minlength=BINS)).sum())


def ablation(train: Sequence[Rows], tune: Sequence[Rows], report: Callable[[str], None]) -> None:
    """Report the change of the loss on `tune` of the whole gate, and of gates fitted without each feature."""
    for name in (None, *FEATURES):
        gate = fit(train, dropped=() if name is None else (name,))
        changes = [change(gate, rows) for rows in tune]
        report(f"{'all features' if name is None else f'without {name}'}: {row(changes)}")


def row(changes: Sequence[float]) -> str:
    """Mean, interval and worst repository."""
    low, high = interval(changes)
    return f"{np.mean(changes):+.4f} [{low:+.4f}, {high:+.4f}], worst {max(changes):+.4f} nat/token"
