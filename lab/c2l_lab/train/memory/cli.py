"""The command `c2l-lab train mixture`. Importing this module loads no torch."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from c2l_lab.train.memory.mixture_rows import Rows
    from c2l_lsp.model.lm.base import BaseModel


def train_mixture(
    train: Annotated[Path, typer.Option("--train", help="List of training repositories.")],
    tune: Annotated[Path, typer.Option("--tune", help="List of repositories of other owners, to measure on.")],
    mirror: Annotated[Path, typer.Option("--mirror", help="Git folders, MIRROR/owner+name/repo.")],
    run: Annotated[Path, typer.Option("--run", help="Folder of the collected rows; those present are reused.")],
    out: Annotated[Path, typer.Option("--out", help="File of the gate, e.g. assets/mixture/any.safetensors.")],
    models: Annotated[list[str], typer.Option("--model", help="Base model whose rows are fitted; may be repeated.")],
    measure: Annotated[
        list[str] | None, typer.Option("--measure", help="Base model that is only measured; may be repeated.")
    ] = None,
    owner: Annotated[str, typer.Option("--for", help="Shipped model that the gate is for; default: any model.")] = "",
    repositories: Annotated[int, typer.Option(help="Training repositories for each model.")] = 40,
    keyed: Annotated[int, typer.Option(help="Most characters of a repository that get neural keys.")] = 200_000,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="File to list the training repositories in.")
    ] = None,
    ablate: Annotated[bool, typer.Option("--ablate", help="Also fit without each feature.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 = torch's default.")] = 0,
) -> None:
    """Fit the mixture gate of the repository memory: its weights for the token vote and the key vote."""
    import torch

    from c2l_lab.corpus.sources import read_list, require_disjoint
    from c2l_lab.train.memory import mixture_fit
    from c2l_lab.train.memory.mixture_rows import FORMS, TIERS
    from c2l_lsp.errors import TrainingError
    from c2l_lsp.model.adapter import mixture

    if threads:
        torch.set_num_threads(threads)
    names, others = read_list(train), read_list(tune)
    require_disjoint(names, [tune])
    random.Random(0).shuffle(names)  # noqa: S311 - a sample, not a secret
    rows: list[Rows] = []
    used: dict[str, list[str]] = {}
    measured: dict[str, list[Rows]] = {}
    for model in dict.fromkeys([*models, *(measure or [])]):
        collect = _collector(model, mirror, run / Path(model).name, keyed)
        found = _first(names, collect, repositories) if model in models else {}
        used |= {Path(model).name: list(found)} if found else {}
        rows += found.values()
        measured[model] = list(_first(others, collect, len(others)).values())
    if not rows or not all(measured.values()):
        raise TrainingError("No row could be collected: check --mirror and the lists.")
    gate = mixture_fit.fit(rows)
    for model, tuning in measured.items():
        for tier, label in enumerate(TIERS):
            for form, name in enumerate(FORMS):
                some = [part for one in tuning if len((part := _part(one, tier, form)).tier)]
                if some:
                    changes = [mixture_fit.change(gate, one) for one in some]
                    error = mixture_fit.calibration_error(gate, some)
                    typer.echo(f"{model}, {name}, {label}: {mixture_fit.row(changes)}, calibration error {error:.4f}")
        if ablate:
            mixture_fit.ablation(rows, tuning, typer.echo)
    digest = _load(owner).digest if owner else ""
    mixture.save(gate, out, digest, ", ".join(f"{model}: {len(found)} repositories" for model, found in used.items()))
    if manifest is not None:
        manifest.write_text(json.dumps(_manifest(used, mirror), indent=1) + "\n", encoding="utf-8")


def _part(rows: Rows, tier: int, form: int) -> Rows:
    """The rows of a tier and a form; of windows those after the longest prefix."""
    chosen = (rows.tier == tier) & (rows.form == form)
    return rows.where(chosen & ((rows.form == 1) | (rows.prefix == rows.prefix[rows.form == 0].max())))


def _first(names: list[str], collect: Callable[[str], Rows | None], count: int) -> dict[str, Rows]:
    """The rows of the first `count` repositories that have any."""
    found: dict[str, Rows] = {}
    for name in names:
        if len(found) >= count:
            break
        rows = collect(name)
        if rows is not None:
            found[name] = rows
    return found


def _manifest(used: Mapping[str, list[str]], mirror: Path) -> dict[str, Any]:
    """The repositories that rows of each model are from, and commit and licence of every repository."""
    from c2l_lab.train.memory.mixture_rows import origin

    origins = {name: origin(name, mirror) for name in sorted({name for names in used.values() for name in names})}
    listed = [{"name": name, "commit": one.commit, "licence": one.licence} for name, one in origins.items()]
    return {"models": {model: sorted(names) for model, names in used.items()}, "repositories": listed}


def _collector(model: str, mirror: Path, folder: Path, keyed: int) -> Callable[[str], Rows | None]:
    """A function from a repository to its rows, which are kept in `folder`; None if it cannot be used."""
    from functools import cache

    from c2l_lab.train.memory import mixture_fit, mixture_rows
    from c2l_lsp.errors import CorpusError

    loaded = cache(lambda: _load(model))
    sizes = mixture_rows.Sizes(keyed=keyed)

    def collect(name: str) -> Rows | None:
        path = folder / f"{name.replace('/', '+')}.safetensors"
        if path.is_file():
            return mixture_rows.Rows.load(path)
        try:
            texts = mixture_rows.split(name, mirror, sizes)
            rows = mixture_rows.collect(loaded(), mixture_fit.untrained(), texts, sizes, name)
        except CorpusError as error:
            typer.echo(str(error), err=True)
            return None
        rows.save(path)
        typer.echo(f"{name}: {len(rows.tier)} rows", err=True)
        return rows

    return collect


def _load(model: str) -> BaseModel:
    from c2l_lsp.config import Model
    from c2l_lsp.model.lm import fast_loader

    return fast_loader.load(Model(path=model) if Path(model).is_dir() else Model(id=model))
