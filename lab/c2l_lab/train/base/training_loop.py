"""Trains the base code LM: one loop for a CPU, one GPU or several (`torchrun`), in legs that continue one another.

A run is a folder: `run.json` (what is trained how), checkpoints, `log.jsonl`, `curve.png`. The learning rate warms up,
is stable for as many legs as one likes, and decays to nothing in the last leg (`decay_steps`).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from c2l_lab.corpus.corpus import Document
from c2l_lab.corpus.tokenizer import CodeTokenizer
from c2l_lab.train import checkpoint
from c2l_lab.train.base import attention
from c2l_lab.train.base.architecture import SHAPES, Shape, flop_per_token, make_model
from c2l_lab.train.base.examples import IGNORE, Stream, StreamState, dealt
from c2l_lab.train.base.examples import Recipe as ExampleRecipe
from c2l_lab.train.base.muon import Muon
from c2l_lab.train.base.objective import Loss, TuneSet, packed_loss, rest_of_line, tensors
from c2l_lab.train.base.prefetch import Supply
from c2l_lab.train.base.warm_start import Start
from c2l_lab.train.devices import Devices
from c2l_lsp.errors import CheckpointError, TrainingError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How one run learns. Written to `run.json`; a later leg may change only what LEG_BY_LEG names."""

    shape: Shape = SHAPES["nano"]
    vocabulary: int = 8192
    examples: ExampleRecipe = field(default_factory=ExampleRecipe)
    rows: int = 8  # rows of one forward pass
    accumulate: int = 2  # passes of one step
    optimiser: str = "muon"  # for the matrices inside the layers; everything else is AdamW
    rate: float = 3e-3  # of AdamW and, scaled to the same size of update, of Muon
    warmup: int = 100  # steps
    weight_decay: float = 0.1
    clip: float = 1.0
    ema: float = 0.0  # decay per step of the averaged weights, 0 = none
    begun_from: str = ""  # sha256 of the weights it began with, none for random ones


LEG_BY_LEG = ("examples", "rows", "accumulate")  # longer rows later are an ordinary curriculum


@dataclass(frozen=True)
class Leg:
    """How far this call goes and what it says on the way."""

    minutes: float = 9.0
    steps: int | None = None  # stop after so many steps of this call
    tokens: int | None = None  # stop when the run has learned from so many in all
    decay_steps: int = 0  # the rate falls to nothing over so many steps from where this leg begins
    save_minutes: float = 5.0
    evaluate_minutes: float = 5.0
    tune_rows: int = 96
    rest_of_line: int = 0  # lines completed at the end of the leg
    peak: float = 800e9  # FLOP/s of the machine in bf16, for the fraction that is reported
    compiled: bool = True


