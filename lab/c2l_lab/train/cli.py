"""The commands `c2l-lab train …`. Importing this module does not load torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from c2l_lab.train.hypernet.cli import train_hypernet
from c2l_lab.train.memory.cli import train_mixture
from c2l_lab.train.screen.cli import train_screen

train_app = typer.Typer(help="Train tokenizers, base models and hypernetworks on a built corpus.")

Out = Annotated[Path, typer.Option("--out", help="Output folder.")]


@train_app.command("tokenizer")
def train_tokenizer_command(
    corpus_folder: Annotated[Path, typer.Option("--corpus", help="A built corpus.")],
    out: Out,
    vocabulary: Annotated[int, typer.Option(min=512, help="Vocabulary size, with special tokens.")] = 8192,
    megabytes: Annotated[
        float, typer.Option(min=0.01, help="Amount of training text in MB; files are sampled evenly.")
    ] = 30.0,
    measure: Annotated[Path | None, typer.Option(help="A built corpus on which to measure bytes per token.")] = None,
) -> None:
    """Train a byte-level BPE tokenizer in which line ends with indentation are single tokens."""
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
    corpus_folder: Annotated[Path, typer.Option("--corpus", help="A built corpus to train on.")],
    tokenizer_folder: Annotated[Path, typer.Option("--tokenizer", help="Folder of a trained tokenizer.")],
    out: Out,
    tune: Annotated[Path | None, typer.Option(help="A built corpus for validation.")] = None,
    size: Annotated[str, typer.Option(help="Model size: nano or small.")] = "nano",
    weights: Annotated[Path | None, typer.Option(help="An exported model whose weights to start from.")] = None,
    minutes: Annotated[float, typer.Option(help="Stop after this many minutes; the next call resumes.")] = 9.0,
    steps: Annotated[int | None, typer.Option(help="Stop after this many steps.")] = None,
    tokens: Annotated[float | None, typer.Option(help="Stop the plateau at this many million tokens.")] = None,
    decay_steps: Annotated[
        int, typer.Option(help="Decay the learning rate to zero over this many steps, then stop.")
    ] = 0,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-3,
    optimiser: Annotated[str, typer.Option(help="Optimiser of the layers' matrices: muon or adamw.")] = "muon",
    length: Annotated[int, typer.Option(help="Row length in tokens.")] = 512,
    rows: Annotated[int, typer.Option(help="Rows per forward pass.")] = 8,
    accumulate: Annotated[int, typer.Option(help="Forward passes per step (gradient accumulation).")] = 2,
    warmup: Annotated[int, typer.Option(help="Warm-up steps.")] = 100,
    ema: Annotated[float, typer.Option(help="Decay per step of averaged weights (EMA); 0 = none.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Random seed of weights, data order and FIM spans.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 = torch's default.")] = 0,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that tokenise and pack text; 0 = in the training process.")
    ] = 0,
    peak: Annotated[float, typer.Option(help="Peak TFLOP/s of the machine in bf16, to report utilisation.")] = 0.8,
    rest_of_line: Annotated[int, typer.Option(help="Number of rest-of-line completions to evaluate at the end.")] = 0,
    compiled: Annotated[bool, typer.Option(help="Use torch.compile.")] = True,
    evaluate_minutes: Annotated[float, typer.Option(help="Minutes between evaluations.")] = 5.0,
) -> None:
    """Train the base language model. The same command resumes from the newest checkpoint."""
    import json

    import torch

    from c2l_lab.corpus import corpus
    from c2l_lab.corpus.tokenizer import CodeTokenizer
    from c2l_lab.train.base import architecture, examples, training_loop, warm_start
    from c2l_lsp.errors import TrainingError

    if size not in architecture.SHAPES:
        raise TrainingError(f"There is no model size {size}. Choose one of {', '.join(architecture.SHAPES)}.")
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
    session = training_loop.Session(
        minutes=minutes,
        steps=steps,
        tokens=None if tokens is None else int(tokens * 1e6),
        decay_steps=decay_steps,
        rest_of_line=rest_of_line,
        peak=peak * 1e12,
        compiled=compiled,
        evaluate_minutes=evaluate_minutes,
    )
    trainer.train(session, lambda line: typer.echo(json.dumps(line), err=True))


@train_app.command("export")
def train_export(
    run: Annotated[Path, typer.Option("--run", help="Folder of a training run.")],
    tokenizer_folder: Annotated[Path, typer.Option("--tokenizer", help="Folder of its tokenizer.")],
    corpus_folder: Annotated[Path, typer.Option("--corpus", help="The corpus it was trained on.")],
    out: Out,
    averaged: Annotated[bool, typer.Option(help="Export the averaged weights (EMA).")] = False,
) -> None:
    """Export the newest checkpoint as a model folder that transformers and the engine can load."""
    from c2l_lab.train import export

    made = export.export(run, tokenizer_folder, corpus_folder, out, averaged)
    typer.echo(f"{made['steps']} steps, {made['tokens'] / 1e6:.1f}M tokens: {made['evaluation']}")


@train_app.command("all")
def train_all(
    corpora: Annotated[Path, typer.Option("--corpora", help="Folder with built corpora named train and tune.")],
    out: Out,
    size: Annotated[str, typer.Option(help="Model size: nano or small.")] = "nano",
    tokens: Annotated[float, typer.Option(help="Million tokens before the learning rate decays.")] = 60.0,
    decay_tokens: Annotated[float, typer.Option(help="Million tokens during the decay.")] = 12.0,
    rate: Annotated[float, typer.Option(help="Peak learning rate; small was trained with 0.004 on a GPU.")] = 6e-3,
    vocabulary: Annotated[int, typer.Option(help="Vocabulary size of the tokenizer.")] = 8192,
    minutes: Annotated[float, typer.Option(help="Stop after this many minutes; the next call resumes.")] = 9.0,
    processes: Annotated[int, typer.Option(help="Number of torchrun processes: CPU cores or GPUs.")] = 1,
    mirror: Annotated[
        Path | None, typer.Option(help="Git repositories of the corpus; trains the hypernetwork evo too.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Training steps of each hypernetwork.")] = 240,
    gpu: Annotated[bool, typer.Option(help="Use batch sizes for a large GPU instead of a CPU.")] = False,
    skip: Annotated[list[str] | None, typer.Option(help="Skip a stage, e.g. static.")] = None,
) -> None:
    """Train everything in order: tokenizer, base model, export, hypernetworks. The same command resumes."""
    import os

    from c2l_lab.train import plan

    workers = max(1, (os.cpu_count() or 1) - 2) // processes if gpu else 0
    made = plan.Plan(
        corpora, out, size, tokens, decay_tokens, rate=rate, vocabulary=vocabulary, processes=processes,
        batch=plan.GPU if gpu else plan.CPU, mirror=mirror, hypernet_steps=steps, workers=workers,
    )  # fmt: skip
    left = plan.run(made, minutes, lambda line: typer.echo(line, err=True), skip or [])
    typer.echo(f"not done yet: {', '.join(left)}" if left else f"done: {out / 'model'}")


@train_app.command("split")
def train_split(
    folder: Annotated[Path, typer.Argument(help="A training run or a model folder.")],
    out: Out,
    megabytes: Annotated[int, typer.Option(min=1, help="Maximum size of a part in MB.")] = 15,
) -> None:
    """Pack a folder into small parts, for machines from which only small files can be copied."""
    from c2l_lab.train import split_files

    typer.echo(f"{len(split_files.split(folder, out, megabytes * 2**20))} parts in {out}")


@train_app.command("join")
def train_join(
    folder: Annotated[Path, typer.Argument(help="A folder of parts.")],
    out: Out,
) -> None:
    """Unpack a folder from its parts, after checking each of them."""
    from c2l_lab.train import split_files

    split_files.join(folder, out)


train_app.command("hypernet")(train_hypernet)
train_app.command("mixture")(train_mixture)
train_app.command("screen")(train_screen)
