"""The commands `c2l-lab bench adapt` and `bench train-shared`. Importing this module loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from c2l_lab.benchmarks.adapters.run import Run
    from c2l_lab.benchmarks.methods.protocol import Setup

Model = Annotated[str, typer.Option("--model", "--base", help="Hugging Face name or folder. Default: c2l-nano.")]
Work = Annotated[
    Path, typer.Option("--work", help="Folder for intermediate results; the same command continues from it.")
]
Train = Annotated[Path | None, typer.Option("--train", help="Training corpus, for the shared LoRA.")]
Tokens = Annotated[int, typer.Option(help="Training tokens of the shared LoRA.")]


def bench_adapt(
    corpus: Annotated[Path, typer.Option("--corpus", help="Corpus of held-out repositories.")],
    work: Work = Path("bench-adapt"),
    model: Model = "",
    methods: Annotated[str, typer.Option(help="Comma-separated, or all.")] = "all",
    repositories: Annotated[int, typer.Option("--repos", help="Number of repositories.")] = 24,
    mirror: Annotated[
        Path | None,
        typer.Option(
            "--mirror", help="Folder of git repositories, MIRROR/owner+name/repo; without it there is no history."
        ),
    ] = None,
    train: Train = None,
    weights: Annotated[list[str] | None, typer.Option("--weights", help="KIND=FILE or FOLDER.")] = None,
    amounts: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE, e.g. scored=2048, spans=16.")] = None,
    shared_tokens: Tokens = 400_000,
    state_kb: Annotated[int, typer.Option(min=20, help="Text in a state, in kB. The engine's default is 256.")] = 64,
    without: Annotated[list[str] | None, typer.Option(help="Skip a part, e.g. static.ages.")] = None,
    shard: Annotated[str, typer.Option(help="i/n: run the i-th of n shards, without a report.")] = "",
    minutes: Annotated[
        float, typer.Option(help="Stop after this time; the same command continues. 0: no limit.")
    ] = 0.0,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write rows and manifest to this file.")] = None,
    markdown_out: Annotated[Path | None, typer.Option("--markdown", help="Write the report to this file.")] = None,
) -> None:
    """Compare adaptation methods on held-out repositories: gain, cost, and whether adapters are repository-specific."""
    from c2l_lab.benchmarks import stats
    from c2l_lab.benchmarks.adapters import assemble
    from c2l_lab.benchmarks.adapters.run import Plan, Run
    from c2l_lab.benchmarks.methods import TABLE, build
    from c2l_lab.benchmarks.result_cache import share
    from c2l_lab.repositories.cases import Sizes

    setup = _setup(model, work, train, weights or [], shared_tokens)
    chosen, missing = build(list(TABLE) if methods == "all" else methods.split(","), setup)
    for name, why in missing.items():
        _say(f"{name}: not run, {why}")
    sizes = Sizes(state=state_kb * 1000)
    left_out = _parts(without or [])
    plan = Plan(corpus, mirror, work, repositories, sizes, _amounts(amounts or []), left_out)
    run = Run(setup.model, chosen, plan, _say)
    part = share(shard)
    seconds, unknown = assemble.estimate(run, part)
    _say(f"about {seconds / 60:.1f} minutes left, plus {unknown} units of kinds that have not been timed")
    complete = _with_bar(run, part, minutes)
    if shard or not complete:
        _say("done" if complete else "time limit reached; the same command continues")
        return
    rows = assemble.assemble(run, missing, assemble.Out(json_out, markdown_out))
    stats.show(rows, f"adapt: {len(run.repositories.names)} repositories, base {setup.model.id}")


def bench_train_shared(
    train: Annotated[Path, typer.Option("--train", help="Training corpus.")],
    work: Work = Path("bench-adapt"),
    model: Model = "",
    shared_tokens: Tokens = 400_000,
) -> None:
    """Train the shared LoRA of `bench adapt` into the work folder."""
    from c2l_lab.benchmarks.methods.shared import shared_file, train_shared

    setup = _setup(model, work, train, [], shared_tokens)
    file = shared_file(setup.model, setup.options)
    if file is not None:
        train_shared(setup.model, setup.options, file)
        typer.echo(file)


def _setup(model: str, work: Path, train: Path | None, weights: list[str], shared_tokens: int) -> Setup:
    import torch

    from c2l_lab.benchmarks.methods.protocol import Options, Setup
    from c2l_lsp.config import Model as Settings
    from c2l_lsp.model.lm import base

    torch.set_num_threads(1)  # results must not depend on the number of cores; shards use the others
    folder = Path(model).resolve() if model and Path(model).is_dir() else None
    loaded = base.load(Settings(path=str(folder)) if folder else Settings(id=model or base.NANO))
    files = {kind: Path(path) for kind, path in _pairs(weights).items()}
    return Setup(loaded, Options(weights=files, train=train, work=work, shared_tokens=shared_tokens))


def _with_bar(run: Run, part: tuple[int, int], minutes: float) -> bool:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from c2l_lab.benchmarks.adapters import assemble

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, refresh_per_second=2) as progress:
        task = progress.add_task("")

        def tick(done: int, total: int, what: str) -> None:
            progress.update(task, completed=done, total=total, description=what)
            if not console.is_terminal and done % 20 == 0:
                _say(f"{done}/{total} {what}")

        return assemble.work(run, part, minutes, tick)


def _pairs(items: list[str]) -> dict[str, str]:
    from c2l_lsp.errors import SettingError

    for item in items:
        if "=" not in item:
            raise SettingError(f"{item} is not of the form NAME=VALUE.")
    return dict(item.split("=", 1) for item in items)


def _parts(items: list[str]) -> frozenset[str]:
    from c2l_lab.benchmarks.adapters.run import PARTS
    from c2l_lab.benchmarks.methods import TABLE
    from c2l_lsp.errors import SettingError

    known = {f"{method}.{part}" for method in TABLE for part in PARTS}
    if unknown := sorted(set(items) - known):
        raise SettingError(f"Unknown part {', '.join(unknown)}. Parts are METHOD.PART, PART one of {', '.join(PARTS)}.")
    return frozenset(items)


def _amounts(items: list[str]) -> Any:  # noqa: ANN401 - Amounts, whose module loads torch
    from c2l_lab.benchmarks.adapters.metrics import Amounts
    from c2l_lsp.errors import SettingError

    values = _pairs(items)
    if unknown := sorted(values.keys() - vars(Amounts()).keys()):
        raise SettingError(f"Unknown amount {', '.join(unknown)}. Known: {', '.join(vars(Amounts()))}.")
    return Amounts(**{name: int(value) for name, value in values.items()})


def _say(line: str) -> None:
    typer.echo(line, err=True)
