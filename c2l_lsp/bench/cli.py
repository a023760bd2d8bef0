"""The commands `c2l-lsp bench …`. Importing this module loads no torch."""

from __future__ import annotations

import datetime as dt
import os
import platform
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from c2l_lsp import __version__

bench_app = typer.Typer(help="Measure what the adapters give and what they cost.", no_args_is_help=True)


@bench_app.callback()
def _group() -> None:
    """Measure what the adapters give and what they cost."""


@bench_app.command("adapt")
def bench_adapt(
    corpus: Annotated[Path, typer.Option("--corpus", help="A built corpus of repositories never trained on.")],
    repositories: Annotated[int, typer.Option("--repos", help="How many repositories are compared.")] = 24,
    model: Annotated[
        str, typer.Option("--model", help="Hugging Face name or folder; default: the shipped model.")
    ] = "",
    json_out: Annotated[Path | None, typer.Option("--json", help="File for the rows and the manifest.")] = None,
) -> None:
    """Own adapter against none, the mean and others' adapters: loss on files the state never saw."""
    from c2l_lsp.bench import adapt, stats
    from c2l_lsp.config import Model
    from c2l_lsp.engine.kinds import shipped_prior
    from c2l_lsp.errors import AdapterError
    from c2l_lsp.model import base
    from c2l_lsp.model.memory import Memory
    from c2l_lsp.train import corpus as corpora

    started, clock = dt.datetime.now(dt.timezone.utc), time.perf_counter()
    settings = Model(path=model) if Path(model).is_dir() else Model(id=model or "c2l-default")
    loaded = base.load(settings)
    prior = shipped_prior(loaded)
    if prior is None:
        raise AdapterError(f"{loaded.id} has no memory prior; make one with `c2l-lsp train hypernet`.")
    memory = Memory(loaded, prior)
    documents = list(corpora.documents(corpus))
    cases = adapt.cases_of(loaded, memory, documents, repositories, _say)
    rows = adapt.measure(loaded, cases, _say)
    stats.show(rows, f"adapt: {len(cases)} repositories, base {loaded.id}")
    if json_out is not None:
        names = [case.subject.name for case in cases]
        weights = {"base": loaded.digest, "memory": memory.digest}
        stats.write(json_out, _manifest(started, clock, weights, names, corpora.manifest_of(corpus)), rows)


def _manifest(
    started: dt.datetime, clock: float, weights: dict[str, str], names: list[str], data: dict[str, Any]
) -> dict[str, Any]:
    commits = {about["name"]: about["commit"] for about in data["repositories"]}
    return {
        "code": __version__,
        "weights": weights,
        "data": {name: commits.get(name, "") for name in names},
        "seeds": [0],
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - clock, 1),
    }


def _say(line: str) -> None:
    typer.echo(line, err=True)
