"""`c2l-lsp train all`: from built corpora to a model folder with its hypernetworks, in legs of any length.

A stage is a command of this program, run as a process of its own; it is over when what it makes is there and whole, so
a plan that was stopped goes on where it stood, also on another machine, from the files of the last leg.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from c2l_lsp.errors import TrainingError


@dataclass(frozen=True)
class Batch:
    """How much of a step a device takes: rows of one pass and passes of a step, by the length of rows."""

    length: int
    rows: int
    accumulate: int
    long_length: int
    long_rows: int
    long_accumulate: int


CPU = Batch(512, 8, 2, 1152, 4, 2)
GPU = Batch(512, 256, 1, 1152, 114, 1)


@dataclass(frozen=True)
class Plan:
    """What is trained. Corpora are `train`, `tune` and optionally `eval` under `corpora`; times are in minutes."""

    corpora: Path
    out: Path
    size: str = "nano"
    tokens: float = 60.0  # million, before the rate falls
    decay_tokens: float = 12.0  # million, while it falls
    rate: float = 6e-3
    vocabulary: int = 8192
    processes: int = 1  # of torchrun
    batch: Batch = CPU
    kinds: tuple[str, ...] = ("memory", "static", "text2lora")
    mirror: Path | None = None  # git folders: adds evo
    hypernet_steps: int = 240
    compiled: bool = True
    workers: int = 0  # processes that cut and pack text

    @property
    def decay_steps(self) -> int:
        """Steps over which the rate falls."""
        b = self.batch
        return max(
            1, round(self.decay_tokens * 1e6 / (b.long_length * b.long_rows * b.long_accumulate * self.processes))
        )


@dataclass(frozen=True)
class Stage:
    """A command, and whether what it makes is there. `legs`: it takes --minutes and may need several calls."""

    name: str
    words: tuple[str, ...]
    over: Callable[[], bool]
    legs: bool = False
    processes: int = 1


def _newest(run: Path) -> dict[str, object]:
    from c2l_lab.train.checkpoint import newest

    folder = newest(run)
    return json.loads((folder / "state.json").read_text("utf-8")) if folder else {}


def _number(state: dict[str, object], key: str) -> float:
    value = state.get(key)
    return float(value) if isinstance(value, (int, float)) else -1.0


def stages(plan: Plan) -> list[Stage]:
    """All stages, in order."""
    train, tune = str(plan.corpora / "train"), str(plan.corpora / "tune")
    tokenizer, run, model = plan.out / "tokenizer", plan.out / "base", plan.out / "model"
    b = plan.batch
    base = ("train", "base", "--corpus", train, "--tune", tune, "--tokenizer", str(tokenizer), "--out", str(run),
            "--size", plan.size, "--rate", str(plan.rate), "--workers",
            str(plan.workers), *(() if plan.compiled else ("--no-compiled",)))  # fmt: skip
    stable = (*base, "--tokens", str(plan.tokens), "--length", str(b.length), "--rows", str(b.rows),
              "--accumulate", str(b.accumulate))  # fmt: skip
    decay = (*base, "--decay-steps", str(plan.decay_steps), "--length", str(b.long_length), "--rows",
             str(b.long_rows), "--accumulate", str(b.long_accumulate), "--rest-of-line", "200")  # fmt: skip
    export = (
        "train",
        "export",
        "--run",
        str(run),
        "--tokenizer",
        str(tokenizer),
        "--corpus",
        train,
        "--out",
        str(model),
    )
    return [
        Stage("tokenizer", ("train", "tokenizer", "--corpus", train, "--out", str(tokenizer), "--vocabulary",
                            str(plan.vocabulary)), lambda: (tokenizer / "tokenizer.json").is_file()),
        Stage("plateau", stable, lambda: _stable(plan, run), legs=True, processes=plan.processes),
        Stage("decay", decay, lambda: _decayed(plan, run), legs=True, processes=plan.processes),
        Stage("export", export, lambda: (model / "README.md").is_file()),
        *(_hypernetwork(plan, kind, train, tune, model) for kind in plan.kinds),
        *([_hypernetwork(plan, "evo", train, tune, model)] if plan.mirror else []),
    ]  # fmt: skip


def _stable(plan: Plan, run: Path) -> bool:
    state = _newest(run)
    return _number(state, "tokens") >= plan.tokens * 1e6 or _number(state, "decay_from") >= 0


def _decayed(plan: Plan, run: Path) -> bool:
    state = _newest(run)
    begun = _number(state, "decay_from")
    return begun >= 0 and _number(state, "step") >= begun + plan.decay_steps


def _hypernetwork(plan: Plan, kind: str, train: str, tune: str, model: Path) -> Stage:
    words = ("train", "hypernet", "--kind", kind, "--corpus", train, "--tune", tune, "--model", str(model))
    if kind == "memory":
        file = model / "memory.safetensors"
        return Stage(kind, (*words, "--out", str(file)), file.is_file)
    run = plan.out / kind
    mirror = ("--mirror", str(plan.mirror)) if kind == "evo" else ()
    return Stage(
        kind,
        (*words, *mirror, "--out", str(model / kind), "--run", str(run), "--set", f"steps={plan.hypernet_steps}"),
        lambda: _number(_newest(run), "step") >= plan.hypernet_steps and (model / kind).exists(),
        legs=True,
    )


def _command(stage: Stage, minutes: float) -> list[str]:
    words = [*stage.words, *(["--minutes", f"{minutes:.2f}"] if stage.legs else [])]
    if stage.processes == 1:
        return [sys.executable, "-m", "c2l_lsp", *words]
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(stage.processes)]
    return [sys.executable, *several, "-m", "c2l_lsp", *words]


def run(
    plan: Plan, minutes: float, say: Callable[[str], None], skip: Sequence[str] = (), spare: float = 0.75
) -> list[str]:
    """Do what fits into `minutes`; returns the names of the stages that are not over yet.

    A stage that takes no --minutes is begun as long as any time is left; `spare` minutes are kept for saving.
    Raises TrainingError when a stage fails.
    """
    begun = time.monotonic()
    left = [stage for stage in stages(plan) if stage.name not in skip and not stage.over()]
    for stage in list(left):
        rest = minutes - (time.monotonic() - begun) / 60 - spare
        if rest <= 0:
            break
        say(f"{stage.name}: {rest:.1f} minutes left")
        done = subprocess.run(_command(stage, rest), check=False)
        if done.returncode:
            raise TrainingError(f"The stage {stage.name} failed with exit code {done.returncode}; see above.")
        if not stage.over():
            break  # its leg is over; the next call goes on
        left.remove(stage)
    return [stage.name for stage in left]
