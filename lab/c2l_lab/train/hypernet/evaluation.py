"""Measures whether adapters are specific to their repositories, on held-out files of tuning repositories.

Each repository is scored with its own adapter, with the mean of all adapters and with those of other repositories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from c2l_lab.train.hypernet.batched_lora import Pairs, mean_adapter, row_losses, select_rows, squared_norm
from c2l_lab.train.hypernet.data import Repo
from c2l_lab.train.hypernet.network import Network, State, state_of
from c2l_lsp.model.lm.base import BaseModel


@dataclass(frozen=True)
class Evaluation:
    """Loss changes in nat/token against the base model, means over repositories. The JSON names are stored in logs."""

    own: float  # with the repository's own adapter
    mean: float  # with the mean of all adapters
    other: float  # with adapters of other repositories
    rank: float  # of the own adapter among itself and the others; 1 is best
    worst: float  # largest `own` of any repository
    norm: float  # ‖ΔW‖

    @property
    def own_minus_mean(self) -> float:
        """The gain from conditioning on the repository."""
        return self.own - self.mean

    @property
    def score(self) -> float:
        """Criterion for checkpoints, lower is better: the loss change with the own adapter.

        Adding the gain from conditioning would prefer adapters that harm the own repository less than others.
        """
        return self.own

    def to_json(self) -> dict[str, float]:
        """All fields and properties, rounded."""
        plain = {**vars(self), "own_minus_mean": self.own_minus_mean, "score": self.score}
        return {name: round(value, 5) for name, value in plain.items()}


class Evaluator:
    """Fixed states and targets of tuning repositories; the loss of the base model on them is computed once."""

    def __init__(
        self, model: BaseModel, repositories: Sequence[Repo], targets: int = 6, others: int = 2, prefix: int = 0
    ) -> None:
        """Use up to `targets` windows of each repository and `others` adapters of other repositories.

        The first `prefix` positions of a window are not scored.
        """
        if len(repositories) < 2:
            raise ValueError("An evaluation needs at least two repositories; with one, own and mean adapter are equal.")
        self._model, self._others, self._prefix = model, min(others, len(repositories) - 1), prefix
        self._states: list[State] = []
        rows, owners = [], []
        for number, repo in enumerate(repositories):
            step = max(1, len(repo.ids) // targets)
            rows.append(repo.ids[::step][:targets])
            owners += [number] * len(rows[-1])
            self._states.append(_held_state(repo))
        self._ids, self._owner = torch.cat(rows), torch.tensor(owners)
        self._base = self._by_repository(self._losses(None, 1.0))

    @torch.no_grad()
    def __call__(self, network: Network) -> Evaluation:
        """Evaluate a network."""
        training = network.training
        network.eval()
        pairs, scale = network(self._states), network.scale
        network.train(training)
        own = self._change(pairs, scale, 0)
        mean = self._by_repository(self._losses(mean_adapter(pairs), scale)) - self._base
        others = torch.stack([self._change(pairs, scale, shift) for shift in range(1, self._others + 1)])
        norm = squared_norm(pairs, scale, network.layers).sqrt().mean()
        rank = 1 + (others < own).float().sum(0)
        return Evaluation(
            float(own.mean()),
            float(mean.mean()),
            float(others.mean()),
            float(rank.mean()),
            float(own.max()),
            float(norm),
        )

    def _change(self, pairs: Pairs, scale: float, shift: int) -> Tensor:
        """Loss change by repository, with the adapter of the repository `shift` places further."""
        rows = (self._owner + shift) % len(self._states)
        return self._by_repository(self._losses(select_rows(pairs, rows), scale)) - self._base

    def _losses(self, pairs: Pairs | None, scale: float) -> Tensor:
        return row_losses(self._model, self._ids, pairs, scale, prefix=self._prefix)

    def _by_repository(self, losses: Tensor) -> Tensor:
        sums = torch.zeros(len(self._states)).index_add(0, self._owner, losses)
        return sums / torch.bincount(self._owner, minlength=len(self._states))


def _held_state(repo: Repo) -> State:
    """The files that are neither predicted nor near-duplicates; for `evo` all diffs, which never contain targets."""
    if len(repo.diffs):
        return state_of(repo, torch.ones(len(repo.files), dtype=torch.bool), len(repo.diffs))
    return state_of(repo, ~repo.near[torch.unique(repo.owner.long())].any(0), 0)
