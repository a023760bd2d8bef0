"""The commands `c2l-lsp corpus …` and `c2l-lsp train …`. Importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

corpus_app = typer.Typer(help="From repositories to clean, licensed, deduplicated text to learn from.")
train_app = typer.Typer(help="Train a tokenizer and a base model on a built corpus.")

Out = Annotated[Path, typer.Option("--out", help="Folder that receives the result.")]


@contextmanager
def _progress(words: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr (stdout stays free for data)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(words), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(words, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@corpus_app.command("build")
def corpus_build(
    list_file: Annotated[Path, typer.Option("--list", help="One owner/name or local git folder a line.")],
    out: Out,
    mirror: Annotated[Path, typer.Option(help="Folder of git folders: MIRROR/owner+name/repo.")] = Path(),
    disjoint_from: Annotated[list[Path] | None, typer.Option(help="A list that must share no owner with this.")] = None,
    against: Annotated[list[Path] | None, typer.Option(help="A built corpus whose files must not come back.")] = None,
    standard_library: Annotated[bool, typer.Option(help="Add the installed standard library (PSF licence).")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that read repositories.")] = 2,
    share: Annotated[float, typer.Option(min=0.01, help="Most text taken from one repository, in MB.")] = 3.0,
) -> None:
    """Read the newest commit of every listed repository, filter, deduplicate, write shards and a manifest.

    Run the same command again to go on after a stop, or when more repositories have arrived.
    """
    from c2l_lsp.train import corpus, sources

    names = sources.read_list(list_file)
    sources.assert_disjoint(names, disjoint_from or [])
    if standard_library:
        names.append(corpus.STANDARD_LIBRARY)
    with _progress("repositories") as progress:
        made = corpus.build(
            names, mirror, out, against=against or [], workers=workers, cap=int(share * 1e6), progress=progress
        )
    for name, reason in made["skipped"].items():
        typer.echo(f"skipped {name}: {reason}", err=True)
    typer.echo(
        f"{len(made['repositories'])} repositories, {made['files']} files, {made['bytes'] / 1e6:.1f} MB; "
        f"{len(made['skipped'])} skipped"
    )


@corpus_app.command("stats")
def corpus_stats(folder: Annotated[Path, typer.Argument(help="A built corpus.")]) -> None:
    """Licences, sizes and what was skipped, of a built corpus."""
    from collections import Counter

    from rich.console import Console
    from rich.table import Table

    from c2l_lsp.train import corpus

    made = corpus.manifest_of(folder)
    skips: Counter[str] = Counter()
    for about in made["repositories"]:
        skips.update(about["skips"])
    table = Table("what", "count", title=str(folder.name))
    table.add_row("repositories", str(len(made["repositories"])))
    table.add_row("files", str(made["files"]))
    table.add_row("MB of text", f"{made['bytes'] / 1e6:.1f}")
    for name, count in Counter(about["licence"] for about in made["repositories"]).most_common():
        table.add_row(f"licence {name}", str(count))
    for reason, count in skips.most_common():
        table.add_row(f"files left out: {reason}", str(count))
    for reason, count in Counter(made["skipped"].values()).most_common():
        table.add_row(f"repositories left out: {reason}", str(count))
    Console().print(table)


@train_app.command("tokenizer")
def train_tokenizer_command(
    corpus_folder: Annotated[Path, typer.Option("--corpus", help="A built corpus.")],
    out: Out,
    vocabulary: Annotated[int, typer.Option(min=512, help="Entries, special tokens included.")] = 8192,
    megabytes: Annotated[float, typer.Option(min=0.01, help="Text to learn from; files are drawn evenly.")] = 30.0,
    measure: Annotated[Path | None, typer.Option(help="A corpus to measure bytes per token on.")] = None,
) -> None:
    """Learn a byte-level BPE that keeps indentation and line ends whole."""
    from c2l_lsp.train import corpus, tokenizer

    texts = [document.text for document in corpus.documents(corpus_folder)]
    step = max(1, round(sum(map(len, texts)) / (megabytes * 1e6)))
    tokenizer.save(tokenizer.train_tokenizer(texts[::step], vocabulary), out)
    if measure is not None:
        made = tokenizer.CodeTokenizer(out)
        sample = [document.text for document in corpus.documents(measure)]
        tokens = sum(map(len, made.encode_batch(sample)))
        typer.echo(f"{sum(len(text.encode()) for text in sample) / tokens:.3f} bytes per token, {vocabulary} entries")


@train_app.command("base")
def train_base(
    corpus_folder: Annotated[Path, typer.Option("--corpus", help="A built corpus to learn from.")],
    tokenizer_folder: Annotated[Path, typer.Option("--tokenizer", help="Folder of a trained tokenizer.")],
    out: Out,
    tune: Annotated[Path | None, typer.Option(help="A built corpus to measure on.")] = None,
    size: Annotated[str, typer.Option(help="nano or small.")] = "nano",
    minutes: Annotated[float, typer.Option(help="Stop after so long; the next call goes on.")] = 9.0,
    steps: Annotated[int | None, typer.Option(help="Stop after so many steps.")] = None,
    decay_steps: Annotated[int, typer.Option(help="Last leg: the rate falls to nothing in so many steps.")] = 0,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 3e-3,
    optimiser: Annotated[str, typer.Option(help="muon or adamw, for the layers' matrices.")] = "muon",
    length: Annotated[int, typer.Option(help="Tokens of a row.")] = 512,
    rows: Annotated[int, typer.Option(help="Rows of one pass.")] = 8,
    accumulate: Annotated[int, typer.Option(help="Passes of one step.")] = 2,
    warmup: Annotated[int, typer.Option(help="Steps of warm-up.")] = 100,
    ema: Annotated[float, typer.Option(help="Also keep averaged weights with this decay; 0 = none.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and holes.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 = what torch chooses.")] = 0,
    rest_of_line: Annotated[int, typer.Option(help="Lines to complete at the end of the leg.")] = 0,
    compiled: Annotated[bool, typer.Option(help="Use torch.compile.")] = True,
    evaluate_minutes: Annotated[float, typer.Option(help="Time between measurements.")] = 5.0,
) -> None:
    """Train the base code LM, or go on training it: the same command again continues from the newest checkpoint."""
    import json

    import torch

    from c2l_lsp.errors import TrainingError
    from c2l_lsp.train import architecture, base, corpus, examples
    from c2l_lsp.train.tokenizer import CodeTokenizer

    if size not in architecture.SHAPES:
        raise TrainingError(f"There is no size {size}: choose one of {', '.join(architecture.SHAPES)}.")
    if threads:
        torch.set_num_threads(threads)
    made = CodeTokenizer(tokenizer_folder)
    recipe = base.Recipe(
        shape=architecture.SHAPES[size],
        vocabulary=made.vocabulary,
        examples=examples.Recipe(length=length, seed=seed),
        rows=rows,
        accumulate=accumulate,
        optimiser=optimiser,
        rate=rate,
        warmup=warmup,
        ema=ema,
    )
    trainer = base.Trainer(
        out, recipe, list(corpus.documents(corpus_folder)), made, list(corpus.documents(tune)) if tune else []
    )
    leg = base.Leg(
        minutes=minutes,
        steps=steps,
        decay_steps=decay_steps,
        rest_of_line=rest_of_line,
        compiled=compiled,
        evaluate_minutes=evaluate_minutes,
    )
    trainer.train(leg, lambda line: typer.echo(json.dumps(line), err=True))


@train_app.command("export")
def train_export(
    run: Annotated[Path, typer.Option("--run", help="Folder of a training run.")],
    tokenizer_folder: Annotated[Path, typer.Option("--tokenizer", help="Folder of its tokenizer.")],
    corpus_folder: Annotated[Path, typer.Option("--corpus", help="The corpus it learned from.")],
    out: Out,
    averaged: Annotated[bool, typer.Option(help="Take the averaged weights.")] = False,
) -> None:
    """Write the newest checkpoint as a model folder that transformers and the engine load."""
    from c2l_lsp.train import export

    made = export.export(run, tokenizer_folder, corpus_folder, out, averaged)
    typer.echo(f"{made['steps']} steps, {made['tokens'] / 1e6:.1f}M tokens: {made['evaluation']}")


@train_app.command("split")
def train_split(
    folder: Annotated[Path, typer.Argument(help="A run or a model folder.")],
    out: Out,
    megabytes: Annotated[int, typer.Option(min=1, help="Size of a part at most.")] = 15,
) -> None:
    """Pack a folder into small parts, for machines that give back only small files."""
    from c2l_lsp.train import parts

    typer.echo(f"{len(parts.split(folder, out, megabytes * 2**20))} parts in {out}")


@train_app.command("join")
def train_join(
    folder: Annotated[Path, typer.Argument(help="A folder of parts.")],
    out: Out,
) -> None:
    """Put a folder together again from its parts; each is checked first."""
    from c2l_lsp.train import parts

    parts.join(folder, out)


@train_app.command("hypernet")
def train_hypernet(
    corpus_folder: Annotated[Path, typer.Option("--corpus", help="A built corpus to estimate from.")],
    tune: Annotated[Path, typer.Option("--tune", help="A built corpus of other owners, to choose the steps on.")],
    out: Annotated[Path, typer.Option("--out", help="File for the prior, e.g. MODEL/memory.safetensors.")],
    model: Annotated[str, typer.Option("--model", help="Hugging Face name or folder; default: the shipped.")] = "",
    kind: Annotated[str, typer.Option("--kind", help="memory (static and evo are not trained here yet).")] = "memory",
    tokens: Annotated[int, typer.Option(help="Tokens of training text for the curvature.")] = 30_000,
    repositories: Annotated[int, typer.Option(help="Training repositories for the mean.")] = 48,
    chars: Annotated[int, typer.Option(help="Characters of each of them.")] = 24_000,
    tune_repositories: Annotated[int, typer.Option(help="Tuning repositories.")] = 16,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 = what torch chooses.")] = 0,
) -> None:
    """Make a hypernetwork for a base model: for memory, curvature, mean and steps, without gradient descent."""
    import torch

    from c2l_lsp.config import Model
    from c2l_lsp.errors import TrainingError
    from c2l_lsp.model import base, prior
    from c2l_lsp.model.memory import Memory
    from c2l_lsp.train import corpus, memory

    if kind != "memory":
        raise TrainingError(f"--kind {kind} cannot be trained yet; memory can.")
    if threads:
        torch.set_num_threads(threads)

    def say(line: str) -> None:
        typer.echo(line, err=True)

    loaded = base.load(Model(path=model) if Path(model).is_dir() else Model(id=model or "c2l-default"))
    documents = list(corpus.documents(corpus_folder))
    made = memory.make_prior(loaded, documents, tokens=tokens, repositories=repositories, chars=chars, say=say)
    cases = memory.tune_cases(
        Memory(loaded, made), list(corpus.documents(tune)), repositories=tune_repositories, say=say
    )
    chosen = memory.choose_steps(loaded, made, cases, say)
    note = f"{tokens} tokens, {repositories} repositories of training text; steps on {len(cases)} tuning repositories"
    prior.save(chosen, out, loaded.digest, note)
    typer.echo(f"{out}: {chosen.steps}")
