"""Loss on the lines that each next commit adds, while a repository's last commits are followed: one column a method.

Each column exists without and with the kNN memory, whose token index and keys are updated by the same batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from c2l_lab.benchmarks.recency.constants import Constants
from c2l_lab.benchmarks.recency.gate import RecencyGate
from c2l_lab.benchmarks.recency.neighbours import memories
from c2l_lab.benchmarks.recency.records import Record
from c2l_lab.benchmarks.recency.replay import Replay, recent_direction, recent_weight
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory

Maps = Sequence[Tensor]
"""The recent part [R, R] of the final map after each batch; empty: none."""


@torch.inference_mode()
def constant_maps(replay: Replay, constants: Constants) -> list[Tensor]:
    """The recent parts with a constant γ, and β = 1."""
    recent, found = torch.zeros_like(replay.steps[0].dS), []
    for step in replay.steps:
        recent = constants.decay * recent + step.dS
        direction, n_rec = recent_direction(step, recent, constants.scalars)
        found.append(recent_weight(n_rec, constants.scalars) * direction)
    return found


@torch.inference_mode()
def columns(
    memory: GradientMemory, record: Record, replay: Replay, constants: Mapping[str, Constants],
    gates: Mapping[str, RecencyGate],
) -> dict[str, float]:  # fmt: skip
    """{column: mean loss in nat per scored token} of a repository. "+ kNN" marks columns with the kNN memory."""
    maps: dict[str, Maps] = {"main sum alone": []}
    maps |= {name: constant_maps(replay, one) for name, one in constants.items()}
    maps |= {name: gate.maps(replay) for name, gate in gates.items()}
    head = memory.model.head_weight.float() / memory.model.logit_divisor
    totals: dict[str, float] = dict.fromkeys(
        ["base model", "base model + kNN", *maps, *(f"{n} + kNN" for n in maps)], 0.0
    )
    count = 0
    for at, (batch, step, knn) in enumerate(zip(record.batches, replay.steps, memories(memory, record), strict=True)):
        n = len(step.targets)
        if not n:
            continue
        count += n
        candidates = {"base model": step.hidden}
        candidates |= {
            name: step.mapped if not some else step.mapped + step.hidden @ some[at].T for name, some in maps.items()
        }
        for name, mapped in candidates.items():
            totals[name] += n * float(torch.nn.functional.cross_entropy(mapped @ head.T, step.targets))
            logits = knn.interpolate(batch.scored.hidden, mapped @ head.T, batch.scored.before)
            totals[f"{name} + kNN"] += n * float(torch.nn.functional.cross_entropy(logits, step.targets))
    return {name: total / max(1, count) for name, total in totals.items()}
