"""Estimate the prior of `memory` for a base model: curvature and mean from training text, steps from tuning text.

No gradient descent: P and Q are damped K-FAC inverses over a sample of training tokens, the mean is the average S/n of
training repositories, and the few scalars are chosen on tuning repositories by the loss on files the state did not see.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from c2l_lab.corpus.corpus import Document
from c2l_lab.train.memory.held_out import Scored, Subject, score_sites, site_loss, state_of, subjects
from c2l_lsp.errors import TrainingError
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory
from c2l_lsp.model.hypernet.output_gradients import output_gradients
from c2l_lsp.model.hypernet.prior import DAMPING, Curvature, MemoryPrior, estimate, redamped
from c2l_lsp.model.hypernet.protocol import RepoState, StateChange
from c2l_lsp.model.lm.base import BaseModel

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
        found = output_gradients(model, [text[begin : begin + 2400]])
        seen.add(found.e, found.h)
    return seen


@torch.inference_mode()
def repository_means(
    model: BaseModel, documents: Iterable[Document], repositories: int, chars: int, say: Say
) -> list[torch.Tensor]:
    """S/n [d, d] of a number of training repositories, `chars` characters each."""
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
        for start in range(0, len(chunks), 12):
            found = output_gradients(model, [chunk.text for chunk in chunks[start : start + 12]])
            total += (found.e.T @ found.h).double().cpu()
            n += len(found.e)
        if n:
            means.append((total / n).float())
        say(f"{number + 1}/{min(repositories, len(chosen))} {name}")
    return means


def with_scalars(prior: MemoryPrior, **changes: float) -> MemoryPrior:
    """The same prior with other scalars."""
    return replace(prior, scalars=replace(prior.scalars, **changes))


def make_prior(
    model: BaseModel, documents: list[Document], *, tokens: int, repositories: int, chars: int, say: Say
) -> MemoryPrior:
    """A prior with default steps; the scalars are tuned afterwards on other repositories."""
    means = repository_means(model, documents, repositories, chars, say)
    return estimate(curvature(model, documents, tokens), means=means)


@dataclass(frozen=True)
class TuneCase:
    """A tuning repository: its state, and hidden states and targets [N, d], [N] of files the state did not see.

    `small` is the state of the beginning of one of its files, as in a folder that was just begun; `grown` are states
    that hold what `state` does, but a share of it came at once, as one changed file, or as with a pull. `edited` pairs
    the reading of a file's first half, as if it had just been written, with its second half to score.
    """

    name: str
    state: RepoState
    small: RepoState
    grown: list[RepoState]
    scored: Scored
    edited: list[tuple[RepoState, Scored]]


@torch.inference_mode()
def tune_cases(memory: GradientMemory, documents: Iterable[Document], *, repositories: int, say: Say) -> list[TuneCase]:
    """What the scalars are chosen on. The in-file prefix is 256 tokens: part of the help comes from the file itself."""
    chosen = subjects(documents, memory_chars=60_000, test_chars=16_000)[:repositories]
    cases = []
    for subject in chosen:
        state = state_of(memory, subject.memory)
        scored = score_sites(memory.model, subject, 256, 1500)
        if len(scored.targets) < 200:
            continue
        small = state_of(memory, [subject.memory[0][:_SMALL_CHARS]])
        grown = _grown(memory, subject)
        cases.append(TuneCase(subject.name, state, small, grown, scored, _edited(memory, subject, state)))
        say(f"{subject.name}: state of {float(state.tensors['n']):.0f} tokens, {len(scored.targets)} scored")
    return cases


def _grown(memory: GradientMemory, subject: Subject) -> list[RepoState]:
    chunks = [chunk for text in subject.memory for chunk in memory.chunks(text)]
    readings = [reading for chunk in chunks for reading in memory.embed([chunk])]
    cuts = [len(readings) - max(1, round(len(readings) * share)) for share in _SHARES]
    before = [StateChange(added=readings[:cut], first=True) for cut in cuts]
    states = memory.update([memory.empty_state() for _ in cuts], before)
    return memory.update(states, [StateChange(added=readings[cut:]) for cut in cuts])


def _edited(memory: GradientMemory, subject: Subject, state: RepoState) -> list[tuple[RepoState, Scored]]:
    found = []
    for text in subject.test[:3]:
        lines = text.splitlines(keepends=True)
        half = len(lines) // 2
        if half < 20:
            continue
        readings = memory.embed(memory.chunks("".join(lines[:half]))[:12])
        (after,) = memory.update([state], [StateChange(added=readings)])
        later = Subject(subject.name, [], ["".join(lines[half:])])
        found.append((after, score_sites(memory.model, later, _NEAR_TOKENS, 500)))
    return found


def tune_scalars(model: BaseModel, prior: MemoryPrior, cases: Sequence[TuneCase], say: Say) -> MemoryPrior:
    """Coordinate search: step, clip and damping on unseen files, shrinkage on small states, recent steps on changes.

    The score is the mean over repositories of the loss change in nat/token, with worse-than-nothing counted double:
    an adapter that hurts somewhere costs more trust than the same gain elsewhere earns.
    """
    bare = [site_loss(model, case.scored, None) for case in cases]

    def unseen(candidate: MemoryPrior, small: bool = False) -> float:
        memory = GradientMemory(model, candidate)
        changes = []
        for case, without in zip(cases, bare, strict=True):
            adapter = memory.generate(case.small if small else case.state)
            changes.append(site_loss(model, case.scored, adapter.final_map) - without)
        return sum(change + max(change, 0.0) for change in changes) / len(changes)

    best = _best(prior, "eta", (0.01, 0.02, 0.03, 0.05, 0.08, 0.12), unseen, say)
    best = _best(best, "clip", (1.5, 2.0, 3.0, 5.0, 8.0), unseen, say)
    best = _best_damping(best, unseen, say)
    best = _best(best, "n0_curvature", (1000.0, 4000.0, 16000.0, 1e12), unseen, say)
    best = _best(best, "n0", (250.0, 500.0, 1000.0, 2000.0, 4000.0), lambda candidate: unseen(candidate, True), say)
    best = _best(best, "eta", [near * best.scalars.eta for near in _NEAR], unseen, say)
    return _best_recent(model, best, cases, say)


def _best_damping(prior: MemoryPrior, score: Callable[[MemoryPrior], float], say: Say) -> MemoryPrior:
    """More damping makes the step smaller, so each is tried with larger ones."""
    tried = [
        (score(candidate), damping, candidate)
        for damping in (0.02, DAMPING, 0.1, 0.2, 0.4)
        for grown in (0.7, 1.0, 1.5, 2.2, 3.2, 4.5)
        for candidate in [with_scalars(redamped(prior, damping), eta=prior.scalars.eta * grown)]
    ]
    loss, damping, best = min(tried, key=lambda one: one[0])
    say(f"damping: {damping:g} with eta {best.scalars.eta:g} → {loss:+.4f}")
    return best


_SHARES = (0.05, 0.2, 0.5)
_NEAR_TOKENS = 384  # an editor shows the model what stands just above the cursor anyway
_SMALL_CHARS = 4000
_NEAR = (0.7, 0.85, 1.0, 1.2, 1.4)


def _best_recent(model: BaseModel, prior: MemoryPrior, cases: Sequence[TuneCase], say: Say) -> MemoryPrior:
    """The recent memory must help near what was just written, and must not hurt in files that have not changed."""
    pairs = [(state, scored) for case in cases for state, scored in case.edited if len(scored.targets)]
    if not pairs:
        return with_scalars(prior, eta_recent=0.0)
    others = [(state, case.scored) for case in cases for state in case.grown]

    def changed(candidate: MemoryPrior) -> float:
        memory = GradientMemory(model, candidate)

        def mean(some: Sequence[tuple[RepoState, Scored]]) -> float:
            return sum(site_loss(model, scored, memory.generate(s).final_map) for s, scored in some) / len(some)

        return mean(pairs) + mean(others)

    best = with_scalars(prior, eta_recent=prior.scalars.eta)
    for name in ("eta_recent", "fade_recent", "n0_recent", "eta_recent"):
        best = _best(best, name, _RECENT[name], changed, say)
    return best


_RECENT = {
    "eta_recent": (0.0, 0.02, 0.04, 0.06, 0.09, 0.13),
    "fade_recent": (100.0, 300.0, 1000.0, 3000.0, 1e9),
    "n0_recent": (50.0, 200.0, 800.0),
}


def _best(
    prior: MemoryPrior, name: str, grid: Sequence[float], score: Callable[[MemoryPrior], float], say: Say
) -> MemoryPrior:
    scored = {value: score(with_scalars(prior, **{name: value})) for value in grid}
    value = min(scored, key=lambda v: scored[v])
    say(f"{name}: " + ", ".join(f"{v:g} → {loss:+.4f}" for v, loss in scored.items()) + f"; {value:g}")
    return with_scalars(prior, **{name: value})
