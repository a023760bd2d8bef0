"""The experiment as a whole: the best constants, gates of several recipes, and the table on held-out repositories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from c2l_lab.benchmarks.recency.compare import columns
from c2l_lab.benchmarks.recency.constants import Constants, best_constants
from c2l_lab.benchmarks.recency.gate import RecencyGate, Recipe, train
from c2l_lab.benchmarks.recency.records import Record
from c2l_lab.benchmarks.recency.replay import Replay, replay
from c2l_lab.benchmarks.stats import Row, row
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory

Report = Callable[[str], None]

RECIPES = (
    Recipe("gate: decay, write", rate=1e-3, epochs=4),
    Recipe("gate: decay, write, weight", weighted=True, rate=1e-3, epochs=4),
    Recipe("gate: decay, write, weight; projected changes", weighted=True, projected=8, hidden=32, rate=5e-4, epochs=4),
)
SHIPPED = "recent memory, constants of the prior"
BEST = "recent memory, best constants"
ALONE = "main sum alone"


@dataclass(frozen=True)
class Fitted:
    """What was chosen on the tuning repositories."""

    constants: Constants
    gates: dict[str, RecencyGate]
    tune_losses: dict[str, float]


def replays_of(memory: GradientMemory, records: Sequence[Record], report: Report) -> list[Replay]:
    """The replays of records."""
    found = []
    for record in records:
        found.append(replay(memory, record))
        report(f"replayed {record.name}")
    return found


def fit(
    memory: GradientMemory, training: Sequence[Replay], tuning: Sequence[Replay], report: Report,
    recipes: Sequence[Recipe] = RECIPES,
) -> Fitted:  # fmt: skip
    """The best constants on the tuning repositories, and a gate for each recipe that starts from them."""
    head = (memory.model.head_weight.float() / memory.model.logit_divisor).clone()
    constants = best_constants(tuning, head, memory.prior.scalars, report)
    gates, losses = {}, {}
    for recipe in recipes:
        gates[recipe.name], losses[recipe.name] = train(recipe, constants, training, tuning, head, report)
    return Fitted(constants, gates, losses)


def table(
    memory: GradientMemory, records: Sequence[Record], replays: Sequence[Replay], fitted: Fitted, report: Report
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Rows with intervals over repositories, and the losses of each repository.

    A row compares a column with the one before which it must prove itself: the main sum with the base model, the recent
    memory with the main sum alone, a gate with the best constants.
    """
    each, losses = list[dict[str, Any]](), list[dict[str, float]]()
    for record, one in zip(records, replays, strict=True):
        shipped = Constants(memory.prior.scalars.decay, memory.prior.scalars)
        found = columns(memory, record, one, {SHIPPED: shipped, BEST: fitted.constants}, fitted.gates)
        scored = sum(len(step.targets) for step in one.steps)
        losses.append(found)
        each.append({"repository": record.name, "batches": len(one.steps), "tokens": scored, **found})
        report(f"{record.name}: " + ", ".join(f"{name} {loss:.4f}" for name, loss in found.items()))
    pairs = [(ALONE, "base model"), (SHIPPED, ALONE), (BEST, ALONE), *((name, BEST) for name in fitted.gates)]
    rows: list[Row] = []
    for suffix in ("", " + kNN"):
        for name, against in pairs:
            changes = [one[name + suffix] - one[against + suffix] for one in losses]
            rows.append(row(f"{name}{suffix}, minus {against}{suffix}", "memory", changes, "nat/token"))
    return rows, each


def about(fitted: Fitted) -> dict[str, Any]:
    """The constants, recipes and tuning losses, for a manifest."""
    scalars = fitted.constants.scalars
    return {
        "decay": fitted.constants.decay,
        **{name: getattr(scalars, name) for name in ("eta_recent", "n0_recent", "fade_recent")},
        "recipes": {name: asdict(gate.recipe) for name, gate in fitted.gates.items()},
        "tune": fitted.tune_losses,
        "torch": torch.__version__,
    }
