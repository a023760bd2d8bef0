"""The training loop of the base language model, on a CPU, a GPU or several (`torchrun`).

A run is a folder with `run.json` (the recipe), checkpoints, `log.jsonl` and `curve.png`. Training is divided into
sessions, each of which resumes from the newest checkpoint. The learning rate warms up, stays on a plateau for any
number of sessions, and decays to zero in the last one (`decay_steps`).
"""

from __future__ import annotations

import json
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
from c2l_lab.train.base.examples import IGNORE, Stream, StreamState, reshard
from c2l_lab.train.base.examples import Recipe as ExampleRecipe
from c2l_lab.train.base.muon import Muon
from c2l_lab.train.base.objective import Loss, TuneSet, packed_loss, rest_of_line, to_tensors
from c2l_lab.train.base.prefetch import Prefetcher
from c2l_lab.train.base.warm_start import WarmStart
from c2l_lab.train.devices import Devices
from c2l_lsp.errors import CheckpointError, TrainingError


@dataclass(frozen=True)
class Recipe:
    """The training recipe of a run, written to `run.json`. A later session may change only SESSION_FIELDS."""

    shape: Shape = SHAPES["nano"]
    vocabulary: int = 8192
    examples: ExampleRecipe = field(default_factory=ExampleRecipe)
    rows: int = 8  # rows per forward pass
    accumulate: int = 2  # forward passes per step
    optimiser: str = "muon"  # of the layers' matrices; the other parameters use AdamW
    rate: float = 3e-3  # of AdamW and of Muon, whose updates are scaled to the same size
    warmup: int = 100  # steps
    weight_decay: float = 0.1
    clip: float = 1.0
    ema: float = 0.0  # decay per step of the averaged weights; 0 = none
    begun_from: str = ""  # SHA-256 of the initial weights; empty for random ones


SESSION_FIELDS = ("examples", "rows", "accumulate")  # for a curriculum: longer rows later


@dataclass(frozen=True)
class Session:
    """When one call of `train` stops, saves and evaluates."""

    minutes: float = 9.0
    steps: int | None = None  # stop after this many steps of this session
    tokens: int | None = None  # stop the plateau when the run has used this many in total
    decay_steps: int = 0  # decay the rate to zero over this many steps from the start of this session
    save_minutes: float = 5.0
    evaluate_minutes: float = 5.0
    tune_rows: int = 96
    rest_of_line: int = 0  # completions evaluated at the end of the session
    peak: float = 800e9  # FLOP/s of the machine in bf16, to report utilisation
    compiled: bool = True


