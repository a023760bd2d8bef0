"""Estimate the prior of `memory` for a base model: curvature and mean from training text, steps from tuning text.

No gradient descent: P and Q are damped K-FAC inverses over a sample of training tokens, the mean is the average S/n of
training repositories, and the few scalars are chosen on tuning repositories by the loss on files the state did not see.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from c2l_lsp.errors import TrainingError
from c2l_lsp.model.base import BaseModel
from c2l_lsp.model.memory import Memory, errors
from c2l_lsp.model.prior import Curvature, MemoryPrior, Steps, estimate
from c2l_lsp.train.corpus import Document

Say = Callable[[str], None]


@torch.inference_mode()
def curvature(model: BaseModel, documents: Iterable[Document], tokens: int, seed: int = 0) -> Curvature:
    """K-FAC factors over about `tokens` positions, a few chunks from each of many repositories."""
    by_repository: dict[str, list[str]] = defaultdict(list)
    for document in documents:
        by_repository[document.repo].append(document.text)
    if not by_repository:
        raise TrainingError("There is no training text to estimate a prior from.")
    dice, seen = random.Random(seed), Curvature.zeros(model.d)  # noqa: S311 - a sample, not a secret
    names = sorted(by_repository)
    while seen.n < tokens:
        text = dice.choice(by_repository[dice.choice(names)])
        begin = dice.randrange(max(1, len(text) - 2400))
        found = errors(model, [text[begin : begin + 2400]])
        seen.add(found.e, found.h)
    return seen


@torch.inference_mode()
def repository_means(
    model: BaseModel, documents: Iterable[Document], repositories: int, chars: int, say: Say
) -> list[torch.Tensor]:
    """S/n [d, d] of a number of training repositories, `chars` characters each."""
    identity = torch.eye(model.d)
    memory = Memory(model, MemoryPrior(identity, identity, torch.zeros(model.d, model.d)))
    texts: dict[str, list[str]] = defaultdict(list)
    for document in documents:
        if sum(map(len, texts[document.repo])) < chars:
            texts[document.repo].append(document.text[:chars])
    chosen = sorted(texts)
    random.Random(0).shuffle(chosen)  # noqa: S311
    means = []
    for number, name in enumerate(chosen[:repositories]):
        pieces = [piece for text in texts[name] for piece in memory.pieces(text)]
        total, n = torch.zeros(model.d, model.d, dtype=torch.float64), 0.0
        for start in range(0, len(pieces), 12):
            found = errors(model, [piece.text for piece in pieces[start : start + 12]])
            total += (found.e.T @ found.h).double().cpu()
            n += len(found.e)
        if n:
            means.append((total / n).float())
        say(f"{number + 1}/{min(repositories, len(chosen))} {name}")
    return means


def with_steps(prior: MemoryPrior, **changes: float) -> MemoryPrior:
    """The same prior with other scalars."""
    return replace(prior, steps=replace(prior.steps, **changes))


def make_prior(
    model: BaseModel, documents: list[Document], *, tokens: int, repositories: int, chars: int, say: Say
) -> MemoryPrior:
    """A prior with default steps; the scalars are tuned afterwards on other repositories."""
    means = repository_means(model, documents, repositories, chars, say)
    return estimate(curvature(model, documents, tokens), steps=Steps(), means=means)
