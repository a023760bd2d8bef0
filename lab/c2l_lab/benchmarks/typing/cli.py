"""The command `c2l-lab bench typing`. Importing this module loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from c2l_lab.benchmarks.perf.typing import Place
    from c2l_lab.benchmarks.typing.author import Counts

_PATIENT: dict[str, object] = {"completion.debounceMs": 0, "completion.maxLatencyMs": 20_000}
_PATIENCE_S = 30.0
WITH, WITHOUT, LLAMA = "with adapter", "base model alone", "llama.cpp behind llama.vim's rules"


def bench_typing(
    repositories: Annotated[list[Path], typer.Argument(help="Git repositories, for example those of eval.txt.")],
    model: Annotated[str, typer.Option("--model", help="Model id for the server.")] = "c2l-nano",
    patient: Annotated[
        bool,
        typer.Option("--patient", help="Wait for every answer: measures the texts without the speed of the machine."),
    ] = False,
    places: Annotated[int, typer.Option(help="Insertions per repository, one a commit.")] = 6,
    kilobytes: Annotated[int, typer.Option(help="Text that the adapter reads in full (c2l.adapter.maxIndexKb).")] = 256,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the server, as completion.debounceMs=20; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the pauses between keys.")] = 0,
    llama: Annotated[
        Path | None,
        typer.Option(
            "--llama", help="Folder with node-llama-cpp: also type behind llama.vim's rules, always patiently."
        ),
    ] = None,
    work: Annotated[
        Path | None, typer.Option("--work", help="Folder for results so far; the same command continues.")
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write rows and manifest to this file.")] = None,
) -> None:
    """Type commits again over LSP with a simulated author: keystrokes saved, wrong characters shown, flicker.

    The folder is a checkout from before the typed commits, so the adapter has not seen their text.
    """
    import datetime as dt
    from functools import partial

    from c2l_lab.benchmarks import stats
    from c2l_lab.benchmarks.perf.typing import places as find_places
    from c2l_lab.benchmarks.result_cache import ResultCache
    from c2l_lab.benchmarks.typing import measure

    started = dt.datetime.now(dt.timezone.utc)
    waiting = _PATIENT if patient else {}
    settings = {**waiting, "model.id": model, "adapter.maxIndexKb": kilobytes, **_settings(option or [])}
    cache = ResultCache(work / f"typing-{model.replace('/', '+')}.jsonl" if work is not None else None)
    sides: dict[str, dict[str, Counts]] = {WITH: {}, **({LLAMA: {}} if llama is not None else {}), WITHOUT: {}}
    for repository in repositories:
        name = repository.parent.name if repository.name in ("repo", ".git") else repository.name
        found = find_places([repository], places, seed)
        if not found:
            typer.echo(f"{name}: no place", err=True)
            continue
        texts = [place.prefix + "".join(key.text for key in place.keys) for place in found]
        for side, counts in sides.items():
            typed = partial(_typed, repository, found, {**settings, "adapter.enable": side == WITH}, patient)
            if side == LLAMA and llama is not None:
                typed = partial(_typed_in_vim, found, model, llama)
            counts[name] = measure.from_values(cache.get_or_compute((side, name, seed, settings), texts, typed))
            saved = 1 - counts[name].pressed / counts[name].keys
            typer.echo(f"{name}: {side}: {saved:.1%} of {counts[name].keys} keys saved", err=True)
    rows = measure.rows(sides)
    stats.show(rows, f"typing: {len(sides[WITH])} repositories, {model}")
    if json_out is not None:
        manifest = {
            "model": model, "repositories": list(sides[WITH]), "places": places, "patient": patient,
            "settings": settings, "seed": seed, "date": started.isoformat(timespec="seconds"),
            "keys": sum(one.keys for one in sides[WITH].values()),
        }  # fmt: skip
        stats.write(json_out, manifest, rows)


def _settings(options: list[str]) -> dict[str, object]:
    """Settings from `name=value`, each value as JSON or else as text. SettingError without a "="."""
    import json

    from c2l_lsp.errors import SettingError

    found: dict[str, object] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise SettingError(f"--set {option} is not of the form name=value.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _typed(repository: Path, found: list[Place], settings: dict[str, object], patient: bool) -> dict[str, float]:
    """The counts of one repository's places on one side."""
    import tempfile

    from c2l_lab.benchmarks.typing import measure, sides

    with tempfile.TemporaryDirectory(prefix="c2l-typing-") as folder:
        work = Path(folder) / "work"
        measure.checkout(repository, found[-1].parent, work)
        with sides.Server(work, Path(folder) / "private", settings) as server:
            return measure.as_values(measure.type_all(server, found, _PATIENCE_S if patient else 0.0))


