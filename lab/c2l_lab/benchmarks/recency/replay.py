"""A commit stream as tensors: what the final map is made of after each batch, and how well it predicts the next one.

The main sum S, the curvature and the hidden states do not depend on the recent memory, so they are computed once. The
loss with any decay, write strength and step size is then a few products per batch, and differentiable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from c2l_lab.benchmarks.recency.neighbours import memories
from c2l_lab.benchmarks.recency.records import Record
from c2l_lab.train.memory.estimate_prior import with_scalars
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory, clip_spectrum
from c2l_lsp.model.hypernet.prior import PriorScalars

FEATURES = 8
"""Numbers that describe a batch; see `Replay.features`."""


@dataclass(frozen=True)
class Step:
    """A batch with change dS [R, R], preconditioners P and Q [R, R], and scored positions.

    mapped [N, d]: h + C h with the main part of the final map; hidden [N, d]: h. targets [N]. votes [N, 2]: the weight
    of the kNN memory under the main part, and its probability of the target.
    """

    dS: Tensor
    P: Tensor
    Q: Tensor
    hidden: Tensor
    mapped: Tensor
    targets: Tensor
    votes: Tensor


@dataclass(frozen=True)
class Replay:
    """The steps of a repository, and features [T, FEATURES] of its batches.

    log1p of: tokens added, tokens removed, tokens in the state, ‖ΔS‖² / token_energy, hours since the batch before,
    changed files; the share of those files that the batch before changed too; cos(ΔS, the ΔS before).
    """

    name: str
    steps: list[Step]
    features: Tensor


@torch.no_grad()
def replay(memory: GradientMemory, record: Record) -> Replay:
    """The tensors of a record. A prior with full rank (R = d) is needed."""
    alone = GradientMemory(memory.model, with_scalars(memory.prior, eta_recent=0.0))
    (state,) = alone.update([alone.empty_state()], [record.first])
    steps, rows = [], []
    previous = torch.zeros_like(state.tensors["S"])
    head = memory.model.head_weight.float() / memory.model.logit_divisor
    for batch, knn in zip(record.batches, memories(memory, record), strict=True):
        before = state
        (state,) = alone.update([before], [batch.change])
        dS = state.tensors["S"] - before.tensors["S"]
        P, Q = alone._preconditioners(state)  # those of `core`
        C = alone.core(state)
        h = batch.scored.hidden.float() if len(batch.scored.targets) else torch.zeros(0, len(P))
        mapped = h if C is None else h + h @ C.T
        targets = batch.scored.targets
        votes = knn.target_votes(h, mapped @ head.T, batch.scored.before, targets.tolist()) if len(h) else []
        steps.append(Step(dS.float(), P, Q, h, mapped, targets, torch.tensor(votes).reshape(-1, 2)))
        added, removed = (sum(float(e["n"]) for e in part) for part in (batch.change.added, batch.change.removed))
        sizes = [
            added,
            removed,
            float(state.tensors["n"]),
            float(dS.square().sum()) / memory.prior.scalars.token_energy,
        ]
        cosine = float((dS * previous).sum() / (dS.norm() * previous.norm()).clamp(min=1e-9))
        logs = torch.tensor([*sizes, batch.hours, float(batch.files)]).log1p().tolist()
        rows.append([*logs, batch.again, cosine])
        previous = dS
    return Replay(record.name, steps, torch.tensor(rows))


def next_loss(head: Tensor, mapped: Tensor, step: Step) -> Tensor:
    """Mean loss in nat of mapped hidden states [N, d] under a head [V, d], mixed with the kNN memory.

    The votes are those under the main part: what the recent memory changes about them is of second order.
    """
    log_p = -torch.nn.functional.cross_entropy(mapped @ head.T, step.targets, reduction="none")
    weight, q = step.votes.unbind(1)
    return -torch.logaddexp(log_p + (1 - weight).log(), (weight * q).clamp(min=1e-30).log()).mean()


@torch.no_grad()
def clip_factor(M: Tensor, ratio: float) -> Tensor:
    """G [R, R] with G M = `gradient_memory.clip_spectrum(M, ratio)`: U diag(min(s, limit) / s) Uᵀ."""
    U, s, _ = torch.linalg.svd(M, full_matrices=False)
    limit = ratio * s.median().clamp(min=1e-12)
    return (U * (s.clamp(max=float(limit)) / s.clamp(min=1e-20))) @ U.T


def recent_direction(step: Step, recent: Tensor, scalars: PriorScalars) -> tuple[Tensor, Tensor]:
    """clip(P (S_rec / n_rec) Q) [R, R] and n_rec."""
    n_rec = (recent.square().sum() / scalars.token_energy).clamp(min=1e-9)
    return clip_spectrum(step.P @ (recent / n_rec) @ step.Q, scalars.clip), n_rec


def recent_weight(n_rec: Tensor, scalars: PriorScalars) -> Tensor:
    """η_rec ρ_rec(n_rec) φ(n_rec)."""
    fade = scalars.fade_recent / (scalars.fade_recent + n_rec)
    return scalars.eta_recent * n_rec / (n_rec + scalars.n0_recent) * fade


def mean_by_repository(losses: Sequence[Sequence[tuple[float, int]]]) -> list[float]:
    """The mean over batches, weighted by scored tokens, of each repository."""
    return [sum(loss * n for loss, n in one) / max(1, sum(n for _, n in one)) for one in losses]
