"""The commands `c2l-lab bench lines`, `ends`, `scaling` and `vocabulary`. Importing this module loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from datetime import datetime

    from c2l_lab.benchmarks.lines import scaling
    from c2l_lab.benchmarks.lines.holes import Method
    from c2l_lab.benchmarks.stats import Row
    from c2l_lsp.model.lm.base import BaseModel

PLANNED = (("nano", 4.72e6, 60e6), ("nano", 4.72e6, 250e6), ("small", 25.2e6, 500e6), ("small", 25.2e6, 1000e6))
"""Planned runs to predict: size, parameters without embeddings, tokens."""


def bench_lines(
    corpus: Annotated[Path, typer.Option("--corpus", help="Corpus of held-out repositories.")],
    model: Annotated[str, typer.Option("--model", help="Hugging Face name or folder. Default: c2l-nano.")] = "",
    train: Annotated[
        Path | None, typer.Option("--train", help="Training corpus; adds the cached 5-gram as a baseline.")
    ] = None,
    repositories: Annotated[int, typer.Option("--repos", help="Number of repositories.")] = 32,
    tasks: Annotated[int, typer.Option(help="Holes of each kind per repository.")] = 16,
    tokens: Annotated[int, typer.Option(help="Tokens per repository for bits per byte.")] = 6000,
    gram_tokens: Annotated[int, typer.Option(help="Training tokens of the 5-gram.")] = 20_000_000,
    cache_share: Annotated[
        float, typer.Option(help="Weight of the 5-gram's cache (0.5 was best on tuning text).")
    ] = 0.5,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    work: Annotated[
        Path | None, typer.Option("--work", help="Folder for intermediate results; the same command continues.")
    ] = None,
    shard: Annotated[str, typer.Option(help="i/n: run the i-th of n shards into --work, without a report.")] = "",
    json_out: Annotated[Path | None, typer.Option("--json", help="Write rows and manifest to this file.")] = None,
) -> None:
    """Measure a base model without adapter: bits per byte and completion of holes, against a cached 5-gram."""
    import datetime as dt

    from c2l_lab.benchmarks import stats
    from c2l_lab.benchmarks.lines import automatic, holes
    from c2l_lab.benchmarks.result_cache import ResultCache, share
    from c2l_lab.corpus import corpus as corpora
    from c2l_lsp.config import Model
    from c2l_lsp.engine.completion import thresholds
    from c2l_lsp.model.lm import base

    started = dt.datetime.now(dt.timezone.utc)
    loaded = base.load(
        Model(device=device, path=model) if Path(model).is_dir() else Model(device=device, id=model or base.NANO)
    )
    number, of = share(shard)
    repos = holes.repositories(corpora.documents(corpus), repositories)
    mine = dict(list(repos.items())[number::of])

    def cache_for(kind: str) -> ResultCache:
        return ResultCache(work / f"{kind}-{loaded.digest}.jsonl" if work is not None else None)

    cache = cache_for("lines")

    rows = holes.measure(holes.Model(loaded), loaded.id, mine, tasks=tasks, tokens=tokens, cache=cache, say=_say)
    if loaded.fim is not None:  # the baseline without the text after the cursor
        before = holes.Model(loaded, fills=False)
        rows += holes.measure(
            before, f"{loaded.id}, prefix only", mine, tasks=tasks, contexts=(256,), tokens=0, cache=cache, say=_say
        )
        told = holes.Model(loaded, told=True)  # like the 5-gram, which cannot know the number of missing lines
        rows += holes.measure(
            told, f"{loaded.id}, told the number of lines", mine, tasks=tasks, spans=("lines_3_to_5",), tokens=0,
            cache=cache, say=_say,
        )  # fmt: skip
    rows += automatic.measure(loaded, mine, (0.0, thresholds.of(loaded.id).line), tasks=tasks, cache=cache, say=_say)
    if train is not None:
        grams = _grams(loaded, train, gram_tokens, cache_share)
        seen = cache_for(f"grams-{gram_tokens}-{cache_share:g}")
        rows += holes.measure(grams, "5-gram + cache", mine, tasks=tasks, tokens=tokens, cache=seen, say=_say)
    if shard:
        return
    stats.show(rows, f"lines: {len(repos)} repositories, base {loaded.id}")
    if json_out is not None:
        _write(json_out, rows, {"base": loaded.digest}, list(repos), corpus, tasks, started)


def bench_ends(
    corpus: Annotated[Path, typer.Option("--corpus", help="Corpus of held-out repositories.")],
    tune: Annotated[Path, typer.Option("--tune", help="Tuning corpus: the rule is fitted to it.")],
    work: Annotated[Path, typer.Option("--work", help="Folder of traces; the same command continues.")],
    model: Annotated[str, typer.Option("--model", help="Hugging Face name. Default: c2l-nano.")] = "",
    repositories: Annotated[int, typer.Option("--repos", help="Number of repositories of each corpus.")] = 32,
    tasks: Annotated[int, typer.Option(help="Holes of three to five lines per repository.")] = 16,
    single: Annotated[int, typer.Option(help="Holes of one line per repository.")] = 8,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write rows and manifest to this file.")] = None,
) -> None:
    """Measure a learned bias of the end token: do completions end where the author's text does?"""
    import datetime as dt

    from c2l_lab.benchmarks import stats
    from c2l_lab.benchmarks.lines import end_rule, end_traces, holes
    from c2l_lab.corpus import corpus as corpora
    from c2l_lsp.config import Model
    from c2l_lsp.model.lm import base

    started = dt.datetime.now(dt.timezone.utc)
    loaded = base.load(Model(id=model or base.NANO))
    counts = dict(zip(end_rule.SPANS, (tasks, single), strict=True))

    def traces(kind: str, folder: Path) -> list[end_traces.Trace]:
        repos = holes.repositories(corpora.documents(folder), repositories)
        tracer = end_traces.Tracer(loaded, author=kind == "tune")
        return end_traces.collect(tracer, repos, counts, work / f"{kind}-{loaded.digest}.jsonl", _say)

    rule = end_rule.EndRule.fit(loaded, traces("tune", tune))
    measured = traces("eval", corpus)
    rows = end_rule.rows(loaded.id, rule, measured, _say)
    names = sorted({trace.repo for trace in measured})
    stats.show(rows, f"ends: {len(names)} repositories, base {loaded.id}")
    if json_out is not None:
        _write(json_out, rows, {"base": loaded.digest}, names, corpus, tasks, started)


