"""The command `c2l-lsp train hypernet`. Importing this module loads no torch."""

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
    corpus_folder: Annotated[Path, typer.Option("--corpus", help="A built corpus to learn from.")],
    tune: Annotated[Path, typer.Option("--tune", help="A built corpus of other owners, to choose and judge on.")],
    out: Annotated[Path, typer.Option("--out", help="memory: a file (MODEL/memory.safetensors); else MODEL/KIND.")],
    model: Annotated[str, typer.Option("--model", help="Hugging Face name or folder; default: c2l-nano.")] = "",
    kind: Annotated[str, typer.Option("--kind", help=f"{', '.join(KINDS)}.")] = "memory",
    run: Annotated[Path | None, typer.Option("--run", help="Folder of the run (not for memory).")] = None,
    mirror: Annotated[Path | None, typer.Option("--mirror", help="evo: git folders, MIRROR/owner+name/repo.")] = None,
    minutes: Annotated[float, typer.Option(help="Stop after so long; the same command goes on.")] = 9.0,
    repositories: Annotated[int, typer.Option(help="Training repositories; 0 = the kind's own number.")] = 0,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE of the recipe or its sizes, e.g. steps=600, per_layer=false."),
    ] = None,
    tokens: Annotated[int, typer.Option(help="memory: tokens of training text for the curvature.")] = 30_000,
    chars: Annotated[int, typer.Option(help="memory: characters of each training repository.")] = 24_000,
    tune_repositories: Annotated[int, typer.Option(help="memory: tuning repositories.")] = 16,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 = what torch chooses.")] = 0,
) -> None:
    """Make a hypernetwork for a base model.

    memory: curvature, mean and steps, without gradient descent. static, evo, text2lora: gradient descent on the frozen
    base, judged by own against mean adapter on the tuning repositories; the best checkpoint is written to --out.
    """
    import torch

    from c2l_lsp.errors import TrainingError

    if kind not in KINDS:
        raise TrainingError(f"There is no kind {kind}: choose one of {', '.join(KINDS)}.")
    if threads:
        torch.set_num_threads(threads)
    loaded = _base(model)
    if kind == "memory":
        _memory(loaded, corpus_folder, tune, out, tokens, repositories or 48, chars, tune_repositories)
    elif run is None:
        raise TrainingError("Say where the run is kept: --run FOLDER.")
    else:
        chosen = _parsed(options or [])
        if repositories:
            chosen["repositories_embedded"] = repositories
        _gradient(loaded, kind, corpus_folder, tune, out, run, mirror, minutes, chosen)


def _base(model: str) -> BaseModel:
    from c2l_lab.train.devices import Devices
    from c2l_lsp.config import Model
    from c2l_lsp.model.lm import base

    device = str(Devices().device)
    if Path(model).is_dir():
        return base.load(Model(device=device, path=model))
    return base.load(Model(device=device, id=model or base.NANO))


def _say(line: object) -> None:
    typer.echo(line if isinstance(line, str) else json.dumps(line), err=True)


def _memory(
    loaded: BaseModel, corpus_folder: Path, tune: Path, out: Path, tokens: int, repositories: int, chars: int,
    tune_repositories: int,
) -> None:  # fmt: skip
    from dataclasses import replace

    from c2l_lab.corpus import corpus
    from c2l_lab.train.memory import estimate_prior, mixture_gate
    from c2l_lsp.model.hypernet import prior
    from c2l_lsp.model.hypernet.gradient_memory import GradientMemory

    documents, held_out = list(corpus.documents(corpus_folder)), list(corpus.documents(tune))
    made = estimate_prior.make_prior(loaded, documents, tokens=tokens, repositories=repositories, chars=chars, say=_say)
    cases = estimate_prior.tune_cases(GradientMemory(loaded, made), held_out, repositories=tune_repositories, say=_say)
    chosen = estimate_prior.tune_scalars(loaded, made, cases, _say)
    fitted = mixture_gate.fit(mixture_gate.sights(GradientMemory(loaded, chosen), held_out, _say), _say)
    chosen = replace(chosen, mixture_gate=fitted)
    note = f"{tokens} tokens, {repositories} repositories of training text; steps on {len(cases)} tuning repositories"
    prior.save(chosen, out, loaded.digest, note)
    typer.echo(f"{out}: {chosen.scalars}, {chosen.mixture_gate}")


def _gradient(
    loaded: BaseModel, kind: str, corpus_folder: Path, tune: Path, out: Path, run: Path, mirror: Path | None,
    minutes: float, chosen: dict[str, Any],
) -> None:  # fmt: skip
    from dataclasses import replace

    from c2l_lab.corpus import corpus
    from c2l_lab.train.devices import Devices
    from c2l_lab.train.hypernet.data import Sizes, pooled_maker, prepared
    from c2l_lab.train.hypernet.recipe import Recipe
    from c2l_lab.train.hypernet.streams import stream_maker
    from c2l_lab.train.hypernet.trainer import BEST, Leg, Trainer
    from c2l_lsp.errors import TrainingError
    from c2l_lsp.model.hypernet import checkpoint
    from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder

    if kind == "evo" and mirror is None:
        raise TrainingError("evo learns from commits: name their git folders with --mirror.")
    recipe = _with(Recipe(kind=kind), chosen)  # type: ignore[arg-type]
    sizes = _with(Sizes(window=recipe.window), {n: v for n, v in chosen.items() if n != "repositories"})
    if "repositories_embedded" in chosen:
        sizes = replace(sizes, repositories=chosen["repositories_embedded"])
    unknown = sorted(chosen.keys() - vars(recipe).keys() - vars(sizes).keys() - {"repositories_embedded"})
    if unknown:
        raise TrainingError(f"--set knows no {', '.join(unknown)}.")
    encoder = EmbeddingEncoder.of_base(loaded)

    def read(folder: Path, name: str) -> Any:  # noqa: ANN401 - a list of repositories
        if mirror is not None and kind == "evo":
            make = stream_maker(loaded, encoder, sizes, mirror)
        else:
            make = pooled_maker(loaded, encoder, sizes, described=kind == "text2lora", held_out=name == "tune")
        return prepared(run / "data", f"{name}-{kind}-{loaded.digest[:8]}", corpus.documents(folder), make, sizes, _say)

    devices = Devices()
    for turn in (True, False):  # the first process makes the embeddings, the others find them made
        if turn == (devices.rank == 0):
            learned, judged = read(corpus_folder, "train"), read(tune, "tune")
        devices.sum(0.0)
    trainer = Trainer(run, recipe, loaded, learned, judged, devices)
    done = trainer.train(Leg(minutes=minutes), _say)
    if trainer.devices.rank == 0 and (run / BEST / checkpoint.MANIFEST).is_file():
        best = checkpoint.load(run / BEST)
        checkpoint.save(best, out)
        typer.echo(f"{out}: {best.manifest.training}")
        if not done:
            typer.echo(f"{trainer.step} of {recipe.steps} steps; the same command goes on.", err=True)


def _parsed(options: list[str]) -> dict[str, Any]:
    """{name: value} of NAME=VALUE texts; values are JSON. TrainingError for what is neither."""
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
    """The record with those of the values that it has fields for."""
    from dataclasses import replace

    return replace(record, **{n: v for n, v in values.items() if n in vars(record)})  # type: ignore[type-var]
