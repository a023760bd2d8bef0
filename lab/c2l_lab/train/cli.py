"""The commands `c2l-lsp train …`. Importing this module loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from c2l_lab.train.hypernet.cli import train_hypernet

train_app = typer.Typer(help="Train a tokenizer and a base model on a built corpus.")

Out = Annotated[Path, typer.Option("--out", help="Folder that receives the result.")]


@train_app.command("tokenizer")
def train_tokenizer_command(
    corpus_folder: Annotated[Path, typer.Option("--corpus", help="A built corpus.")],
    out: Out,
    vocabulary: Annotated[int, typer.Option(min=512, help="Entries, special tokens included.")] = 8192,
    megabytes: Annotated[float, typer.Option(min=0.01, help="Text to learn from; files are drawn evenly.")] = 30.0,
    measure: Annotated[Path | None, typer.Option(help="A corpus to measure bytes per token on.")] = None,
) -> None:
    """Learn a byte-level BPE that keeps indentation and line ends whole."""
    from c2l_lab.corpus import corpus, tokenizer

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
    weights: Annotated[Path | None, typer.Option(help="An exported model to begin with, instead of nothing.")] = None,
    minutes: Annotated[float, typer.Option(help="Stop after so long; the next call goes on.")] = 9.0,
    steps: Annotated[int | None, typer.Option(help="Stop after so many steps.")] = None,
    tokens: Annotated[float | None, typer.Option(help="Stop before the decay at so many million tokens.")] = None,
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
    workers: Annotated[int, typer.Option(min=0, help="Processes that cut and pack text; 0 = none of their own.")] = 0,
    peak: Annotated[float, typer.Option(help="TFLOP/s of the machine in bf16, for the reported share.")] = 0.8,
    rest_of_line: Annotated[int, typer.Option(help="Lines to complete at the end of the leg.")] = 0,
    compiled: Annotated[bool, typer.Option(help="Use torch.compile.")] = True,
    evaluate_minutes: Annotated[float, typer.Option(help="Time between measurements.")] = 5.0,
) -> None:
    """Train the base code LM, or go on training it: the same command again continues from the newest checkpoint."""
    import json

    import torch

    from c2l_lab.corpus import corpus
    from c2l_lab.corpus.tokenizer import CodeTokenizer
    from c2l_lab.train.base import architecture, examples, training_loop, warm_start
    from c2l_lsp.errors import TrainingError

    if size not in architecture.SHAPES:
        raise TrainingError(f"There is no size {size}: choose one of {', '.join(architecture.SHAPES)}.")
    if threads:
        torch.set_num_threads(threads)
    made = CodeTokenizer(tokenizer_folder)
    recipe = training_loop.Recipe(
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
    trainer = training_loop.Trainer(
        out, recipe, list(corpus.documents(corpus_folder)), made, list(corpus.documents(tune)) if tune else [],
        start=warm_start.load(weights, made) if weights else None,
        workers=(workers, tokenizer_folder) if workers else None,
    )  # fmt: skip
    leg = training_loop.Leg(
        minutes=minutes,
        steps=steps,
        tokens=None if tokens is None else int(tokens * 1e6),
        decay_steps=decay_steps,
        rest_of_line=rest_of_line,
        peak=peak * 1e12,
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
    from c2l_lab.train import export

    made = export.export(run, tokenizer_folder, corpus_folder, out, averaged)
    typer.echo(f"{made['steps']} steps, {made['tokens'] / 1e6:.1f}M tokens: {made['evaluation']}")


@train_app.command("all")
def train_all(
    corpora: Annotated[Path, typer.Option("--corpora", help="Folder with built corpora named train and tune.")],
    out: Out,
    size: Annotated[str, typer.Option(help="nano or small.")] = "nano",
    tokens: Annotated[float, typer.Option(help="Million tokens before the rate falls.")] = 60.0,
    decay_tokens: Annotated[float, typer.Option(help="Million tokens while it falls.")] = 12.0,
    rate: Annotated[float, typer.Option(help="Learning rate; small was trained at 0.004 on a GPU.")] = 6e-3,
    vocabulary: Annotated[int, typer.Option(help="Entries of the tokenizer.")] = 8192,
    minutes: Annotated[float, typer.Option(help="Stop after so long; the next call goes on.")] = 9.0,
    processes: Annotated[int, typer.Option(help="Processes of torchrun: cores, or GPUs.")] = 1,
    mirror: Annotated[Path | None, typer.Option(help="Git folders of the corpus: trains evo too.")] = None,
    steps: Annotated[int, typer.Option(help="Steps of each hypernetwork.")] = 240,
    gpu: Annotated[bool, typer.Option(help="Batches for a large GPU instead of a CPU's.")] = False,
    skip: Annotated[list[str] | None, typer.Option(help="Leave a stage out, e.g. static.")] = None,
) -> None:
    """Everything in order: tokenizer, base model, export, hypernetworks. The same command again goes on."""
    import os

    from c2l_lab.train import plan

    workers = max(1, (os.cpu_count() or 1) - 2) // processes if gpu else 0
    made = plan.Plan(
        corpora, out, size, tokens, decay_tokens, rate=rate, vocabulary=vocabulary, processes=processes,
        batch=plan.GPU if gpu else plan.CPU, mirror=mirror, hypernet_steps=steps, workers=workers,
    )  # fmt: skip
    left = plan.run(made, minutes, lambda line: typer.echo(line, err=True), skip or [])
    typer.echo(f"left to do: {', '.join(left)}" if left else f"all done: {out / 'model'}")


@train_app.command("split")
def train_split(
    folder: Annotated[Path, typer.Argument(help="A run or a model folder.")],
    out: Out,
    megabytes: Annotated[int, typer.Option(min=1, help="Size of a part at most.")] = 15,
) -> None:
    """Pack a folder into small parts, for machines that give back only small files."""
    from c2l_lab.train import split_files

    typer.echo(f"{len(split_files.split(folder, out, megabytes * 2**20))} parts in {out}")


@train_app.command("join")
def train_join(
    folder: Annotated[Path, typer.Argument(help="A folder of parts.")],
    out: Out,
) -> None:
    """Put a folder together again from its parts; each is checked first."""
    from c2l_lab.train import split_files

    split_files.join(folder, out)


train_app.command("hypernet")(train_hypernet)
