"""The command `c2l-lab bench perf`. Importing this module loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench_perf(
    rows: Annotated[str, typer.Option("--rows", help="Rows to measure, separated by commas. Default: all.")] = "",
    listed: Annotated[Path | None, typer.Option("--list", help="File with one repository, owner/name, a line.")] = None,
    mirror: Annotated[Path | None, typer.Option("--mirror", help="Folder of their git repositories.")] = None,
    repositories: Annotated[int, typer.Option("--repos", help="Number of repositories of the list.")] = 16,
    model: Annotated[str, typer.Option("--model", help="Hugging Face name or folder. Default: c2l.model.id.")] = "",
    device: Annotated[str, typer.Option("--device", help="cpu, or cuda for the GPU rows.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads, also of the peers. 0: the default of the engine.")] = 0,
    repeats: Annotated[
        int, typer.Option(help="Repeats of a measurement; use at least 15 for results to publish.")
    ] = 15,
    places: Annotated[int, typer.Option(help="Number of places where typing is replayed.")] = 40,
    speed: Annotated[float, typer.Option(help="Typing speed, as a multiple of human speed.")] = 1.0,
    miniature: Annotated[
        bool, typer.Option("--miniature", help="Smallest sizes: tests that the rows run; the values mean nothing.")
    ] = False,
    work: Annotated[
        Path | None, typer.Option("--work", help="Folder for exported weights and generated folders.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ignore the rows that the file already has.")] = False,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Result file; rows that it already has are not measured again.")
    ] = None,
) -> None:
    """Measure speed, as ratios to peers with the same weights in the same run. Exit code 1 if a row misses its bar."""
    import tempfile

    import torch

    from c2l_lab.benchmarks.perf import measure, run
    from c2l_lab.benchmarks.perf.workload import Workload, machine
    from c2l_lab.corpus.sources import git_folder, read_list
    from c2l_lsp.config import Settings, merge
    from c2l_lsp.model.lm import base
    from c2l_lsp.model.runtime.hardware import thread_count as usual

    threads = threads or usual()
    torch.set_num_threads(threads)
    values = {
        "model.device": device,
        **({"model.path" if Path(model).is_dir() else "model.id": model} if model else {}),
    }
    settings, errors = merge(Settings(), values, source="--model, --device", machine=True)
    if errors:
        raise errors[0]
    names = read_list(listed)[:repositories] if listed is not None else []
    roots = [git_folder(name, mirror or Path()) for name in names] or [Path.cwd()]
    folder = work or Path(tempfile.mkdtemp(prefix="c2l-perf-"))
    folder.mkdir(parents=True, exist_ok=True)
    repeats = min(repeats, 2) if miniature else repeats
    load = Workload(settings, roots, folder.resolve(), repeats, threads, miniature, speed, places)
    table = run.ROWS if device == "cpu" else run.GPU_ROWS
    wanted = run.chosen([name for name in rows.split(",") if name], table)
    about = {**machine(threads), "model": model or base.resolve_auto(settings.model).id, "miniature": miniature}
    earlier = measure.load(json_out, about) if json_out is not None else []
    if not fresh and not rows:
        wanted = {name: action for name, action in wanted.items() if name not in run.done(earlier, wanted)}
    manifest = {**about, **_origin(names, repeats)}
    found = run.run(load, wanted, json_out, manifest, earlier, lambda line: typer.echo(line, err=True))
    title = f"perf: {about['cpu']}, {threads} threads of {about['cores']} cores, {repeats} repeats, quartiles as spread"
    measure.show(found, title + (" – MINIATURE, figures mean nothing" if miniature else ""))
    raise typer.Exit(1 if any(item.holds is False for item in found) else 0)


def _origin(names: list[str], repeats: int) -> dict[str, object]:
    import datetime

    from c2l_lsp import __version__

    at = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {"code": __version__, "started": at, "repeats": repeats, "data": names}
