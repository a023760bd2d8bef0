"""The command `c2l-lab bench recency`. Importing this module loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench_recency(
    train: Annotated[Path, typer.Option("--train", help="List of training repositories.")],
    tune: Annotated[Path, typer.Option("--tune", help="List of repositories of other owners, to choose on.")],
    held_out: Annotated[Path, typer.Option("--eval", help="List of repositories of other owners, to measure on.")],
    mirror: Annotated[Path, typer.Option("--mirror", help="Git folders, MIRROR/owner+name/repo.")],
    run: Annotated[Path, typer.Option("--run", help="Folder of the embedded streams; those present are reused.")],
    model: Annotated[str, typer.Option("--model", help="Hugging Face name or folder; default: c2l-nano.")] = "",
    commits: Annotated[int, typer.Option(min=8, help="Commits that are followed in each repository.")] = 24,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 = torch's default.")] = 0,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write rows and manifest to this file.")] = None,
) -> None:
    """Measure what the recent memory gains while commits are followed: constants, and a GRU trained to set them."""
    import torch

    from c2l_lab.benchmarks import stats
    from c2l_lab.benchmarks.recency import experiment
    from c2l_lab.benchmarks.recency.records import Record, make_records
    from c2l_lab.benchmarks.recency.streams import Sizes
    from c2l_lab.corpus.sources import read_list, require_disjoint
    from c2l_lab.train.hypernet.cli import load_base
    from c2l_lsp.engine.adaptation import registry
    from c2l_lsp.errors import TrainingError
    from c2l_lsp.model.hypernet.gradient_memory import GradientMemory

    if threads:
        torch.set_num_threads(threads)
    require_disjoint(read_list(train), [tune, held_out])
    require_disjoint(read_list(tune), [held_out])
    base = load_base(model)
    prior = registry.shipped_prior(base)
    if prior is None:
        raise TrainingError(f"No prior ships with {base.id}.")
    memory = GradientMemory(base, prior)

    def records(file: Path) -> list[Record]:
        found = make_records(memory, read_list(file), mirror, run, Sizes(commits=commits), _say)
        if not found:
            raise TrainingError(f"No repository of {file.name} has enough commits: check --mirror.")
        return found

    replays = {file: experiment.replays_of(memory, records(file), _say) for file in (train, tune)}
    fitted = experiment.fit(memory, replays[train], replays[tune], _say)
    measured = records(held_out)
    rows, each = experiment.table(memory, measured, experiment.replays_of(memory, measured, _say), fitted, _say)
    stats.show(rows, f"recent memory: {len(measured)} repositories, base {base.id}")
    if json_out is not None:
        counts = {"train": len(replays[train]), "tune": len(replays[tune]), "eval": len(measured)}
        manifest = {"model": base.id, "base": base.digest, "repositories": counts, **experiment.about(fitted)}
        stats.write(json_out, {**manifest, "each": each}, rows)


def _say(line: str) -> None:
    typer.echo(line, err=True)
