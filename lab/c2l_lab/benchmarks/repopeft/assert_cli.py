"""The command `c2l-lab bench assert`: RepoPeftBench for a list of repositories, from git folders to result rows.

`bench repopeft` has the same steps one by one. Importing this module loads neither torch nor pyarrow.
"""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from c2l_lab.benchmarks.repopeft.dataset.source import Dataset
    from c2l_lab.benchmarks.repopeft.methods import Method
    from c2l_lab.benchmarks.stats import Row
    from c2l_lsp.model.lm.base import BaseModel

SPLIT = "cr_test"  # held-out repositories


def bench_assert(
    list_file: Annotated[Path, typer.Option("--list", help="Held-out repositories, one owner/name a line.")],
    mirror: Annotated[Path, typer.Option("--mirror", help="Folder of git repositories, MIRROR/owner+name/repo.")],
    work: Annotated[Path, typer.Option("--work", help="Folder for data and predictions; runs continue.")] = Path(
        "assert"
    ),
    model: Annotated[str, typer.Option("--model", help="Hugging Face name or folder. Default: c2l-nano.")] = "",
    methods: Annotated[str, typer.Option(help="Comma-separated; base is always included.")] = "base,memory",
    most: Annotated[int, typer.Option(min=1, help="Tasks per repository.")] = 16,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    codebleu: Annotated[bool, typer.Option("--codebleu/--no-codebleu", help="Compute CodeBLEU.")] = True,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write rows and manifest to this file.")] = None,
) -> None:
    """Complete the expected values of assertions (RepoPeftBench), with each method against the base model.

    Scores are as published and strict, which means without looking at the reference.
    """
    import torch

    from c2l_lab.benchmarks import stats
    from c2l_lab.benchmarks.repopeft import cli, run
    from c2l_lab.benchmarks.repopeft.dataset import build
    from c2l_lab.benchmarks.repopeft.dataset.source import open_dataset
    from c2l_lab.corpus import sources
    from c2l_lsp.config import Model
    from c2l_lsp.model.lm import base

    started, clock = dt.datetime.now(dt.timezone.utc), time.perf_counter()
    torch.set_num_threads(1)  # results must not depend on the number of cores
    with cli.progress_bar("repositories") as progress:
        made = build.build(
            sources.read_list(list_file), mirror, work / "data", assign=SPLIT, workers=workers, progress=progress
        )
    dataset = open_dataset(work / "data", "commits")
    loaded = base.load(Model(path=model) if Path(model).is_dir() else Model(id=model or base.NANO))
    chosen = _methods(methods, loaded, mirror)
    files = {method.name: _predicted(dataset, method, loaded, work, most) for method in chosen}
    rows, p = _rows(dataset, files, most, codebleu)
    stats.show(rows, f"assert: base {loaded.id}")
    if json_out is not None:
        tasks = list(run.selected(dataset, SPLIT, most))
        data = {"split": SPLIT, "track": "commits", "most": most, "digest": run.digest(tasks)}
        manifest = cli.manifest_of_run(started, clock, data) | {
            "weights": {"base": loaded.digest, **{m.name: m.digest for m in chosen if m.digest}},
            "repositories": {about["repo_id"]: about["commit"] for about in made["repositories"]},
            "skipped": made["skipped"],
            "reasons": made["reasons"],
            "tasks": sum(len(step.tasks) for step in tasks),
            "p": p,
        }
        stats.write(json_out, manifest, rows)


def _methods(names: str, loaded: BaseModel, mirror: Path) -> list[Method]:
    from c2l_lab.benchmarks.repopeft.methods import METHODS
    from c2l_lsp.errors import CorpusError

    wanted = dict.fromkeys(["base", *names.split(",")])
    if unknown := sorted(wanted.keys() - METHODS.keys()):
        raise CorpusError(f"Unknown method {', '.join(unknown)}. Known methods: {', '.join(METHODS)}.")
    return [METHODS[name](loaded, mirror) for name in wanted]


def _predicted(dataset: Dataset, method: Method, loaded: BaseModel, work: Path, most: int) -> Path:
    """The file of a method's predictions; its name depends on everything that determines them."""
    import hashlib

    from c2l_lab.benchmarks.repopeft import cli, run
    from c2l_lab.benchmarks.repopeft.generate import Generator

    about = hashlib.blake2b(f"{loaded.digest} {method.digest}".encode(), digest_size=6).hexdigest()
    file = work / f"{method.name}-{about}.jsonl"
    total = sum(len(step.tasks) for step in run.selected(dataset, SPLIT, most))
    with cli.progress_bar(method.name) as progress:
        steps = run.selected(dataset, SPLIT, most)
        run.predict(steps, method, Generator(loaded), file, lambda done: progress(done, total))
    return file


def _rows(dataset: Dataset, files: dict[str, Path], most: int, codebleu: bool) -> tuple[list[Row], dict[str, float]]:
    """The rows of each method and its differences to `base`, as published and strict, with their p-values."""
    from c2l_lab.benchmarks.repopeft import run

    rows: list[Row] = []
    p: dict[str, float] = {}
    for strict in (False, True):
        scored = {
            name: run.score(run.selected(dataset, SPLIT, most), run.predictions(file), strict=strict, codebleu=codebleu)
            for name, file in files.items()
        }
        for name, values in scored.items():
            rows += run.rows(values, name, SPLIT, strict)
            if name != "base":
                for row, chance in run.differences(values, scored["base"], (name, "base"), SPLIT, strict):
                    rows.append(row)
                    p[f"{row.name} {row.method}"] = chance
    return rows, p
