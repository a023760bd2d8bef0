"""Which targets and states a step sees: a pure function of seed and step, so that a resumed run draws the same."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from c2l_lab.train.hypernet.data import Repo
from c2l_lab.train.hypernet.network import State, state
from c2l_lab.train.hypernet.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """Row n: a state, a target ids [N, T + 1] of the same repository, related code [N, T] of it (None: not asked)."""

    states: list[State]
    ids: Tensor
    related: Tensor | None


def draw(repositories: Sequence[Repo], recipe: Recipe, step: int, shard: tuple[int, int] = (0, 1)) -> Batch:
    """The batch of a step for one of several processes: distinct repositories, one target each."""
    dice = random.Random(f"{recipe.seed}/{step}")  # noqa: S311 - the same draw in every run
    index, count = shard
    chosen = dice.sample(range(len(repositories)), min(recipe.repositories, len(repositories)))[index::count]
    states, rows, related = [], [], []
    for number in chosen:
        repo, own = repositories[number], random.Random(f"{recipe.seed}/{step}/{number}")  # noqa: S311
        row = own.randrange(len(repo.ids))
        rows.append(repo.ids[row])
        states.append(aged(repo, row, own) if len(repo.diffs) else thinned(repo, row, recipe.drop, own))
        related.append(relative(repo, row) if recipe.kl else repo.ids[row][:-1])
    return Batch(states, torch.stack(rows).long(), torch.stack(related).long() if recipe.kl else None)


def thinned(repo: Repo, row: int, drop: float, dice: random.Random) -> State:
    """Without the target's file and its near-duplicates, and without up to a share `drop` of the others."""
    allowed = (~repo.near[int(repo.owner[row])]).nonzero()[:, 0].tolist()
    if not allowed:  # every file is nearly the target: an empty state, whose embedding is zero
        return state(repo, torch.zeros(len(repo.files), dtype=torch.bool), 0)
    kept = dice.sample(allowed, max(1, round(len(allowed) * (1 - dice.random() * drop))))
    mask = torch.zeros(len(repo.files), dtype=torch.bool)
    mask[kept] = True
    return state(repo, mask, 0)


def aged(repo: Repo, row: int, dice: random.Random) -> State:
    """After the target's commit, or with even odds some commits before it."""
    came = int(repo.owner[row])
    age = came if dice.random() < 0.5 else dice.randrange(came + 1)
    return state(repo, torch.ones(len(repo.files), dtype=torch.bool), age)


def relative(repo: Repo, row: int) -> Tensor:
    """The window of another, not nearly equal file that shares most tokens with the target's first half."""
    target, owner = repo.ids[row], int(repo.owner[row])
    asked = set(target[: len(target) // 2].tolist())
    others = [i for i in range(len(repo.ids)) if i != row and not _same(repo, int(repo.owner[i]), owner)]
    if not others:
        return target[:-1]
    return repo.ids[max(others, key=lambda i: len(asked.intersection(repo.ids[i].tolist())))][:-1]


def _same(repo: Repo, a: int, b: int) -> bool:
    return a == b if len(repo.diffs) else bool(repo.near[b, a])