def make_optimisers(model: torch.nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return Muon (or AdamW) for the layers' matrices, and AdamW without weight decay for all other parameters."""
    inside = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    outside = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    adam = {"lr": recipe.rate, "betas": (0.9, 0.95), "eps": 1e-9}
    if recipe.optimiser == "muon":
        muon = Muon(inside, lr=recipe.rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw")
        return [muon, torch.optim.AdamW(outside, weight_decay=0.0, **adam)]  # type: ignore[arg-type]
    groups = [{"params": inside, "weight_decay": recipe.weight_decay}, {"params": outside, "weight_decay": 0.0}]
    return [torch.optim.AdamW(groups, **adam)]  # type: ignore[arg-type]


def rate_factor(step: int, warmup: int, decay_from: int | None, decay_steps: int) -> float:
    """Return the factor of the peak rate at `step` (from 0): linear warm-up, plateau, linear decay to zero."""
    if decay_from is not None and step >= decay_from:
        return max(0.0, 1 - (step - decay_from + 1) / (decay_steps + 1))
    return min(1.0, (step + 1) / warmup)


class Trainer:
    """One training run: model, optimisers, stream and counters."""

    def __init__(
        self,
        run: Path,
        recipe: Recipe,
        documents: Sequence[Document],
        tokenizer: CodeTokenizer,
        tune: Sequence[Document] = (),
        devices: Devices | None = None,
        start: WarmStart | None = None,
        workers: tuple[int, Path] | None = None,
    ) -> None:
        """Start a run in the folder `run`, or resume it from its newest checkpoint.

        A new run has the weights of `start`, or random ones. `workers` are the number of prefetching processes and the
        folder of their tokenizer. Raises TrainingError if `recipe` differs from the run's, and CheckpointError if the
        checkpoint is damaged or has another shape.
        """
        if tokenizer.vocabulary != recipe.vocabulary:
            raise TrainingError(
                f"The tokenizer has {tokenizer.vocabulary} entries, but the recipe has {recipe.vocabulary}."
            )
        recipe = replace(recipe, begun_from=start.digest if start else "")
        self.run, self.recipe, self.tokenizer, self.tune = run, recipe, tokenizer, tune
        self.devices = devices or Devices()
        self._check_recipe()
        self.model = make_model(recipe.shape, recipe.vocabulary, recipe.examples.seed).to(self.devices.device)
        self.parameters = list(self.model.parameters())
        self.optimisers = make_optimisers(self.model, recipe)
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.decay_from: int | None = None  # the first step of the decay
        self.averaged: dict[str, Tensor] = {}
        states = self._resume()
        if not states and start is not None:
            checkpoint.restore(self.model, start.weights)
            states = [start.stream_state(documents, recipe.examples.seed)]
            start.save_manifest(run)
        shard = (self.devices.rank, self.devices.count)
        self.stream: Stream | Prefetcher
        if workers is not None:
            self.stream = Prefetcher(documents, workers[1], recipe.examples, recipe.rows, workers[0], states, shard)
        else:
            state = reshard(states, *shard) if states else None
            self.stream = Stream(documents, tokenizer, recipe.examples, state, shard)

    def _check_recipe(self) -> None:
        file = self.run / "run.json"
        mine = json.loads(json.dumps(asdict(self.recipe)))
        if file.exists():
            saved = json.loads(file.read_text("utf-8"))
            changed = sorted(key for key in mine if mine[key] != saved.get(key) and key not in SESSION_FIELDS)
            if changed and saved.get("shape") != mine["shape"]:
                raise CheckpointError(f"The run in {self.run} has another shape: {saved.get('shape')}.")
            if changed:
                raise TrainingError(
                    f"The run in {self.run} was started with another {', '.join(changed)}. Start a new run."
                )
        if self.devices.rank == 0:  # replaced atomically, because other processes read it at the same time
            self.run.mkdir(parents=True, exist_ok=True)
            temporary = file.with_suffix(".part")
            temporary.write_text(json.dumps(mine, indent=1), "utf-8")
            temporary.replace(file)

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
        return [StreamState(**saved) for saved in state["streams"]]

    def save(self) -> Path | None:
        """Write a checkpoint on rank 0 and return its folder; None on other ranks."""
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

    def train_step(self, loss: Loss, decay_steps: int) -> tuple[float, float, int]:
        """Perform one step; return (loss in nat per token, gradient norm before clipping, number of tokens)."""
        r = self.recipe
        batches = [self.stream.next(r.rows) for _ in range(r.accumulate)]
        tokens = int(self.devices.sum(sum(int((b.labels != IGNORE).sum()) for b in batches)))
        total = 0.0
        for batch in batches:
            mean_loss = loss(*to_tensors(batch, self.devices.device)) / tokens
            mean_loss.backward()  # type: ignore[no-untyped-call]
            total += float(mean_loss.detach())
        self.devices.sum_gradients(self.parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, r.clip))
        factor = rate_factor(self.step, r.warmup, self.decay_from, decay_steps)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = r.rate * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self._update_average()
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        return self.devices.sum(total), norm, tokens

    @torch.no_grad()
    def _update_average(self) -> None:
        if not self.recipe.ema:
            return
        for name, weight in self.model.named_parameters():
            old = self.averaged.setdefault(name, weight.detach().clone())
            old.lerp_(weight, 1 - self.recipe.ema)

    def train(self, session: Session, report: Callable[[dict[str, Any]], None] = lambda line: None) -> dict[str, Any]:
        """Run one session, save, and return the last evaluation. Raises TrainingError if the loss diverges."""
        with attention.use_block_attention(self.model, session.compiled):
            found = self._run_steps(session, report)
        self.save()  # first, in case the slow evaluation is interrupted
        if session.rest_of_line and self.tune and self.devices.rank == 0:
            found |= self.evaluate_rest_of_line(session.rest_of_line)
        self._log(report, found)
        self.plot()
        self.devices.wait()
        return found

    def _run_steps(self, session: Session, report: Callable[[dict[str, Any]], None]) -> dict[str, float]:
        """Train until the session ends; return the last evaluation."""
        plain = packed_loss(self.model)
        loss: Loss = torch.compile(plain, dynamic=False) if session.compiled else plain
        if session.decay_steps and self.decay_from is None:
            self.decay_from = self.step
        length = self.recipe.examples.length
        tune = TuneSet(self.tune, self.tokenizer, length, session.tune_rows) if self.tune else None
        begun = saved = evaluated = last = time.monotonic()
        first, losses, counted = self.step, [], 0
        while not self._is_finished(session, first, begun):
            value, norm, tokens = self.train_step(loss, session.decay_steps)
            if not value < 20:
                raise TrainingError(
                    f"The loss is {value} at step {self.step}. Start a new run with a lower learning rate."
                )
            losses.append(value)
            counted += tokens
            now = time.monotonic()
            if self.step % 10 == 0:
                speed = counted / (now - last)
                entry = {"loss": sum(losses) / len(losses), "norm": norm}
                self._log(report, entry | self._speed_entry(speed, session.peak))
                self.seconds += now - last
                losses, counted, last = [], 0, now
            if tune and now - evaluated > session.evaluate_minutes * 60:
                self._log(report, self._measure(tune, loss))
                evaluated = last = time.monotonic()
            if self.devices.agree(now - saved > session.save_minutes * 60):
                self.save()
                self.plot()
                saved = last = time.monotonic()
        return self._measure(tune, loss) if tune else {}

    def _speed_entry(self, tokens_per_s: float, peak: float) -> dict[str, Any]:
        flop = flop_per_token(self.model, self.recipe.shape, self.recipe.examples.length)
        return {
            "tokens_per_s": tokens_per_s,
            "fraction_of_peak": tokens_per_s * flop / peak,
            "epoch": self.stream.epoch,
            "rate": self.optimisers[0].param_groups[0]["lr"],
        }

    def _measure(self, tune: TuneSet, loss: Loss) -> dict[str, float]:
        """Evaluate on rank 0. The other ranks wait at the next all-reduce."""
        if self.devices.rank:
            return {}
        width = self.recipe.rows  # a fixed shape avoids recompilation
        if self.devices.device.type == "cuda":  # compiling would take longer than evaluating the few rows
            loss, width = packed_loss(self.model), min(width, 32)
        with attention.default_attention(self.model):
            return tune.measure(loss, self.devices.device, width).to_json()

    def evaluate_rest_of_line(self, count: int) -> dict[str, float]:
        """Evaluate `count` rest-of-line completions of validation files, with and without the text after the cursor."""
        found: dict[str, float] = {}
        for fill in (True, False):
            found |= rest_of_line(
                self.model, self.tune, self.tokenizer, count=count, context=min(256, self.recipe.examples.length),
                device=self.devices.device, fill=fill,
            )  # fmt: skip
        return found

    def _is_finished(self, session: Session, first: int, begun: float) -> bool:
        if session.decay_steps and self.decay_from is not None and self.step >= self.decay_from + session.decay_steps:
            return True
        if session.steps is not None and self.step - first >= session.steps:
            return True
        if session.tokens is not None and not session.decay_steps and self.tokens >= session.tokens:
            return True
        return self.devices.agree(time.monotonic() - begun > session.minutes * 60)

    def _log(self, report: Callable[[dict[str, Any]], None], line: dict[str, Any]) -> None:
        if self.devices.rank:
            return
        entry = {"step": self.step, "tokens": self.tokens, **{k: _rounded(v) for k, v in line.items()}}
        with (self.run / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        report(entry)

    def plot(self) -> None:
        """Plot `log.jsonl` to `curve.png`."""
        if self.devices.rank == 0:
            from c2l_lab.train.curve import draw

            draw(self.run / "log.jsonl", self.run / "curve.png")


def _rounded(value: object) -> object:
    return float(f"{value:.5g}") if isinstance(value, float) else value
