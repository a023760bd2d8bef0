"""Draws the targets and states of a step, as a function of seed and step: a resumed run draws the same batches."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from c2l_lab.train.hypernet.data import Repo
from c2l_lab.train.hypernet.network import State, state_of
from c2l_lab.train.hypernet.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """N states, a target of the same repository for each (ids [N, T + 1]), and related code [N, T] or None."""

    states: list[State]
    ids: Tensor
    related: Tensor | None


def draw_batch(repositories: Sequence[Repo], recipe: Recipe, step: int, shard: tuple[int, int] = (0, 1)) -> Batch:
    """The batch of a step: distinct repositories with one target each. `shard` is (rank, number of processes)."""
    rng = random.Random(f"{recipe.seed}/{step}")  # noqa: S311 - the same draw in every run
    index, count = shard
    chosen = rng.sample(range(len(repositories)), min(recipe.repositories, len(repositories)))[index::count]
    states, rows, related = [], [], []
    for number in chosen:
        repo, own_rng = repositories[number], random.Random(f"{recipe.seed}/{step}/{number}")  # noqa: S311
        row = own_rng.randrange(len(repo.ids))
        rows.append(repo.ids[row])
        states.append(
            state_with_diffs(repo, row, own_rng)
            if len(repo.diffs)
            else state_without_target(repo, row, recipe.drop, own_rng)
        )
        related.append(related_window(repo, row) if recipe.kl else repo.ids[row][:-1])
    return Batch(states, torch.stack(rows).long(), torch.stack(related).long() if recipe.kl else None)


def state_without_target(repo: Repo, row: int, drop: float, rng: random.Random) -> State:
    """The state without the target's file, its near-duplicates, and up to a share `drop` of the other files."""
    allowed = (~repo.near[int(repo.owner[row])]).nonzero()[:, 0].tolist()
    if not allowed:  # all files are near-duplicates: an empty state, whose embedding is zero
        return state_of(repo, torch.zeros(len(repo.files), dtype=torch.bool), 0)
    kept = rng.sample(allowed, max(1, round(len(allowed) * (1 - rng.random() * drop))))
    mask = torch.zeros(len(repo.files), dtype=torch.bool)
    mask[kept] = True
    return state_of(repo, mask, 0)


def state_with_diffs(repo: Repo, row: int, rng: random.Random) -> State:
    """The state after the target's commit, or with probability 1/2 after a random number of earlier diffs."""
    own_age = int(repo.owner[row])
    age = own_age if rng.random() < 0.5 else rng.randrange(own_age + 1)
    return state_of(repo, torch.ones(len(repo.files), dtype=torch.bool), age)


def related_window(repo: Repo, row: int) -> Tensor:
    """The window of another file that shares most tokens with the target's first half; no near-duplicate."""
    target, owner = repo.ids[row], int(repo.owner[row])
    wanted = set(target[: len(target) // 2].tolist())
    others = [i for i in range(len(repo.ids)) if i != row and not _too_similar(repo, int(repo.owner[i]), owner)]
    if not others:
        return target[:-1]
    return repo.ids[max(others, key=lambda i: len(wanted.intersection(repo.ids[i].tolist())))][:-1]


def _too_similar(repo: Repo, a: int, b: int) -> bool:
    return a == b if len(repo.diffs) else bool(repo.near[b, a])
