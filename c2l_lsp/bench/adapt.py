"""`bench adapt`: is an adapter its repository's, and what does it give? Unit of statistics: the repository.

Methods so far: base, `memory` (own), the mean of all compared adapters (what is left without conditioning),
and the adapters of other repositories as the control. More methods are more rows of `adapters_of`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from c2l_lsp.bench.stats import Row, clustered, row
from c2l_lsp.errors import CorpusError
from c2l_lsp.model.base import BaseModel
from c2l_lsp.model.memory import Memory
from c2l_lsp.train.corpus import Document
from c2l_lsp.train.subjects import PREFIXES, Scored, Subject, score_sites, site_loss, state_of, subjects

OTHERS = 15
NEAREST = 5
Say = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """A subject with its adapter C [d, d], what it is scored on by prefix, and the milliseconds the adapter took."""

    subject: Subject
    C: Tensor
    direction: Tensor
    scored: dict[int, Scored]
    tokens: float
    ms: float


def cases_of(
    model: BaseModel, memory: Memory, documents: Sequence[Document], repositories: int, say: Say
) -> list[Case]:
    """Adapters and test text of the first `repositories` subjects."""
    cases = []
    for subject in subjects(documents)[:repositories]:
        started = time.perf_counter()
        state = state_of(memory, subject.memory)
        C = memory.adapter(state).final_map
        ms = (time.perf_counter() - started) * 1e3
        if C is None:
            continue
        scored = {prefix: score_sites(model, subject, prefix, 4000) for prefix in PREFIXES}
        S = (state.tensors["S"] / state.tensors["n"]).flatten()
        cases.append(Case(subject, C, S / S.norm(), scored, float(state.tensors["n"]), ms))
        say(f"{len(cases)}: {subject.name}, state of {cases[-1].tokens:.0f} tokens in {ms / 1e3:.1f} s")
    if len(cases) < 2:
        raise CorpusError("At least two repositories with enough text are needed to compare adapters.")
    return cases


def others_of(cases: Sequence[Case], index: int, seed: int = 0) -> list[int]:
    """The repositories whose adapters are the control: the nearest by state, the rest drawn at random."""
    rest = [i for i in range(len(cases)) if i != index]
    near = sorted(rest, key=lambda i: -float(cases[i].direction @ cases[index].direction))[:NEAREST]
    far = [i for i in rest if i not in near]
    drawn = np.random.default_rng(seed + index).permutation(far)[: OTHERS - len(near)]
    return [*near, *(int(i) for i in drawn)]


@torch.inference_mode()
def measure(model: BaseModel, cases: Sequence[Case], say: Say) -> list[Row]:
    """All rows, per prefix."""
    mean = torch.stack([case.C for case in cases]).mean(0)
    rows: list[Row] = []
    for prefix in PREFIXES:
        own, means, other, rank = [], [], [], []
        for index, case in enumerate(cases):
            scored = case.scored[prefix]
            if len(scored.targets) < 256:
                continue
            bare = site_loss(model, scored, None)
            mine = site_loss(model, scored, case.C) - bare
            theirs = [site_loss(model, scored, cases[i].C) - bare for i in others_of(cases, index)]
            own.append(mine)
            means.append(site_loss(model, scored, mean) - bare)
            other.append(theirs)
            rank.append(1 + sum(value < mine for value in theirs))
            say(f"prefix {prefix}: {case.subject.name} own {mine:+.3f}, others {np.mean(theirs):+.3f}, rank {rank[-1]}")
        rows += _rows(prefix, own, means, other, rank)
    rows.append(row("state_ms_per_1k_tokens", "memory", [c.ms / c.tokens * 1e3 for c in cases], "ms"))
    rows.append(Row("prompt_tokens", "memory", 0.0, unit="tokens", bar="0", holds=True))
    return rows


def _rows(prefix: int, own: list[float], means: list[float], other: list[list[float]], rank: list[int]) -> list[Row]:
    tag = f"/prefix{prefix}"
    against = [mine - float(np.mean(theirs)) for mine, theirs in zip(own, other, strict=True)]
    versus_mean = [mine - shared for mine, shared in zip(own, means, strict=True)]
    top1 = [float(r == 1) for r in rank]
    decides = prefix == max(PREFIXES)
    value, low, high = clustered(versus_mean)
    share, share_low, share_high = clustered(top1)
    return [
        row("delta_ce" + tag, "memory", own, "nat/token"),
        row("delta_ce" + tag, "mean adapter", means, "nat/token"),
        row("delta_ce" + tag, "other's adapter", [float(np.mean(t)) for t in other], "nat/token"),
        Row("own_minus_mean" + tag, "memory", value, low, high, "nat/token",
            *(("≤ -0.04, interval < 0", value <= -0.04 and high < 0) if decides else (None, None))),
        row("own_minus_other" + tag, "memory", against, "nat/token"),
        row("mean_rank" + tag, "memory", [float(r) for r in rank], f"of {len(other[0]) + 1}" if other else ""),
        Row("top1" + tag, "memory", share, share_low, share_high, f"of {len(other[0]) + 1}" if other else "",
            *(("≥ 0.85", share >= 0.85) if decides else (None, None))),
        Row("worst_repository" + tag, "memory", max(own, default=float("nan")), unit="nat/token",
            bar="≤ +0.01" if decides else None, holds=max(own, default=1.0) <= 0.01 if decides else None),
    ]  # fmt: skip