def bench_scaling(
    corpus: Annotated[Path, typer.Option("--corpus", help="Corpus of held-out repositories.")],
    point: Annotated[
        list[Path], typer.Option("--point", help="Folder of a trained model with its manifest; at least four.")
    ],
    repositories: Annotated[int, typer.Option("--repos", help="Number of repositories.")] = 32,
    tasks: Annotated[int, typer.Option(help="Holes per repository.")] = 8,
    tokens: Annotated[int, typer.Option(help="Tokens per repository for bits per byte.")] = 4000,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    json_out: Annotated[Path | None, typer.Option("--json", help="Write rows and manifest to this file.")] = None,
) -> None:
    """Fit a scaling law to trained models and predict the loss of planned runs."""
    import datetime as dt

    from c2l_lab.benchmarks import stats
    from c2l_lab.benchmarks.lines import holes, scaling
    from c2l_lab.corpus import corpus as corpora
    from c2l_lsp.config import Model
    from c2l_lsp.model.lm import base

    started = dt.datetime.now(dt.timezone.utc)
    repos = holes.repositories(corpora.documents(corpus), repositories)
    rows: list[Row] = []
    points: list[scaling.Point] = []
    weights: dict[str, str] = {}
    for folder in point:
        loaded = base.load(Model(device=device, path=str(folder)))
        found = holes.measure(
            holes.Model(loaded), folder.name, repos, tasks=tasks, tokens=tokens, contexts=(256,),
            spans=("rest_of_line",), say=_say,
        )  # fmt: skip
        points.append(_point(folder.name, loaded, folder, found[0].value))
        weights[folder.name] = loaded.digest
        rows += found
    rows += scaling.rows(points, PLANNED)
    stats.show(rows, f"scaling: {len(points)} models, {len(repos)} repositories")
    if json_out is not None:
        _write(json_out, rows, weights, list(repos), corpus, tasks, started)


