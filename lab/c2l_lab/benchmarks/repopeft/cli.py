"""The commands `c2l-lab bench repopeft …`. Importing this module loads neither torch nor pyarrow."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from c2l_lsp import __version__

if TYPE_CHECKING:
    from c2l_lab.benchmarks.repopeft.dataset.source import Dataset
    from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder

repopeft_app = typer.Typer(help="RepoPeftBench: build it, score predictions, run a method.", no_args_is_help=True)


@repopeft_app.callback()
def _group() -> None:
    """RepoPeftBench: build it, score predictions, run a method."""


class Track(str, Enum):
    """A dataset of the benchmark."""

    snapshots = "snapshots"
    commits = "commits"
    ood = "ood"


class Assign(str, Enum):
    """The assignment of repositories to splits."""

    auto = "auto"
    train = "train"
    cr_val = "cr_val"
    cr_test = "cr_test"


Data = Annotated[str, typer.Option("--data", help="Folder of the benchmark, or `hub` for the published one.")]
Split = Annotated[str, typer.Option("--split", help="train, ir_val, ir_test, cr_val, cr_test or ood_test.")]
OfTrack = Annotated[Track, typer.Option("--track", help="snapshots (static), commits (evolution) or ood.")]
Strict = Annotated[bool, typer.Option("--strict", help="Clean predictions without looking at the reference.")]
CodeBleu = Annotated[bool, typer.Option("--codebleu/--no-codebleu", help="Compute CodeBLEU.")]
Most = Annotated[int | None, typer.Option("--most", min=1, help="Use only the first tasks of a repository.")]
JsonOut = Annotated[Path | None, typer.Option("--json", help="Write rows and manifest to this file.")]


@repopeft_app.command("build")
def repopeft_build(
    list_file: Annotated[Path, typer.Option("--list", help="One owner/name or local git folder a line.")],
    out: Annotated[Path, typer.Option("--out", help="Output folder.")],
    mirror: Annotated[Path, typer.Option(help="Folder of git repositories, MIRROR/owner+name/repo.")] = Path(),
    ood: Annotated[Path | None, typer.Option(help="List of repositories for the OOD split.")] = None,
    assign: Annotated[Assign, typer.Option(help="The split of the list; auto: drawn from each name.")] = Assign.auto,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    encoder: Annotated[str, typer.Option(help="Text encoder for the embedding columns: Hub name or folder.")] = "",
) -> None:
    """Build the benchmark from git repositories. The same command continues after a stop."""
    from c2l_lab.benchmarks.repopeft.dataset import build
    from c2l_lab.corpus import sources

    names, others = sources.read_list(list_file), sources.read_list(ood) if ood else []
    with progress_bar("repositories") as progress:
        made = build.build(
            names, mirror, out, ood=others, assign=assign.value, workers=workers, encoder=_encoder(encoder),
            progress=progress,
        )  # fmt: skip
    for name, reason in made["skipped"].items():
        typer.echo(f"skipped {name}: {reason}", err=True)
    for reason, count in made["reasons"].items():
        typer.echo(f"{count} × {reason}", err=True)
    kept = sum(about["kept"] for about in made["repositories"])
    typer.echo(f"{len(made['repositories'])} repositories, {kept} kept commits; {len(made['skipped'])} skipped")
    for name, count in made["rows"].items():
        typer.echo(f"{name}: {count}")


@repopeft_app.command("score")
def repopeft_score(
    data: Data,
    split: Split,
    predictions: Annotated[Path, typer.Option("--predictions", help="JSON lines with id and prediction.")],
    against: Annotated[Path | None, typer.Option(help="Predictions of another method, for the paired test.")] = None,
    track: OfTrack = Track.commits,
    strict: Strict = False,
    codebleu: CodeBleu = True,
    most: Most = None,
    json_out: JsonOut = None,
) -> None:
    """Score predictions, as published or strictly, with intervals and tests over repositories."""
    from c2l_lab.benchmarks import stats
    from c2l_lab.benchmarks.repopeft import run

    started, clock = dt.datetime.now(dt.timezone.utc), time.perf_counter()
    dataset = _dataset(data, track, split)
    values = run.score(
        run.selected(dataset, split, most), run.predictions(predictions), strict=strict, codebleu=codebleu
    )
    rows = run.rows(values, predictions.stem, split, strict)
    tests: dict[str, float] = {}
    if against is not None:
        found = run.predictions(against)
        other = run.score(run.selected(dataset, split, most), found, strict=strict, codebleu=codebleu)
        rows += run.rows(other, against.stem, split, strict)
        for row, p in run.differences(values, other, (predictions.stem, against.stem), split, strict):
            rows.append(row)
            tests[row.name] = p
            typer.echo(f"{row.name} {row.method}: {row.value:+.4f}, p = {p:.4f} over repositories")
    stats.show(rows, f"RepoPeftBench {track.value} {split}{', strict' if strict else ''}")
    if json_out is not None:
        tasks = run.digest(run.selected(dataset, split, most))
        files = [predictions, *([against] if against else [])]
        manifest = manifest_of_run(
            started, clock, {"split": split, "track": track.value, "strict": strict, "most": most, "digest": tasks}
        )
        manifest["predictions"] = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
        manifest["p"] = tests
        stats.write(json_out, manifest | {"tasks": _tasks(values)}, rows)


@repopeft_app.command("run")
def repopeft_run(
    data: Data,
    split: Split,
    method: Annotated[str, typer.Option("--method", help="base or memory.")],
    json_out: Annotated[Path, typer.Option("--json", help="Result file; predictions are written beside it.")],
    mirror: Annotated[Path, typer.Option(help="Folder of git repositories, for methods that need them.")] = Path(),
    model: Annotated[str, typer.Option("--model", help="Hub name or folder. Default: c2l-nano.")] = "",
    track: OfTrack = Track.commits,
    strict: Strict = False,
    codebleu: CodeBleu = True,
    most: Most = None,
    threads: Annotated[int, typer.Option(help="CPU threads. 0: torch's default.")] = 0,
) -> None:
    """Predict and score. The same command continues a stopped run; predictions are in a .jsonl file beside --json."""
    import torch

    from c2l_lab.benchmarks import stats
    from c2l_lab.benchmarks.repopeft import methods, run
    from c2l_lab.benchmarks.repopeft.generate import Generator
    from c2l_lsp.config import Model
    from c2l_lsp.errors import CorpusError
    from c2l_lsp.model.lm import base

    if method not in methods.METHODS:
        raise CorpusError(f"Unknown method {method}. Known methods: {', '.join(methods.METHODS)}.")
    if threads:
        torch.set_num_threads(threads)
    started, clock = dt.datetime.now(dt.timezone.utc), time.perf_counter()
    dataset = _dataset(data, track, split)
    loaded = base.load(Model(path=model) if Path(model).is_dir() else Model(id=model or base.NANO))
    made = methods.METHODS[method](loaded, mirror)
    lines = json_out.with_suffix(".jsonl")
    total = sum(len(step.tasks) for step in run.selected(dataset, split, most))
    with progress_bar("tasks") as progress:
        steps = run.selected(dataset, split, most)
        run.predict(steps, made, Generator(loaded), lines, lambda done: progress(done, total))
    values = run.score(run.selected(dataset, split, most), run.predictions(lines), strict=strict, codebleu=codebleu)
    rows = run.rows(values, method, split, strict)
    stats.show(rows, f"RepoPeftBench {track.value} {split}: {method}, base {loaded.id}")
    tasks = run.digest(run.selected(dataset, split, most))
    manifest = manifest_of_run(
        started, clock, {"split": split, "track": track.value, "strict": strict, "most": most, "digest": tasks}
    )
    manifest |= {
        "weights": {"base": loaded.digest, **({method: made.digest} if made.digest else {})},
        "tasks": _tasks(values),
    }
    stats.write(json_out, manifest, rows)


def _dataset(where: str, track: Track, split: str) -> Dataset:
    from c2l_lab.benchmarks.repopeft.dataset import source

    return source.download(track.value, split) if where == "hub" else source.open_dataset(where, track.value)


def _encoder(name: str) -> EmbeddingEncoder | None:
    if not name:
        return None
    from c2l_lsp.model.hypernet.encoder import load_encoder

    return load_encoder(name, offline=Path(name).is_dir())


def _tasks(values: Any) -> dict[str, int]:  # noqa: ANN401 - metric → repository → values
    return {name: len(found) for name, found in sorted(values["exact_match"].items())} if values else {}


def manifest_of_run(started: dt.datetime, clock: float, what: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a result file."""
    return {
        "code": __version__,
        "data": what,
        "seeds": [0],
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - clock, 1),
    }


@contextmanager
def progress_bar(words: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, because stdout is for data."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(words), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(words, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
