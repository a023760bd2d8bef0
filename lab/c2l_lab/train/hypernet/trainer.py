"""Trains `static`, `evo` or `text2lora`: one loop for a CPU, one GPU or several (`torchrun`), in resumable legs.

A run is a folder: `run.json` (the recipe), `data/` (embeddings, computed once), checkpoints, `log.jsonl`, `curve.png`,
and `best`, the checkpoint with the best score on the tuning repositories (`evaluation.Evaluation.score`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from c2l_lab.train import checkpoint
from c2l_lab.train.devices import Devices
from c2l_lab.train.hypernet.data import Repo
from c2l_lab.train.hypernet.evaluation import Evaluation, Evaluator
from c2l_lab.train.hypernet.network import Network
from c2l_lab.train.hypernet.objective import loss
from c2l_lab.train.hypernet.recipe import Recipe
from c2l_lab.train.hypernet.sampling import draw_batch
from c2l_lsp.errors import TrainingError
from c2l_lsp.model.hypernet import checkpoint as checkpoints
from c2l_lsp.model.lm.base import BaseModel

Report = Callable[[dict[str, Any]], None]
"""Called with each line of the log."""

BEST = "best"


@dataclass(frozen=True)
class Leg:
    """Limits of one call of `Trainer.train`."""

    minutes: float = 9.0
    steps: int | None = None  # of this call
    evaluate_every: int = 50  # steps
    save_minutes: float = 3.0


class Trainer:
    """One run: network, optimiser and step, stored in a folder."""

    def __init__(
        self,
        run: Path,
        recipe: Recipe,
        model: BaseModel,
        repositories: Sequence[Repo],
        tune: Sequence[Repo],
        devices: Devices | None = None,
    ) -> None:
        """Start the run in the folder `run`, or resume it from its newest checkpoint.

        Raises TrainingError if the run has another recipe, and CheckpointError if the checkpoint is incomplete.
        """
        self.run, self.recipe, self.model, self.repositories = run, recipe, model, repositories
        self.devices = devices or Devices()
        self._check_recipe()
        self.network = Network(model, recipe, 2 * repositories[0].files.shape[1]).to(model.device)
        self.parameters = list(self.network.parameters())
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=recipe.rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay
        )
        self.step, self.best = 0, math.inf
        self._resume()
        self.evaluator = Evaluator(model, tune, prefix=recipe.prefix) if self.devices.rank == 0 else None

    def _check_recipe(self) -> None:
        file, mine = self.run / "run.json", {**self.recipe.to_dict(), "base": self.model.digest}
        if file.exists():
            there = json.loads(file.read_text("utf-8"))
            changed = sorted(key for key in mine.keys() | there.keys() if mine.get(key) != there.get(key))
            if changed:
                raise TrainingError(f"The run in {self.run} has another {', '.join(changed)}; use a new folder.")
        self.run.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(mine, indent=1), "utf-8")

    def _resume(self) -> None:
        newest = checkpoint.newest(self.run)
        if newest is None:
            self.network.initialise(self.repositories)
            return
        weights, moments, state = checkpoint.load(newest)
        buffers = {name: weights.pop(name) for name, _ in self.network.named_buffers()}
        checkpoint.restore(self.network, weights)
        for name, buffer in self.network.named_buffers():
            buffer.copy_(buffers[name])
        checkpoint.restore_optimisers([self.optimiser], moments)
        self.step, self.best = state["step"], state["best"] if state["best"] is not None else math.inf

    def save(self) -> None:
        """Write a checkpoint (first process only)."""
        if self.devices.rank == 0:
            state = {"best": self.best if math.isfinite(self.best) else None}
            checkpoint.save(self.run, self.step, self.network.state_dict(), [self.optimiser], state)

    def one_step(self) -> dict[str, float]:
        """One optimiser step; returns the terms of the loss and the gradient norm."""
        recipe, devices = self.recipe, self.devices
        batch = draw_batch(self.repositories, recipe, self.step, (devices.rank, devices.count))
        self.network.train()
        pairs = self.network(batch.states)
        device = self.model.device
        total, parts = loss(
            self.model, recipe, pairs, self.network.scale, self.network.layers, batch.ids.to(device),
            compare=self.step % recipe.contrast_every == 0 and len(batch.ids) > recipe.others,
            related=None if batch.related is None else batch.related.to(device),
        )  # fmt: skip
        (total / devices.count).backward()  # type: ignore[no-untyped-call]
        devices.sum_gradients(self.parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, recipe.clip))
        if not (math.isfinite(norm) and math.isfinite(parts["own"])):
            raise TrainingError(f"The loss is {parts['own']} at step {self.step}; use a lower learning rate.")
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate * rate_factor(self.step, recipe)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return {**parts, "gradient": norm}

    def train(self, leg: Leg, report: Report) -> bool:
        """Run one leg and save. Returns whether the whole run is complete; `best` holds the best checkpoint."""
        begun = saved = time.monotonic()
        first = self.step
        sums: dict[str, list[float]] = {}
        if self.step == 0:
            self._evaluate(report)
        while not self._over(leg, first, begun):
            for name, value in self.one_step().items():
                sums.setdefault(name, []).append(value)
            if self.step % 10 == 0:
                took = (time.monotonic() - begun) / (self.step - first)
                self._log(report, {**{n: sum(v) / len(v) for n, v in sums.items()}, "s_per_step": took})
                sums = {}
            if self.step % leg.evaluate_every == 0 and self.step < self.recipe.steps:
                self._evaluate(report)
            if time.monotonic() - saved > leg.save_minutes * 60:
                self.save()
                saved = time.monotonic()
        if self.step > first:
            self._evaluate(report)
        self.save()
        self.devices.wait()
        return self.step >= self.recipe.steps

    def _over(self, leg: Leg, first: int, begun: float) -> bool:
        if self.step >= self.recipe.steps or (leg.steps is not None and self.step - first >= leg.steps):
            return True
        return self.devices.sum(float(time.monotonic() - begun > leg.minutes * 60)) > 0

    def _evaluate(self, report: Report) -> None:
        if self.evaluator is None:
            return
        found = self.evaluator(self.network)
        self._log(report, {"tune": found.to_json()})
        if self.step and found.score < self.best:
            self.best = found.score
            checkpoints.save(self.network.checkpoint(self.model, self._training(found)), self.run / BEST)
        from c2l_lab.train.hypernet.curve import draw as draw_curve

        draw_curve(self.run / "log.jsonl", self.run / "curve.png")

    def _training(self, found: Evaluation) -> dict[str, bool | float | str]:
        sizes = {"step": float(self.step), "training_repositories": float(len(self.repositories))}
        return {**self.recipe.to_dict(), **sizes, **{f"tune_{name}": value for name, value in found.to_json().items()}}

    def _log(self, report: Report, line: dict[str, Any]) -> None:
        if self.devices.rank:
            return
        short = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in line.items()}
        whole = {"step": self.step, **short}
        with (self.run / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(whole) + "\n")
        report(whole)


def rate_factor(step: int, recipe: Recipe) -> float:
    """Learning rate at `step` (from 0), as a share of the peak: a linear warm-up, then half a cosine down to 0.05."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
