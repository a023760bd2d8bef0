"""The stages of `c2l-lab train all`: from built corpora to a model folder with its hypernetworks.

Each stage is a `c2l-lab` command in a process of its own. It is done when its output exists and is complete. Therefore
an interrupted plan resumes where it stopped, also on another machine with the same files.
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
    """Row length in tokens, rows per pass and passes per step: on the plateau, and (`long_…`) in the decay."""

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
    """What to train. `corpora` contains the built corpora `train` and `tune`."""

    corpora: Path
    out: Path
    size: str = "nano"
    tokens: float = 60.0  # millions, before the learning rate decays
    decay_tokens: float = 12.0  # millions, during the decay
    rate: float = 6e-3
    vocabulary: int = 8192
    processes: int = 1  # of torchrun
    batch: Batch = CPU
    kinds: tuple[str, ...] = ("memory", "static", "text2lora")
    mirror: Path | None = None  # git repositories of the corpus; adds the stage evo
    hypernet_steps: int = 240
    compiled: bool = True
    rest_of_line: int = 200  # completions evaluated after the decay
    workers: int = 0  # processes that tokenise and pack text

    @property
    def decay_steps(self) -> int:
        """Number of steps of the learning rate decay."""
        b = self.batch
        return max(
            1, round(self.decay_tokens * 1e6 / (b.long_length * b.long_rows * b.long_accumulate * self.processes))
        )


@dataclass(frozen=True)
class Stage:
    """A command and the test of its output. A `timed` stage takes --minutes and may need several calls."""

    name: str
    arguments: tuple[str, ...]
    is_done: Callable[[], bool]
    timed: bool = False
    processes: int = 1


def _newest_state(run: Path) -> dict[str, object]:
    from c2l_lab.train.checkpoint import newest

    folder = newest(run)
    return json.loads((folder / "state.json").read_text("utf-8")) if folder else {}


def _number(state: dict[str, object], key: str) -> float:
    value = state.get(key)
    return float(value) if isinstance(value, (int, float)) else -1.0


def stages(plan: Plan) -> list[Stage]:
    """Return all stages in order."""
    train, tune = str(plan.corpora / "train"), str(plan.corpora / "tune")
    tokenizer, run, model = plan.out / "tokenizer", plan.out / "base", plan.out / "model"
    b = plan.batch
    base = ("train", "base", "--corpus", train, "--tune", tune, "--tokenizer", str(tokenizer), "--out", str(run),
            "--size", plan.size, "--rate", str(plan.rate), "--workers",
            str(plan.workers), *(() if plan.compiled else ("--no-compiled",)))  # fmt: skip
    plateau = (*base, "--tokens", str(plan.tokens), "--length", str(b.length), "--rows", str(b.rows),
              "--accumulate", str(b.accumulate))  # fmt: skip
    decay = (*base, "--decay-steps", str(plan.decay_steps), "--length", str(b.long_length), "--rows",
             str(b.long_rows), "--accumulate", str(b.long_accumulate),
             "--rest-of-line", str(plan.rest_of_line))  # fmt: skip
    export = ("train", "export", "--run", str(run), "--tokenizer", str(tokenizer), "--corpus", train,
              "--out", str(model))  # fmt: skip
    return [
        Stage("tokenizer", ("train", "tokenizer", "--corpus", train, "--out", str(tokenizer), "--vocabulary",
                            str(plan.vocabulary)), lambda: (tokenizer / "tokenizer.json").is_file()),
        Stage("plateau", plateau, lambda: _is_plateau_done(plan, run), timed=True, processes=plan.processes),
        Stage("decay", decay, lambda: _is_decay_done(plan, run), timed=True, processes=plan.processes),
        Stage("export", export, lambda: (model / "README.md").is_file()),
        *(_hypernetwork(plan, kind, train, tune, model) for kind in plan.kinds),
        *([_hypernetwork(plan, "evo", train, tune, model)] if plan.mirror else []),
    ]  # fmt: skip


def _is_plateau_done(plan: Plan, run: Path) -> bool:
    state = _newest_state(run)
    return _number(state, "tokens") >= plan.tokens * 1e6 or _number(state, "decay_from") >= 0


def _is_decay_done(plan: Plan, run: Path) -> bool:
    state = _newest_state(run)
    begun = _number(state, "decay_from")
    return begun >= 0 and _number(state, "step") >= begun + plan.decay_steps


def _hypernetwork(plan: Plan, kind: str, train: str, tune: str, model: Path) -> Stage:
    arguments = ("train", "hypernet", "--kind", kind, "--corpus", train, "--tune", tune, "--model", str(model))
    if kind == "memory":
        file = model / "memory.safetensors"
        return Stage(kind, (*arguments, "--out", str(file)), file.is_file)
    run = plan.out / kind
    mirror = ("--mirror", str(plan.mirror)) if kind == "evo" else ()
    return Stage(
        kind,
        (*arguments, *mirror, "--out", str(model / kind), "--run", str(run), "--set", f"steps={plan.hypernet_steps}"),
        lambda: _number(_newest_state(run), "step") >= plan.hypernet_steps and (model / kind).exists(),
        timed=True,
    )


def _command(stage: Stage, minutes: float) -> list[str]:
    arguments = [*stage.arguments, *(["--minutes", f"{minutes:.2f}"] if stage.timed else [])]
    if stage.processes == 1:
        return [sys.executable, "-m", "c2l_lab", *arguments]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(stage.processes)]
    return [sys.executable, *torchrun, "-m", "c2l_lab", *arguments]


def run(
    plan: Plan, minutes: float, report: Callable[[str], None], skip: Sequence[str] = (), reserve: float = 0.75
) -> list[str]:
    """Run stages for about `minutes`; return the names of the stages that are not done.

    `reserve` minutes are left for saving. A stage without --minutes starts if any time is left. Raises TrainingError
    if a stage fails.
    """
    begun = time.monotonic()
    remaining = [stage for stage in stages(plan) if stage.name not in skip and not stage.is_done()]
    for stage in list(remaining):
        left = minutes - (time.monotonic() - begun) / 60 - reserve
        if left <= 0:
            break
        report(f"{stage.name}: {left:.1f} minutes left")
        completed = subprocess.run(_command(stage, left), check=False)
        if completed.returncode:
            raise TrainingError(
                f"The stage {stage.name} failed with exit code {completed.returncode}. Its error message is above."
            )
        if not stage.is_done():
            break  # its time is up; the next call resumes it
        remaining.remove(stage)
    return [stage.name for stage in remaining]
