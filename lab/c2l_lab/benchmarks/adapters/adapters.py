"""`bench adapt`: run the units of the adapter table, and make its rows, manifest and reports of them."""

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
"""(units done, units of this leg, what comes next)."""


@dataclass(frozen=True)
class Out:
    """Files to write; None leaves one out."""

    json: Path | None = None
    html: Path | None = None
    markdown: Path | None = None


def work(run: Run, shard: tuple[int, int], minutes: float, tick: Tick) -> bool:
    """Do a shard's units, at most so many minutes (0: all); whether all of them are done."""
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
    """Seconds a shard's open units will take, by finished ones of their kind; and units of kinds not known yet."""
    spent: dict[tuple[str, str], list[float]] = {}
    for unit in run.units():
        if run.file(unit).is_file():
            spent.setdefault((unit.method, unit.part), []).append(run.do(unit)["cost"]["seconds"])
    left = [unit for unit in run.share(shard) if not run.file(unit).is_file()]
    known = [spent[kind] for unit in left if (kind := (unit.method, unit.part)) in spent]
    return sum(sum(times) / len(times) for times in known), len(left) - len(known)


def assemble(run: Run, missing: dict[str, str], out: Out) -> list[Row]:
    """Rows of all units; writes the files asked for."""
    values = run.results()
    results = table.Results(values)
    rows = table.rows(results)
    about = manifest(run, missing, values)
    if out.json is not None:
        made = {"manifest": about, "rows": [_plain(row) for row in rows]}
        report.save(out.json, json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    if out.markdown is not None:
        report.save(out.markdown, report.markdown(rows, about))
    if out.html is not None:
        report.save(out.html, report.page(rows, about, results))
    return rows


def _plain(row: Row) -> dict[str, Any]:
    """A row for JSON, which knows no NaN."""
    return {key: None if isinstance(value, float) and value != value else value for key, value in asdict(row).items()}


def manifest(run: Run, missing: dict[str, str], values: dict[Any, Any]) -> dict[str, Any]:
    """Everything the figures stand on."""
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
            "prefixes": f"in-file tokens really read: {prefixes} (the model has {model.max_context} positions)",
            "retrieval": f"{count} chunks of {size} tokens, taken from the prefix's room; nothing at prefix 0",
            "mean": "leave-one-out over the other compared repositories",
            "line track": "the engine's prompt builder, decoder and stop rules; "
            + ("fill in the middle" if model.fim else "text before the cursor only"),
            "states": "target files, their earlier names and near-duplicates left out at every age",
        },
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cpu_seconds": round(sum(value["cost"]["cpu"] for value in values.values()), 1),
        "units": len(values),
    }
