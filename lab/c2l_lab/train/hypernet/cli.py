"""The command `c2l-lab train hypernet`. Importing this module loads no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from c2l_lsp.model.lm.base import BaseModel

_T = TypeVar("_T")
KINDS = ("memory", "static", "evo", "text2lora")


def train_hypernet(
    corpus_folder: Annotated[Path, typer.Option("--corpus", help="A built corpus to train on.")],
    tune: Annotated[Path, typer.Option("--tune", help="A built corpus of other owners, to tune and evaluate on.")],
    out: Annotated[Path, typer.Option("--out", help="memory: a file (MODEL/memory.safetensors); else MODEL/KIND.")],
    model: Annotated[str, typer.Option("--model", help="Hugging Face name or folder; default: c2l-nano.")] = "",
    kind: Annotated[str, typer.Option("--kind", help=f"{', '.join(KINDS)}.")] = "memory",
    run: Annotated[Path | None, typer.Option("--run", help="Folder of the run (not for memory).")] = None,
    mirror: Annotated[Path | None, typer.Option("--mirror", help="evo: git folders, MIRROR/owner+name/repo.")] = None,
    minutes: Annotated[float, typer.Option(help="Time limit; the same command continues the run.")] = 9.0,
    repositories: Annotated[int, typer.Option(help="Training repositories; 0 = the default of the kind.")] = 0,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE of the recipe or its sizes, e.g. steps=600, per_layer=false."),
    ] = None,
    tokens: Annotated[int, typer.Option(help="memory: tokens of training text for the curvature.")] = 30_000,
    chars: Annotated[int, typer.Option(help="memory: characters of each training repository.")] = 24_000,
    tune_repositories: Annotated[int, typer.Option(help="memory: tuning repositories.")] = 16,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 = torch's default.")] = 0,
) -> None:
    """Train a hypernetwork for a base model.

    memory: estimates curvature, mean and scalars, without gradient descent. static, evo, text2lora: gradient descent on
    the frozen base; the checkpoint with the best adapters on the tuning repositories is written to --out.
    """
    import torch

    from c2l_lsp.errors import TrainingError

    if kind not in KINDS:
        raise TrainingError(f"Unknown kind {kind}: choose one of {', '.join(KINDS)}.")
    if threads:
        torch.set_num_threads(threads)
    base = load_base(model)
    if kind == "memory":
        _train_memory(base, corpus_folder, tune, out, tokens, repositories or 48, chars, tune_repositories)
    elif run is None:
        raise TrainingError(f"{kind} needs a folder for the run: pass --run FOLDER.")
    else:
        chosen = _parsed(options or [])
        if repositories:
            chosen["repositories_embedded"] = repositories
        _train_by_gradient(base, kind, corpus_folder, tune, out, run, mirror, minutes, chosen)


def load_base(model: str) -> BaseModel:
    """The base model of a `--model` option: a folder, a Hub name, or c2l-nano if empty."""
    from c2l_lab.train.devices import Devices
    from c2l_lsp.config import Model
    from c2l_lsp.model.lm import base

    device = str(Devices().device)
    if model and Path(model).is_dir():  # Path("") is the current folder
        return base.load(Model(device=device, path=model))
    return base.load(Model(device=device, id=model or base.NANO))


def _report(line: object) -> None:
    typer.echo(line if isinstance(line, str) else json.dumps(line), err=True)


def _train_memory(
    base: BaseModel, corpus_folder: Path, tune: Path, out: Path, tokens: int, repositories: int, chars: int,
    tune_repositories: int,
) -> None:  # fmt: skip
    from c2l_lab.corpus import corpus
    from c2l_lab.train.memory import estimate_prior
    from c2l_lsp.model.hypernet import prior as priors
    from c2l_lsp.model.hypernet.gradient_memory import GradientMemory

    documents, held_out = list(corpus.documents(corpus_folder)), list(corpus.documents(tune))
    prior = estimate_prior.make_prior(
        base, documents, tokens=tokens, repositories=repositories, chars=chars, report=_report
    )
    memory = GradientMemory(base, prior)
    cases = estimate_prior.tuning_cases(memory, held_out, repositories=tune_repositories, report=_report)
    prior = estimate_prior.tune_scalars(base, prior, cases, _report)
    note = f"{tokens} tokens, {repositories} repositories of training text; steps on {len(cases)} tuning repositories"
    priors.save(prior, out, base.digest, note)
    typer.echo(f"{out}: {prior.scalars}")


def _train_by_gradient(
    base: BaseModel, kind: str, corpus_folder: Path, tune: Path, out: Path, run: Path, mirror: Path | None,
    minutes: float, options: dict[str, Any],
) -> None:  # fmt: skip
    from dataclasses import replace

    from c2l_lab.corpus import corpus
    from c2l_lab.train.devices import Devices
    from c2l_lab.train.hypernet.data import Sizes, pooled_maker, prepare
    from c2l_lab.train.hypernet.recipe import Recipe
    from c2l_lab.train.hypernet.streams import stream_maker
    from c2l_lab.train.hypernet.trainer import BEST, Leg, Trainer
    from c2l_lsp.errors import TrainingError
    from c2l_lsp.model.hypernet import checkpoint
    from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder

    if kind == "evo" and mirror is None:
        raise TrainingError("evo is trained on commits: pass the folder of git repositories with --mirror.")
    recipe = _with(Recipe(kind=kind), options)  # type: ignore[arg-type]
    sizes = _with(Sizes(window=recipe.window), {n: v for n, v in options.items() if n != "repositories"})
    if "repositories_embedded" in options:
        sizes = replace(sizes, repositories=options["repositories_embedded"])
    unknown = sorted(options.keys() - vars(recipe).keys() - vars(sizes).keys() - {"repositories_embedded"})
    if unknown:
        raise TrainingError(f"Unknown option of --set: {', '.join(unknown)}.")
    if recipe.prefix >= sizes.window:
        raise TrainingError(f"A window of {sizes.window} tokens has no token after a prefix of {recipe.prefix}.")
    encoder = EmbeddingEncoder.of_base(base)

    def read(folder: Path, name: str) -> Any:  # noqa: ANN401 - a list of repositories
        if mirror is not None and kind == "evo":
            make = stream_maker(base, encoder, sizes, mirror)
        else:
            make = pooled_maker(base, encoder, sizes, described=kind == "text2lora", held_out=name == "tune")
        cache = f"{name}-{kind}-{base.digest[:8]}"
        return prepare(run / "data", cache, corpus.documents(folder), make, sizes, _report)

    devices = Devices()
    for turn in (True, False):  # the first process computes the embeddings, the others then load them
        if turn == (devices.rank == 0):
            training, tuning = read(corpus_folder, "train"), read(tune, "tune")
        devices.sum(0.0)
    trainer = Trainer(run, recipe, base, training, tuning, devices)
    finished = trainer.train(Leg(minutes=minutes), _report)
    if trainer.devices.rank == 0 and (run / BEST / checkpoint.MANIFEST).is_file():
        best = checkpoint.load(run / BEST)
        checkpoint.save(best, out)
        typer.echo(f"{out}: {best.manifest.training}")
        if not finished:
            typer.echo(f"{trainer.step} of {recipe.steps} steps; run the same command again to continue.", err=True)


def _parsed(options: list[str]) -> dict[str, Any]:
    """{name: value} of NAME=VALUE options; values are JSON. Raises TrainingError for any other text."""
    from c2l_lsp.errors import TrainingError

    found = {}
    for option in options:
        name, equals, value = option.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError:
            equals = ""
        if not equals:
            raise TrainingError(f"--set takes NAME=VALUE with a number, true or false, not {option}.")
    return found


def _with(record: _T, values: dict[str, Any]) -> _T:
    """The record with the values that it has fields for; other values are ignored."""
    from dataclasses import replace

    return replace(record, **{n: v for n, v in values.items() if n in vars(record)})  # type: ignore[type-var]
