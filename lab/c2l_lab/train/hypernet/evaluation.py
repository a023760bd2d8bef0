"""Is an adapter its repository's? Own, mean and others' adapters on tuning repositories, on files no state holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from c2l_lab.train.hypernet.batched_lora import Pairs, mean_of, measured, rows_of, squared_norm
from c2l_lab.train.hypernet.data import Repo
from c2l_lab.train.hypernet.network import Network, State, state
from c2l_lsp.model.lm.base import BaseModel


@dataclass(frozen=True)
class Judgement:
    """nat/token against the bare base, means over repositories; `rank` of the own adapter among itself and `others`."""

    own: float
    mean: float
    other: float
    rank: float
    worst: float
    norm: float  # ‖ΔW‖, mean over repositories

    @property
    def own_minus_mean(self) -> float:
        """What conditioning adds."""
        return self.own - self.mean

    @property
    def score(self) -> float:
        """What checkpoints are chosen by, the lower the better: the gain, and what of it is the repository's own.

        Conditioning alone would choose a network that was never trained over one that collapsed: neither is a success,
        and only the second does anything.
        """
        return self.own + self.own_minus_mean

    def to_json(self) -> dict[str, float]:
        """Names and rounded numbers."""
        plain = {**vars(self), "own_minus_mean": self.own_minus_mean, "score": self.score}
        return {name: round(value, 5) for name, value in plain.items()}


class Judge:
    """Fixed states and targets of tuning repositories, and the bare loss on them, measured once."""

    def __init__(self, model: BaseModel, repositories: Sequence[Repo], targets: int = 6, others: int = 2) -> None:
        """Up to `targets` windows of each repository."""
        if len(repositories) < 2:
            raise ValueError("Own and mean cannot be told apart on fewer than two repositories.")
        self._model, self._others = model, min(others, len(repositories) - 1)
        self._states: list[State] = []
        rows, owner = [], []
        for number, repo in enumerate(repositories):
            step = max(1, len(repo.ids) // targets)
            rows.append(repo.ids[::step][:targets])
            owner += [number] * len(rows[-1])
            self._states.append(_held_state(repo))
        self._ids, self._owner = torch.cat(rows), torch.tensor(owner)
        self._bare = self._by_repository(measured(model, self._ids, None, 1.0))

    @torch.no_grad()
    def __call__(self, network: Network) -> Judgement:
        """Measure a network."""
        training = network.training
        network.eval()
        pairs, scale = network(self._states), network.scale
        network.train(training)
        own = self._under(pairs, scale, 0)
        mean = self._by_repository(measured(self._model, self._ids, mean_of(pairs), scale)) - self._bare
        others = torch.stack([self._under(pairs, scale, shift) for shift in range(1, self._others + 1)])
        norm = squared_norm(pairs, scale, network.layers).sqrt().mean()
        rank = 1 + (others < own).float().sum(0)
        return Judgement(
            float(own.mean()),
            float(mean.mean()),
            float(others.mean()),
            float(rank.mean()),
            float(own.max()),
            float(norm),
        )

    def _under(self, pairs: Pairs, scale: float, shift: int) -> Tensor:
        """Loss against bare by repository, each under the adapter `shift` places on."""
        rows = (self._owner + shift) % len(self._states)
        return self._by_repository(measured(self._model, self._ids, rows_of(pairs, rows), scale)) - self._bare

    def _by_repository(self, losses: Tensor) -> Tensor:
        sums = torch.zeros(len(self._states)).index_add(0, self._owner, losses)
        return sums / torch.bincount(self._owner, minlength=len(self._states))


def _held_state(repo: Repo) -> State:
    """Everything but the predicted files and their near-duplicates; for `evo` all diffs (they never hold targets)."""
    if len(repo.diffs):
        return state(repo, torch.ones(len(repo.files), dtype=torch.bool), len(repo.diffs))
    return state(repo, ~repo.near[torch.unique(repo.owner.long())].any(0), 0)
