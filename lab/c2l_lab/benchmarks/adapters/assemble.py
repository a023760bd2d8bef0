"""Runs the units of `bench adapt` and turns their results into rows, a manifest and reports."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from c2l_lab.benchmarks.adapters import report, table
from c2l_lab.benchmarks.adapters.run import Run
from c2l_lab.benchmarks.adapters.scoring import PREFIXES, prefix_of
from c2l_lab.benchmarks.methods.retrieval import budget_of
from c2l_lab.benchmarks.stats import Row
from c2l_lsp import __version__

Tick = Callable[[int, int, str], None]
"""Called with the units done, the units of this run, and the next unit."""


@dataclass(frozen=True)
class Out:
    """The files to write; None: not this one."""

    json: Path | None = None
    markdown: Path | None = None


def work(run: Run, shard: tuple[int, int], minutes: float, tick: Tick) -> bool:
    """Run the units of a shard for at most `minutes` minutes (0: no limit); whether all are done."""
    units = run.share(shard)
    deadline = time.monotonic() + minutes * 60 if minutes else float("inf")
    for done, unit in enumerate(units):
        tick(done, len(units), f"{unit.repository} {unit.method} {unit.part}")
        if time.monotonic() > deadline:
            return False
        run.do(unit)
    tick(len(units), len(units), "")
    return True


def estimate(run: Run, shard: tuple[int, int]) -> tuple[float, int]:
    """The expected seconds for a shard's open units whose kind was timed before, and the number of the other ones."""
    spent: dict[tuple[str, str], list[float]] = {}
    for unit in run.units():
        if run.file(unit).is_file():
            spent.setdefault((unit.method, unit.part), []).append(run.do(unit)["cost"]["seconds"])
    open_units = [unit for unit in run.share(shard) if not run.file(unit).is_file()]
    known = [spent[kind] for unit in open_units if (kind := (unit.method, unit.part)) in spent]
    return sum(sum(times) / len(times) for times in known), len(open_units) - len(known)


def assemble(run: Run, missing: dict[str, str], out: Out) -> list[Row]:
    """The rows of all units; also writes the files in `out`."""
    values = run.results()
    rows = table.rows(table.Results(values))
    about = manifest(run, missing, values)
    if out.json is not None:
        made = {"manifest": about, "rows": [_plain(row) for row in rows]}
        report.save(out.json, json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    if out.markdown is not None:
        report.save(out.markdown, report.markdown(rows, about))
    return rows


def _plain(row: Row) -> dict[str, Any]:
    """A row for JSON, which has no NaN."""
    return {key: None if isinstance(value, float) and value != value else value for key, value in asdict(row).items()}


def manifest(run: Run, missing: dict[str, str], values: dict[Any, Any]) -> dict[str, Any]:
    """Code, weights, data, sizes and machine behind the rows."""
    model, found = run.model, [run.repositories[name] for name in run.repositories.names]
    count, size = budget_of(model)
    prefixes = {str(prefix): prefix_of(model, prefix) for prefix in PREFIXES}
    return {
        "code": __version__,
        "weights": {**{m.name: m.digest for m in run.methods.values()}, "base": model.digest},
        "model": model.id if not Path(model.id).is_dir() else Path(model.id).name,
        "not_trained": missing,
        "data": {case.name: case.commit for case in found},
        "cases": {case.name: {"digest": case.digest, **case.counts} for case in found},
        "left_out": run.repositories.refused,
        "parts_left_out": sorted(run.plan.without),
        "sizes": asdict(run.plan.sizes),
        "amounts": asdict(run.plan.amounts),
        "prefix_tokens": prefixes,
        "seeds": [0],
        "notes": {
            "prefixes": f"in-file tokens before the scored window: {prefixes}; model positions: {model.max_context}",
            "retrieval": f"{count} chunks of {size} tokens, which replace part of the prefix; none at prefix 0",
            "mean": "leave-one-out: the mean over the other repositories",
            "line track": "prompt, decoder and stop rules of the engine; "
            + ("fill in the middle" if model.fim else "only the text before the cursor"),
            "states": "without the target files, their earlier names and near-duplicates, at every age",
        },
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cpu_seconds": round(sum(value["cost"]["cpu"] for value in values.values()), 1),
        "units": len(values),
    }
