"""The command `c2l-lsp bench lines`. Importing this module loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from c2l_lsp.bench import scaling
    from c2l_lsp.bench.holes import Method
    from c2l_lsp.bench.stats import Row
    from c2l_lsp.model.base import BaseModel

PLANNED = (("nano", 4.72e6, 60e6), ("nano", 4.72e6, 250e6), ("small", 25.2e6, 500e6), ("small", 25.2e6, 1000e6))
"""Runs whose loss is predicted: size, weights without embeddings, tokens."""


def bench_lines(
    corpus: Annotated[Path, typer.Option("--corpus", help="A built corpus of repositories never trained on.")],
    model: Annotated[str, typer.Option("--model", help="Hugging Face name or folder; default: the shipped.")] = "",
    train: Annotated[
        Path | None, typer.Option("--train", help="The training corpus: adds the 5-gram with a cache.")
    ] = None,
    point: Annotated[
        list[Path] | None, typer.Option("--point", help="Another trained model folder, for the scaling table.")
    ] = None,
    repositories: Annotated[int, typer.Option("--repos", help="How many repositories.")] = 32,
    tasks: Annotated[int, typer.Option(help="Holes of each kind in a repository.")] = 16,
    tokens: Annotated[int, typer.Option(help="Tokens of a repository scored for bits per byte.")] = 6000,
    gram_tokens: Annotated[int, typer.Option(help="Tokens the 5-gram counts.")] = 20_000_000,
    cache_share: Annotated[float, typer.Option(help="Share of its cache (0.5 was best on tuning text).")] = 0.5,
    json_out: Annotated[Path | None, typer.Option("--json", help="File for the rows and the manifest.")] = None,
) -> None:
    """A base model without adapter: bits per byte and holes filled exactly, against a cached 5-gram."""
    import datetime as dt
    import os
    import platform
    import time

    from c2l_lsp import __version__
    from c2l_lsp.bench import holes, stats
    from c2l_lsp.config import Model
    from c2l_lsp.model import base
    from c2l_lsp.train import corpus as corpora

    started, clock = dt.datetime.now(dt.timezone.utc), time.perf_counter()
    loaded = base.load(Model(path=model) if Path(model).is_dir() else Model(id=model or "c2l-default"))
    repos = holes.repositories(corpora.documents(corpus), repositories)

    rows = holes.measure(holes.Model(loaded), loaded.id, repos, tasks=tasks, tokens=tokens, say=_say)
    if loaded.fim is not None:  # what the text after the cursor gives
        before = holes.Model(loaded, fills=False)
        rows += holes.measure(
            before, f"{loaded.id}, prefix only", repos, tasks=tasks, contexts=(256,), tokens=0, say=_say
        )
    if train is not None:
        grams = _grams(loaded, train, gram_tokens, cache_share)
        rows += holes.measure(grams, "5-gram + cache", repos, tasks=tasks, tokens=tokens, say=_say)
    rows += _scaling(loaded, model, point or [], repos, tasks, tokens)
    stats.show(rows, f"lines: {len(repos)} repositories, base {loaded.id}")
    if json_out is not None:
        commits = {about["name"]: about["commit"] for about in corpora.manifest_of(corpus)["repositories"]}
        about = {
            "code": __version__,
            "weights": {"base": loaded.digest},
            "data": {name: commits.get(name, "") for name in repos},
            "holes": tasks,
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - clock, 1),
        }
        stats.write(json_out, about, rows)


def _grams(loaded: BaseModel, train: Path, tokens: int, share: float) -> Method:
    from c2l_lsp.bench import holes
    from c2l_lsp.bench.ngram import CachedNGram, NGram
    from c2l_lsp.train import corpus as corpora

    streams, read = [], 0
    for document in sorted(corpora.documents(train), key=lambda d: d.id):  # ids are digests: an even sample
        streams.append([loaded.start, *loaded.encode(document.text)])
        read += len(streams[-1])
        if read >= tokens:
            break
    vocabulary = loaded.lm.get_input_embeddings().weight.shape[0]
    return holes.Grams(loaded, CachedNGram(NGram(streams, vocabulary), vocabulary, share))


def _scaling(
    loaded: BaseModel, model: str, folders: list[Path], repos: dict[str, list[str]], tasks: int, tokens: int
) -> list[Row]:
    """Rows of every further model, and the law through all of them."""
    from c2l_lsp.bench import holes, scaling
    from c2l_lsp.config import Model
    from c2l_lsp.model import base

    made: list[Row] = []
    points: list[scaling.Point] = []
    for folder in folders:
        other = base.load(Model(path=str(folder)))
        name = folder.name
        found = holes.measure(
            holes.Model(other), name, repos, tasks=tasks, tokens=tokens, contexts=(256,), spans=("rest_of_line",),
            say=_say,
        )  # fmt: skip
        points.append(_point(name, other, folder, found[0].value))
        made += found
    if len(points) < 4:
        return made
    return made + scaling.rows(points, PLANNED)


def _point(name: str, model: BaseModel, folder: Path, bits: float) -> scaling.Point:
    import json

    from c2l_lsp.bench import scaling

    read = json.loads((folder / "training_manifest.json").read_text("utf-8"))["tokens"]
    embedding = model.lm.get_input_embeddings().weight.numel()
    return scaling.Point(name, sum(p.numel() for p in model.lm.parameters()) - embedding, float(read), bits)


def _say(line: str) -> None:
    typer.echo(line, err=True)