def bench_vocabulary(
    train: Annotated[Path, typer.Option("--train", help="Training corpus.")],
    tune: Annotated[Path, typer.Option("--tune", help="Corpus for the measurement.")],
    work: Annotated[Path, typer.Option("--work", help="Folder of tokenizers and runs; the same command continues.")],
    entries: Annotated[str, typer.Option(help="Vocabulary sizes, comma-separated.")] = "8192,16384,32768",
    weights: Annotated[float, typer.Option(help="Parameters of each model in millions, embeddings included.")] = 6.8,
    megabytes: Annotated[float, typer.Option(help="Training text of each model, in MB.")] = 4.0,
    threads: Annotated[int, typer.Option(help="CPU threads. 0: torch's default.")] = 0,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write rows and manifest to this file.")] = None,
) -> None:
    """Compare vocabulary sizes by bits per byte, with equal parameters and equal training text."""
    import datetime as dt

    import torch

    from c2l_lab.benchmarks import stats
    from c2l_lab.benchmarks.lines import vocabulary
    from c2l_lab.corpus import corpus as corpora

    started = dt.datetime.now(dt.timezone.utc)
    if threads:
        torch.set_num_threads(threads)
    amounts = vocabulary.Amounts(weights=weights * 1e6, text=megabytes * 1e6)
    learned, measured = list(corpora.documents(train)), list(corpora.documents(tune))
    rows: list[Row] = []
    for size in entries.split(","):
        rows += vocabulary.measure(int(size), learned, measured, work, amounts, _say)
    stats.show(rows, f"vocabulary: {megabytes:g} MB of text, {weights:g}M weights each")
    if json_out is not None:
        names = sorted({document.repo for document in measured})
        _write(json_out, rows, {}, names, tune, 0, started)


def _write(
    file: Path, rows: list[Row], weights: dict[str, str], names: list[str], corpus: Path, tasks: int, started: datetime
) -> None:
    import os
    import platform
    from datetime import datetime as clock

    from c2l_lab.benchmarks import stats
    from c2l_lab.corpus import corpus as corpora
    from c2l_lsp import __version__

    commits = {about["name"]: about["commit"] for about in corpora.read_manifest(corpus)["repositories"]}
    about = {
        "code": __version__,
        "weights": weights,
        "data": {name: commits.get(name, "") for name in names},
        "holes": tasks,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "started": started.isoformat(timespec="seconds"),
        "seconds": round((clock.now(started.tzinfo) - started).total_seconds(), 1),
    }
    stats.write(file, about, rows)


def _grams(loaded: BaseModel, train: Path, tokens: int, share: float) -> Method:
    from c2l_lab.benchmarks.lines import holes
    from c2l_lab.benchmarks.lines.ngram import CachedNGram, NGram
    from c2l_lab.corpus import corpus as corpora

    streams, read = [], 0
    for document in sorted(corpora.documents(train), key=lambda d: d.id):  # ids are digests, so this is a random sample
        streams.append([loaded.start_id, *loaded.encode(document.text)])
        read += len(streams[-1])
        if read >= tokens:
            break
    vocabulary = loaded.lm.get_input_embeddings().weight.shape[0]
    return holes.Grams(loaded, CachedNGram(NGram(streams, vocabulary), vocabulary, share))


def _point(name: str, model: BaseModel, folder: Path, bits: float) -> scaling.Point:
    import json

    from c2l_lab.benchmarks.lines import scaling

    read = json.loads((folder / "training_manifest.json").read_text("utf-8"))["tokens"]
    embedding = model.lm.get_input_embeddings().weight.numel()
    return scaling.Point(name, sum(p.numel() for p in model.lm.parameters()) - embedding, float(read), bits)


def _say(line: str) -> None:
    typer.echo(line, err=True)
