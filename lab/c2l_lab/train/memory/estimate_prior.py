"""Estimates the prior of `memory` for a base model: curvature and mean from training text, scalars from tuning text.

No gradient descent: P and Q are damped K-FAC inverses over a sample of training tokens, the mean is the average S/n of
training repositories, and the few scalars are chosen by the loss on files of tuning repositories that are in no state.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from c2l_lab.corpus.corpus import Document
from c2l_lab.train.memory.held_out import (
    ScoredText,
    SplitRepository,
    mean_loss,
    score_positions,
    split_repositories,
    state_of,
)
from c2l_lsp.errors import TrainingError
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory
from c2l_lsp.model.hypernet.output_gradients import output_gradients
from c2l_lsp.model.hypernet.prior import DAMPING, Curvature, MemoryPrior, estimate
from c2l_lsp.model.hypernet.protocol import RepoState, StateChange
from c2l_lsp.model.lm.base import BaseModel

Report = Callable[[str], None]
"""Called with a line of progress."""

_TEXT_CHARS = 2400  # of a file per sample: a chunk or two
_BATCH = 12  # chunks whose gradients are computed at once


@torch.inference_mode()
def curvature(model: BaseModel, documents: Iterable[Document], tokens: int, seed: int = 0) -> Curvature:
    """K-FAC factors over at least `tokens` positions, sampled from random places of random repositories.

    Raises TrainingError without documents.
    """
    by_repository: dict[str, list[str]] = defaultdict(list)
    for document in documents:
        by_repository[document.repo].append(document.text)
    if not by_repository:
        raise TrainingError("There is no training text to estimate a prior from.")
    rng, total = random.Random(seed), Curvature.zeros(model.d)  # noqa: S311 - a sample, not a secret
    names = sorted(by_repository)
    while total.n < tokens:
        text = rng.choice(by_repository[rng.choice(names)])
        begin = rng.randrange(max(1, len(text) - _TEXT_CHARS))
        gradients = output_gradients(model, [text[begin : begin + _TEXT_CHARS]])
        total.add(gradients.e, gradients.h)
    return total


@torch.inference_mode()
def repository_means(
    model: BaseModel, documents: Iterable[Document], repositories: int, chars: int, report: Report
) -> list[torch.Tensor]:
    """S/n [d, d] of up to `repositories` training repositories, from about `chars` characters each."""
    identity = torch.eye(model.d)
    memory = GradientMemory(model, MemoryPrior(identity, identity, torch.zeros(model.d, model.d), identity[:1]))
    texts: dict[str, list[str]] = defaultdict(list)
    for document in documents:
        if sum(map(len, texts[document.repo])) < chars:
            texts[document.repo].append(document.text[:chars])
    chosen = sorted(texts)
    random.Random(0).shuffle(chosen)  # noqa: S311
    means = []
    for number, name in enumerate(chosen[:repositories]):
        chunks = [chunk for text in texts[name] for chunk in memory.chunks(text)]
        total, n = torch.zeros(model.d, model.d, dtype=torch.float64), 0.0
        for start in range(0, len(chunks), _BATCH):
            gradients = output_gradients(model, [chunk.text for chunk in chunks[start : start + _BATCH]])
            total += (gradients.e.T @ gradients.h).double().cpu()
            n += len(gradients.e)
        if n:
            means.append((total / n).float())
        report(f"{number + 1}/{min(repositories, len(chosen))} {name}")
    return means


def with_scalars(prior: MemoryPrior, **changes: float) -> MemoryPrior:
    """The prior with some scalars replaced."""
    return replace(prior, scalars=replace(prior.scalars, **changes))


def with_damping(prior: MemoryPrior, damping: float) -> MemoryPrior:
    """The prior with another damping.

    P and Q are inverses of curvature + λI, so the curvature itself need not be stored.
    """
    before = prior.scalars.damping

    def with_other_damping(inverse: torch.Tensor) -> torch.Tensor:
        damped = torch.linalg.inv(inverse.double())
        mean = damped.trace() / len(damped) / (1 + before)  # mean eigenvalue of the curvature alone
        damped = damped + (damping - before) * mean * torch.eye(len(damped), dtype=torch.float64, device=damped.device)
        return torch.linalg.inv(damped).float()

    P, Q = with_other_damping(prior.P), with_other_damping(prior.Q)
    return replace(prior, P=P, Q=Q, scalars=replace(prior.scalars, damping=damping))


def make_prior(
    model: BaseModel, documents: list[Document], *, tokens: int, repositories: int, chars: int, report: Report
) -> MemoryPrior:
    """A prior with default scalars, to be tuned by `tune_scalars` on other repositories."""
    means = repository_means(model, documents, repositories, chars, report)
    return estimate(curvature(model, documents, tokens), means=means)


@dataclass(frozen=True)
class TuningCase:
    """States of one tuning repository and the text to score them on.

    | field | state |
    |---|---|
    | `state` | all seen files, scored on `scored` (files in no state) |
    | `small` | the beginning of one seen file, as in a new folder |
    | `grown` | all seen files, the last 5, 20 and 50 % of them in a second change, as after an edit or a pull |
    | `edited` | all seen files and the first half of a test file, scored on its second half, as while typing |
    """

    name: str
    state: RepoState
    small: RepoState
    grown: list[RepoState]
    scored: ScoredText
    edited: list[tuple[RepoState, ScoredText]]


@torch.inference_mode()
def tuning_cases(
    memory: GradientMemory, documents: Iterable[Document], *, repositories: int, report: Report
) -> list[TuningCase]:
    """The cases of up to `repositories` tuning repositories.

    Positions are scored after 256 tokens of the same file, because an editor's prompt has such a prefix as well.
    """
    cases = []
    for repository in split_repositories(documents, state_chars=60_000, test_chars=16_000)[:repositories]:
        state = state_of(memory, repository.seen)
        scored = score_positions(memory.model, repository, 256, 1500)
        if len(scored.targets) < 200:
            continue
        small = state_of(memory, [repository.seen[0][:_SMALL_CHARS]])
        grown = _grown(memory, repository)
        edited = _edited(memory, repository, state)
        cases.append(TuningCase(repository.name, state, small, grown, scored, edited))
        report(f"{repository.name}: state of {float(state.tensors['n']):.0f} tokens, {len(scored.targets)} scored")
    return cases


def _grown(memory: GradientMemory, repository: SplitRepository) -> list[RepoState]:
    chunks = [chunk for text in repository.seen for chunk in memory.chunks(text)]
    embeddings = [embedding for chunk in chunks for embedding in memory.embed([chunk])]
    cuts = [len(embeddings) - max(1, round(len(embeddings) * share)) for share in _SHARES]
    before = [StateChange(added=embeddings[:cut], first=True) for cut in cuts]
    states = memory.update([memory.empty_state() for _ in cuts], before)
    return memory.update(states, [StateChange(added=embeddings[cut:]) for cut in cuts])


def _edited(
    memory: GradientMemory, repository: SplitRepository, state: RepoState
) -> list[tuple[RepoState, ScoredText]]:
    cases = []
    for text in repository.test[:3]:
        lines = text.splitlines(keepends=True)
        half = len(lines) // 2
        if half < 20:
            continue
        embeddings = memory.embed(memory.chunks("".join(lines[:half]))[:_BATCH])
        (after,) = memory.update([state], [StateChange(added=embeddings)])
        rest = SplitRepository(repository.name, [], ["".join(lines[half:])])
        cases.append((after, score_positions(memory.model, rest, _NEAR_TOKENS, 500)))
    return cases


def tune_scalars(model: BaseModel, prior: MemoryPrior, cases: Sequence[TuningCase], report: Report) -> MemoryPrior:
    """The prior with scalars from a coordinate search.

    Step size, clip and damping are chosen on unseen files, shrinkage on small states, the scalars of the recent memory
    on grown and edited states. The score is the mean over repositories of the loss change in nat/token, in which a
    repository that gets worse counts twice: harm in one repository outweighs the same gain in another.
    """
    base = [mean_loss(model, case.scored, None) for case in cases]

    def unseen(candidate: MemoryPrior, small: bool = False) -> float:
        memory = GradientMemory(model, candidate)
        changes = []
        for case, without in zip(cases, base, strict=True):
            adapter = memory.generate(case.small if small else case.state)
            changes.append(mean_loss(model, case.scored, adapter.final_map) - without)
        return sum(change + max(change, 0.0) for change in changes) / len(changes)

    best = _best(prior, "eta", (0.01, 0.02, 0.03, 0.05, 0.08, 0.12), unseen, report)
    best = _best(best, "clip", (1.5, 2.0, 3.0, 5.0, 8.0), unseen, report)
    best = _best_damping(best, unseen, report)
    best = _best(best, "n0_curvature", (1000.0, 4000.0, 16000.0, 1e12), unseen, report)
    best = _best(best, "n0", (250.0, 500.0, 1000.0, 2000.0, 4000.0), lambda candidate: unseen(candidate, True), report)
    best = _best(best, "eta", [near * best.scalars.eta for near in _NEAR], unseen, report)
    return _best_recent(model, best, cases, report)


def _best_damping(prior: MemoryPrior, score: Callable[[MemoryPrior], float], report: Report) -> MemoryPrior:
    """The best damping; each is tried with larger step sizes too, because damping shrinks the step."""
    tried = [
        (score(candidate), damping, candidate)
        for damping in (0.02, DAMPING, 0.1, 0.2, 0.4)
        for factor in (0.7, 1.0, 1.5, 2.2, 3.2, 4.5)
        for candidate in [with_scalars(with_damping(prior, damping), eta=prior.scalars.eta * factor)]
    ]
    loss, damping, best = min(tried, key=lambda one: one[0])
    report(f"damping: {damping:g} with eta {best.scalars.eta:g} → {loss:+.4f}")
    return best


_SHARES = (0.05, 0.2, 0.5)
_NEAR_TOKENS = 384  # prefix of an edited file: an editor's prompt holds the text above the cursor
_SMALL_CHARS = 4000
_NEAR = (0.7, 0.85, 1.0, 1.2, 1.4)


def _best_recent(model: BaseModel, prior: MemoryPrior, cases: Sequence[TuningCase], report: Report) -> MemoryPrior:
    """The best scalars of the recent memory by the loss in edited files plus the loss in unchanged files."""
    edited = [(state, scored) for case in cases for state, scored in case.edited if len(scored.targets)]
    if not edited:
        return with_scalars(prior, eta_recent=0.0)
    unchanged = [(state, case.scored) for case in cases for state in case.grown]

    def score(candidate: MemoryPrior) -> float:
        memory = GradientMemory(model, candidate)

        def mean(pairs: Sequence[tuple[RepoState, ScoredText]]) -> float:
            return sum(mean_loss(model, scored, memory.generate(s).final_map) for s, scored in pairs) / len(pairs)

        return mean(edited) + mean(unchanged)

    best = with_scalars(prior, eta_recent=prior.scalars.eta)
    for name in ("eta_recent", "fade_recent", "n0_recent", "eta_recent"):
        best = _best(best, name, _RECENT[name], score, report)
    return best


_RECENT = {
    "eta_recent": (0.0, 0.02, 0.04, 0.06, 0.09, 0.13),
    "fade_recent": (100.0, 300.0, 1000.0, 3000.0, 1e9),
    "n0_recent": (50.0, 200.0, 800.0),
}


def _best(
    prior: MemoryPrior, name: str, grid: Sequence[float], score: Callable[[MemoryPrior], float], report: Report
) -> MemoryPrior:
    """The prior with the value of one scalar that has the lowest score."""
    scored = {value: score(with_scalars(prior, **{name: value})) for value in grid}
    value = min(scored, key=lambda v: scored[v])
    report(f"{name}: " + ", ".join(f"{v:g} → {loss:+.4f}" for v, loss in scored.items()) + f"; {value:g}")
    return with_scalars(prior, **{name: value})
