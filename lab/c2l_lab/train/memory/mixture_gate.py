"""Fits the mixture gate of the kNN memory on files of tuning repositories that the states were not made from.

λ is a logistic function of a few features (`c2l_lsp.model.adapter.knn_lm`), and the likelihood of the mixture is smooth
in its weights: L-BFGS finds them for each pair (τ, ρ) of a small grid. Every repository has the same weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from c2l_lab.corpus.corpus import Document
from c2l_lab.train.memory.held_out import ScoredText, score_positions, split_repositories, state_of
from c2l_lsp.model.adapter.knn_lm import KnnMemory, MixtureGate, Neighbours, compute_keys
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory

TEMPERATURES = (0.03, 0.05, 0.07, 0.1, 0.14)
MATCH_WEIGHTS = (0.4, 0.6, 0.8, 1.1)
_STATE_CHARS = 250_000  # as many as an engine indexes of a folder by default
_PREFIX, _MAX_POSITIONS, _MIN_POSITIONS = 512, 2500, 500
_PENALTY = 1e-4  # on the squared weights: of equally good fits the smaller one


@dataclass(frozen=True)
class Example:
    """One position with neighbours: the model's top token and its probability, the target and its probability."""

    neighbours: Neighbours
    top_probability: float
    top_token: int
    target_probability: float
    target: int


Examples = Sequence[Example | float]
"""Positions of one repository; a position without neighbours is the model's probability of the target alone."""


@torch.inference_mode()
def collect(memory: GradientMemory, documents: Iterable[Document], report: Callable[[str], None]) -> list[Examples]:
    """The examples of each tuning repository that has enough text."""
    collected: list[Examples] = []
    for repository in split_repositories(documents, state_chars=_STATE_CHARS):
        scored = score_positions(memory.model, repository, _PREFIX, _MAX_POSITIONS)
        if len(scored.targets) < _MIN_POSITIONS:
            continue
        adapter = memory.generate(state_of(memory, repository.seen))
        if adapter.knn is None:
            continue
        collected.append(_examples(memory, adapter.knn, adapter.final_map, scored))
        report(f"{repository.name}: {len(collected[-1])} positions, index of {len(adapter.knn.keys)} tokens")
    return collected


def _examples(memory: GradientMemory, knn: KnnMemory, C: Tensor | None, scored: ScoredText) -> Examples:
    keys = compute_keys(knn.basis, scored.hidden).cpu().numpy()
    examples: list[Example | float] = []
    for start in range(0, len(keys), 512):
        rows = slice(start, start + 512)
        h = scored.hidden[rows]
        logits = memory.model.logits(h if C is None else h + (h.float() @ C.T).to(h.dtype)).float()
        p = torch.softmax(logits, -1)
        tops, tokens = p.max(-1)
        targets = scored.targets[rows]
        probabilities = p.gather(1, targets[:, None])[:, 0].clamp(min=1e-30)
        columns = (tops.tolist(), tokens.tolist(), probabilities.tolist(), targets.tolist())
        for key, before, top, token, base, target in zip(keys[rows], scored.before[rows], *columns, strict=True):
            neighbours = knn.search(key, before)
            examples.append(base if neighbours is None else Example(neighbours, top, token, base, target))
    return examples


def fit(repositories: Sequence[Examples], report: Callable[[str], None]) -> MixtureGate:
    """The gate with the lowest loss over the grid of (τ, ρ)."""
    best, lowest = MixtureGate(), float("inf")
    for temperature in TEMPERATURES:
        for match_weight in MATCH_WEIGHTS:
            gate = replace(best, temperature=temperature, match_weight=match_weight)
            loss, fitted = _fit_weights(gate, [_table(gate, examples) for examples in repositories])
            report(f"τ {temperature:g}, ρ {match_weight:g}: {loss:+.4f} nat/token")
            if loss < lowest:
                best, lowest = fitted, loss
    return best


def _table(gate: MixtureGate, examples: Examples) -> tuple[Tensor, Tensor, int]:
    """Features [n, F] and (p_LM, r) of the target [n, 2] of the n examples with neighbours; the number of positions."""
    rows, pairs = [], []
    for example in examples:
        if isinstance(example, Example):
            vote = gate.vote(example.neighbours, example.top_probability, example.top_token)
            rows.append(vote.features)
            pairs.append((example.target_probability, vote.probability(example.target)))
    return torch.from_numpy(np.stack(rows)), torch.tensor(pairs, dtype=torch.float64), len(examples)


def _fit_weights(gate: MixtureGate, tables: Sequence[tuple[Tensor, Tensor, int]]) -> tuple[float, MixtureGate]:
    """The best weights, as a gate, and their loss change against the model alone (mean of repositories, nat/token)."""
    w = torch.tensor([gate.bias, *gate.weights], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([w], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for features, pairs, count in tables:
            weight = torch.sigmoid(w[0] + features @ w[1:])
            total = total - ((1 - weight + weight * pairs[:, 1] / pairs[:, 0]).log().sum() / count)
        return total / len(tables)

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss() + _PENALTY * w[1:].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    numbers = [round(value, 4) for value in w.tolist()]
    return float(loss().detach()), replace(gate, bias=numbers[0], weights=tuple(numbers[1:]))