def make_optimisers(model: torch.nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon (or AdamW) for the layers' matrices; AdamW for embeddings, norms and biases, which do not decay."""
    inside = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    outside = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    adam = {"lr": recipe.rate, "betas": (0.9, 0.95), "eps": 1e-9}
    if recipe.optimiser == "muon":
        muon = Muon(inside, lr=recipe.rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw")
        return [muon, torch.optim.AdamW(outside, weight_decay=0.0, **adam)]  # type: ignore[arg-type]
    groups = [{"params": inside, "weight_decay": recipe.weight_decay}, {"params": outside, "weight_decay": 0.0}]
    return [torch.optim.AdamW(groups, **adam)]  # type: ignore[arg-type]


def rate_factor(step: int, warmup: int, decay_from: int | None, decay_steps: int) -> float:
    """Part of the full rate at `step` (from 0): a linear warm-up, a plateau, a linear fall to nothing."""
    if decay_from is not None and step >= decay_from:
        return max(0.0, 1 - (step - decay_from + 1) / (decay_steps + 1))
    return min(1.0, (step + 1) / warmup)


class Trainer:
    """One run: model, optimisers, stream and counters, from a folder and back to it."""

    def __init__(
        self,
        run: Path,
        recipe: Recipe,
        documents: Sequence[Document],
        tokenizer: CodeTokenizer,
        tune: Sequence[Document] = (),
        devices: Devices | None = None,
        start: Start | None = None,
        workers: tuple[int, Path] | None = None,
    ) -> None:
        """Begin the run in `run` (with the weights of `start`), or go on from its newest checkpoint.

        `workers`: how many processes make the batches, and the folder of their tokenizer.

        Raises TrainingError when `recipe` is not the run's, CheckpointError when the checkpoint is not whole or of
        another shape.
        """
        if tokenizer.vocabulary != recipe.vocabulary:
            raise TrainingError(f"The tokenizer has {tokenizer.vocabulary} entries, the recipe {recipe.vocabulary}.")
        recipe = replace(recipe, begun_from=start.digest if start else "")
        self.run, self.recipe, self.tokenizer, self.tune = run, recipe, tokenizer, tune
        self.devices = devices or Devices()
        self._check_recipe()
        self.model = make_model(recipe.shape, recipe.vocabulary, recipe.examples.seed).to(self.devices.device)
        self.parameters = list(self.model.parameters())
        self.optimisers = make_optimisers(self.model, recipe)
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.decay_from: int | None = None  # the step at which the rate began to fall
        self.averaged: dict[str, Tensor] = {}
        states = self._resume()
        if not states and start is not None:
            checkpoint.restore(self.model, start.weights)
            states = [start.stream(documents, recipe.examples.seed)]
            start.keep(run)
        shard = (self.devices.rank, self.devices.count)
        self.stream: Stream | Supply
        if workers is not None:
            self.stream = Supply(documents, workers[1], recipe.examples, recipe.rows, workers[0], states, shard)
        else:
            state = dealt(states, *shard) if states else None
            self.stream = Stream(documents, tokenizer, recipe.examples, state, shard)

    def _check_recipe(self) -> None:
        file = self.run / "run.json"
        mine = json.loads(json.dumps(asdict(self.recipe)))
        if file.exists():
            there = json.loads(file.read_text("utf-8"))
            changed = sorted(key for key in mine if mine[key] != there.get(key) and key not in LEG_BY_LEG)
            if changed and there.get("shape") != mine["shape"]:
                raise CheckpointError(f"The run in {self.run} is of another shape: {there.get('shape')}.")
            if changed:
                raise TrainingError(f"The run in {self.run} was begun with another {', '.join(changed)}: start anew.")
        if self.devices.rank == 0:  # replaced whole: other processes read it at the same time
            self.run.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part")
            part.write_text(json.dumps(mine, indent=1), "utf-8")
            part.replace(file)

    def _resume(self) -> list[StreamState]:
        folder = checkpoint.newest(self.run)
        if folder is None:
            return []
        weights, moments, state = checkpoint.load(folder)
        self.averaged = {n.removeprefix("ema."): w for n, w in weights.items() if n.startswith("ema.")}
        checkpoint.restore(self.model, {n: w for n, w in weights.items() if not n.startswith("ema.")})
        checkpoint.restore_optimisers(self.optimisers, moments)
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
        self.decay_from = state["decay_from"]
        torch.set_rng_state(torch.tensor(state["rng"], dtype=torch.uint8))
        return [StreamState(**one) for one in state["streams"]]

    def save(self) -> Path | None:
        """Write a checkpoint (the first process does)."""
        streams: list[Any] = [state.to_json() for state in self.stream.states()]
        if self.devices.count > 1:
            gathered: list[Any] = [None] * self.devices.count
            torch.distributed.all_gather_object(gathered, streams)
            streams = [state for part in gathered for state in part]
        if self.devices.rank:
            return None
        weights = dict(self.model.named_parameters())
        weights |= {f"ema.{name}": value for name, value in self.averaged.items()}
        state = {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "device": self.devices.name,
            "decay_from": self.decay_from,
            "streams": streams,
            "rng": torch.get_rng_state().tolist(),
        }
        return checkpoint.save(self.run, self.step, weights, self.optimisers, state)

    def one_step(self, loss: Loss, decay_steps: int) -> tuple[float, float, int]:
        """One update; returns (loss in nat per token, gradient norm before clipping, tokens learned from)."""
        r = self.recipe
        batches = [self.stream.next(r.rows) for _ in range(r.accumulate)]
        tokens = int(self.devices.sum(sum(int((b.labels != IGNORE).sum()) for b in batches)))
        total = 0.0
        for batch in batches:
            made = loss(*tensors(batch, self.devices.device)) / tokens
            made.backward()  # type: ignore[no-untyped-call]
            total += float(made.detach())
        self.devices.sum_gradients(self.parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, r.clip))
        factor = rate_factor(self.step, r.warmup, self.decay_from, decay_steps)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = r.rate * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self._average()
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        return self.devices.sum(total), norm, tokens

    @torch.no_grad()
    def _average(self) -> None:
        if not self.recipe.ema:
            return
        for name, weight in self.model.named_parameters():
            old = self.averaged.setdefault(name, weight.detach().clone())
            old.lerp_(weight, 1 - self.recipe.ema)

    def train(self, leg: Leg, say: Callable[[dict[str, Any]], None] = lambda line: None) -> dict[str, Any]:
        """Run one leg, save at its end, and return its last evaluation. Raises TrainingError when the loss diverges."""
        with attention.by_blocks(self.model, leg.compiled):
            found = self._steps(leg, say)
        self.save()  # before anything slow: a machine may be taken away meanwhile
        if leg.rest_of_line and self.tune and self.devices.rank == 0:
            found |= self.complete_lines(leg.rest_of_line)
        self._note(say, found)
        self.plot()
        return found

    def _steps(self, leg: Leg, say: Callable[[dict[str, Any]], None]) -> dict[str, float]:
        """Updates until the leg is over; returns the last evaluation."""
        plain = packed_loss(self.model)
        loss: Loss = torch.compile(plain, dynamic=False) if leg.compiled else plain
        if leg.decay_steps and self.decay_from is None:
            self.decay_from = self.step
        length = self.recipe.examples.length
        tune = TuneSet(self.tune, self.tokenizer, length, leg.tune_rows) if self.tune else None
        work = flop_per_token(self.model, self.recipe.shape, length)
        begun = saved = evaluated = last = time.monotonic()
        first, losses, counted = self.step, [], 0
        while not self._done(leg, first, begun):
            value, norm, tokens = self.one_step(loss, leg.decay_steps)
            if not value < 20:
                raise TrainingError(f"The loss is {value} at step {self.step}: start with a lower rate.")
            losses.append(value)
            counted += tokens
            now = time.monotonic()
            if self.step % 10 == 0:
                speed = counted / (now - last)
                self._note(
                    say,
                    {
                        "loss": sum(losses) / len(losses),
                        "norm": norm,
                        "tokens_per_s": speed,
                        "fraction_of_peak": speed * work / leg.peak,
                        "epoch": self.stream.epoch,
                        "rate": self.optimisers[0].param_groups[0]["lr"],
                    },
                )
                self.seconds += now - last
                losses, counted, last = [], 0, now
            if tune and now - evaluated > leg.evaluate_minutes * 60:
                self._note(say, self._measure(tune, loss))
                evaluated = last = time.monotonic()
            if self.devices.agree(now - saved > leg.save_minutes * 60):
                self.save()
                self.plot()
                saved = last = time.monotonic()
        return self._measure(tune, loss) if tune else {}

    def _measure(self, tune: TuneSet, loss: Loss) -> dict[str, float]:
        """The first process measures; the others wait at their next exchange."""
        if self.devices.rank:
            return {}
        width = self.recipe.rows  # one shape: nothing is compiled again
        if self.devices.device.type == "cuda":  # compiling takes longer there than the few rows do
            loss, width = packed_loss(self.model), min(width, 32)
        with attention.plainly(self.model):
            return tune.measure(loss, self.devices.device, width).to_json()

    def complete_lines(self, count: int) -> dict[str, float]:
        """Rest-of-line completion of `count` lines of the tune files, with and without what follows the hole."""
        found: dict[str, float] = {}
        for fill in (True, False):
            found |= rest_of_line(
                self.model, self.tune, self.tokenizer, count=count, context=min(256, self.recipe.examples.length),
                device=self.devices.device, fill=fill,
            )  # fmt: skip
        return found

    def _done(self, leg: Leg, first: int, begun: float) -> bool:
        if leg.decay_steps and self.decay_from is not None and self.step >= self.decay_from + leg.decay_steps:
            return True
        if leg.steps is not None and self.step - first >= leg.steps:
            return True
        if leg.tokens is not None and not leg.decay_steps and self.tokens >= leg.tokens:
            return True
        return self.devices.agree(time.monotonic() - begun > leg.minutes * 60)

    def _note(self, say: Callable[[dict[str, Any]], None], line: dict[str, Any]) -> None:
        if self.devices.rank:
            return
        whole = {"step": self.step, "tokens": self.tokens, **{k: _short(v) for k, v in line.items()}}
        with (self.run / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(whole) + "\n")
        say(whole)

    def plot(self) -> None:
        """Draw `curve.png` from `log.jsonl`."""
        if self.devices.rank == 0:
            from c2l_lab.train.curve import draw

            draw(self.run / "log.jsonl", self.run / "curve.png")


def _short(value: object) -> object:
    return float(f"{value:.5g}") if isinstance(value, float) else value