def _typed_in_vim(found: list[Place], model: str, node: Path) -> dict[str, float]:
    """The counts of one repository's places with llama.cpp."""
    import tempfile

    from c2l_lab.benchmarks.typing import llama_vim, measure
    from c2l_lsp.config import Model
    from c2l_lsp.model.lm import base

    with tempfile.TemporaryDirectory(prefix="c2l-typing-") as folder:
        loaded = base.load(Model(id=model))
        with llama_vim.LlamaVim(loaded, node, Path(folder)) as side:
            return measure.as_values(measure.type_all(side, found))


def bench_thresholds(
    repositories: Annotated[list[Path], typer.Argument(help="Git repositories, those of tune.txt.")],
    model: Annotated[str, typer.Option("--model", help="Hugging Face name or folder.")] = "c2l-nano",
    places: Annotated[int, typer.Option(help="Insertions per repository, one a commit.")] = 8,
    most_wrong: Annotated[float, typer.Option(help="Wrong characters shown per 100 typed, at most.")] = 16.0,
) -> None:
    """Choose the confidence thresholds of a model on tuning text, for the base model alone."""
    from c2l_lab.benchmarks.perf.typing import places as find_places
    from c2l_lab.benchmarks.typing import choose, traces
    from c2l_lsp.config import Model
    from c2l_lsp.model.lm import base

    loaded = base.load(Model(path=model) if Path(model).is_dir() else Model(id=model))
    tracer = traces.Tracer(loaded)
    found = [place for repository in repositories for place in find_places([repository], places)]
    traced = []
    for number, place in enumerate(found):
        traced.append(choose.TracedPlace(place, dict(traces.of_place(tracer, place, str(number)))))
        typer.echo(f"{number + 1} of {len(found)} places", err=True)
    simulation = choose.Simulation(traced)
    results = [(one, simulation.counts(one)) for one in choose.grid()]
    for bound in sorted({most_wrong / 2, most_wrong, most_wrong * 2}):
        thresholds, counts = choose.best(results, bound)
        typer.echo(
            f"at most {bound:g} wrong: {thresholds}: {choose.saved(counts):.1%} of {counts.keys} keys saved, "
            f"{choose.wrong(counts):.1f} wrong characters shown per 100"
        )


def bench_gallery(
    repository: Annotated[Path, typer.Argument(help="A git repository whose text may be published.")],
    out: Annotated[Path, typer.Argument(help="Markdown file to write.")],
    model: Annotated[str, typer.Option("--model", help="Model id for the server.")] = "c2l-small",
    places: Annotated[int, typer.Option(help="Number of places.")] = 30,
    until: Annotated[str, typer.Option(help="The last commit whose text is taken.")] = "HEAD",
    server: Annotated[str, typer.Option("--server", help="Command of another server to show.")] = "",
) -> None:
    """Write what a reviewer would see at some places: the cursor, the unasked and the requested ghost texts."""
    import shlex
    import tempfile

    from c2l_lab.benchmarks.perf.typing import places as find_places
    from c2l_lab.benchmarks.typing import gallery
    from c2l_lab.clients.lsp import SERVER

    found = find_places([repository], places, until=until)
    with tempfile.TemporaryDirectory(prefix="c2l-gallery-") as private:
        text = gallery.gallery(shlex.split(server) or SERVER, Path(private), model, found)
    out.write_text(f"# Ghost texts of {model}, without adapter\n\n{text}", encoding="utf-8")
