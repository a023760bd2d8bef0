"""Fit how far recall is believed (`MixtureGate`): on files of tuning repositories, under states that did not see them.

λ is a logistic function of a few features, and the likelihood of the mixture is smooth in its weights: they are found
by L-BFGS for each pair (τ, ρ) of a small grid. Every repository counts the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from c2l_lab.corpus.corpus import Document
from c2l_lab.train.memory.held_out import Scored, score_sites, state_of, subjects
from c2l_lsp.model.adapter.knn_lm import KnnMemory, MixtureGate, Neighbours, compute_keys
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory

TEMPERATURES = (0.03, 0.05, 0.07, 0.1, 0.14)
RUNS = (0.4, 0.6, 0.8, 1.1)
_PREFIX, _SITES = 512, 2500
_PENALTY = 1e-4  # on squared weights: among equal fits the smaller


@dataclass(frozen=True)
class Sight:
    """One position to score: its candidates, what the base says, and the next token."""

    found: Neighbours
    top: float
    token: int
    base: float
    target: int


@torch.inference_mode()
def sights(
    memory: GradientMemory, documents: Iterable[Document], say: Callable[[str], None]
) -> list[list[Sight | float]]:
    """Per tuning repository its positions; a bare number is the base's probability where there is no candidate.

    States hold 250,000 characters, the most an engine learns of a folder by default.
    """
    out = []
    for subject in subjects(documents, memory_chars=250_000):
        scored = score_sites(memory.model, subject, _PREFIX, _SITES)
        if len(scored.targets) < 500:
            continue
        adapter = memory.generate(state_of(memory, subject.memory))
        if adapter.knn is None:
            continue
        out.append(_sights(memory, adapter.knn, adapter.final_map, scored))
        say(f"{subject.name}: {len(out[-1])} positions, {len(adapter.knn.keys)} recalled")
    return out


def _sights(memory: GradientMemory, recall: KnnMemory, C: Tensor | None, scored: Scored) -> list[Sight | float]:
    keys = compute_keys(recall.basis, scored.hidden).cpu().numpy()
    made: list[Sight | float] = []
    for start in range(0, len(keys), 512):
        rows = slice(start, start + 512)
        h = scored.hidden[rows]
        logits = memory.model.logits(h if C is None else h + (h.float() @ C.T).to(h.dtype)).float()
        p = torch.softmax(logits, -1)
        tops, tokens = p.max(-1)
        wanted = scored.targets[rows]
        base = p.gather(1, wanted[:, None])[:, 0].clamp(min=1e-30)
        columns = (tops.tolist(), tokens.tolist(), base.tolist(), wanted.tolist())
        for key, before, top, token, mine, target in zip(keys[rows], scored.before[rows], *columns, strict=True):
            found = recall.find(key, before)
            made.append(mine if found is None else Sight(found, top, token, mine, target))
    return made


def fit(repositories: Sequence[Sequence[Sight | float]], say: Callable[[str], None]) -> MixtureGate:
    """The best gate over the grid."""
    best, least = MixtureGate(), float("inf")
    for temperature in TEMPERATURES:
        for run in RUNS:
            gate = replace(best, temperature=temperature, run=run)
            loss, made = _weights(gate, [_table(gate, some) for some in repositories])
            say(f"τ {temperature:g}, ρ {run:g}: {loss:+.4f} nat/token")
            if loss < least:
                best, least = made, loss
    return best


def _table(gate: MixtureGate, some: Sequence[Sight | float]) -> tuple[Tensor, Tensor, int]:
    """Features [n, F], (base's p, r) of the next token [n, 2], positions in all; without candidates nothing changes."""
    rows, pairs = [], []
    for one in some:
        if isinstance(one, Sight):
            share = gate.vote(one.found, one.top, one.token)
            rows.append(share.features)
            pairs.append((one.base, share.probability(one.target)))
    return torch.from_numpy(np.stack(rows)), torch.tensor(pairs, dtype=torch.float64), len(some)


def _weights(gate: MixtureGate, tables: Sequence[tuple[Tensor, Tensor, int]]) -> tuple[float, MixtureGate]:
    """The loss change, mean of repositories, in nat/token at the best weights, and those."""
    w = torch.tensor([gate.bias, *gate.weights], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([w], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for features, pairs, count in tables:
            share = torch.sigmoid(w[0] + features @ w[1:])
            total = total - ((1 - share + share * pairs[:, 1] / pairs[:, 0]).log().sum() / count)
        return total / len(tables)

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss() + _PENALTY * w[1:].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    numbers = [round(value, 4) for value in w.tolist()]
    return float(loss().detach()), replace(gate, bias=numbers[0], weights=tuple(numbers[1:]))
