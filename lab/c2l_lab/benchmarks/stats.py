"""Result rows and 95 % bootstrap intervals over repositories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Row:
    """One value with its 95 % interval (`low`, `high`). `bar` and `holds` are None for a row without a threshold."""

    name: str
    method: str
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""
    bar: str | None = None
    holds: bool | None = None


def clustered(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """The mean over repositories and its 95 % percentile bootstrap interval."""
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        return float("nan"), float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(0, data.size, (RESAMPLES, data.size))
    low, high = np.percentile(data[draws].mean(axis=1), [2.5, 97.5])
    return float(data.mean()), float(low), float(high)


def row(name: str, method: str, values: Sequence[float], unit: str) -> Row:
    """A row from one value per repository."""
    return Row(name, method, *clustered(values), unit)


def write(path: Path, manifest: dict[str, Any], rows: Sequence[Row]) -> None:
    """Write a result file: a JSON object with "manifest" and "rows"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"manifest": manifest, "rows": [asdict(item) for item in rows]}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def show(rows: Sequence[Row], title: str) -> None:
    """Print rows as a table; rows that miss their bar come last, in red."""
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "method", "value", "95 %", "unit", "bar", title=title)
    for column in table.columns:
        column.no_wrap = True
    for item in sorted(rows, key=lambda r: r.holds is False):
        spread = "" if item.low is None or item.high is None else f"[{item.low:.4f}, {item.high:.4f}]"
        style = "red" if item.holds is False else None
        value = f"{item.value:,.0f}" if float(item.value).is_integer() else f"{item.value:.4f}"
        table.add_row(item.name, item.method, value, spread, item.unit, item.bar or "", style=style)
    console = Console()
    console.width = max(console.width, 0 if console.is_terminal else 180)  # a log has no width
    console.print(table)
