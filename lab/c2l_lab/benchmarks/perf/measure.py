"""Timings and result rows: median, quartiles, ratio, bar, and whether the bar is met. Knows no models."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from c2l_lsp.errors import StorageError

ABSENT = "peer not installed"


@dataclass(frozen=True)
class Bar:
    """A threshold: the value must be at most, or at least, `limit`."""

    limit: float
    least: bool = False

    def holds(self, figure: float) -> bool:
        """Whether a value meets the bar; NaN does not."""
        return figure >= self.limit if self.least else figure <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.limit:.4g}"


@dataclass(frozen=True)
class PerfRow:
    """One result: `value` in `unit`. The bar applies to `ratio` if there is one, else to `value`.

    `low` and `high` are the quartiles of the repeats of `value`. `holds` is None without a bar.
    """

    name: str
    value: float | None
    unit: str
    ratio: float | None = None
    bar: str = ""
    holds: bool | None = None
    repeats: int = 0
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """PASS, FAIL, or "" without a bar or without a value."""
        return "" if self.holds is None else ("PASS" if self.holds else "FAIL")


def row(
    name: str, values: Sequence[float], unit: str, *, ratio: float | None = None, bar: Bar | None = None, note: str = ""
) -> PerfRow:
    """A row from repeated measurements; its value is their median."""
    middle = statistics.median(values)
    low, high = quartiles(values)
    judged = middle if ratio is None else ratio
    holds = bar.holds(judged) if bar is not None else None
    return PerfRow(name, middle, unit, ratio, str(bar or ""), holds, len(values), low, high, note)


def absent(name: str, unit: str, bar: Bar | None, why: str = ABSENT) -> PerfRow:
    """A row without a value, which neither passes nor fails."""
    return PerfRow(name, None, unit, None, str(bar or ""), None, 0, None, None, why)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The lower and the upper quartile; a single value is both."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def percentile(values: Sequence[float], share: float) -> float:
    """The percentile at `share`, by the nearest-rank method."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def seconds(action: Callable[[], object]) -> float:
    """The seconds that an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def alternate(actions: Mapping[str, Callable[[], float]], repeats: int, warm: int = 1) -> dict[str, list[float]]:
    """The results of each action. The actions alternate, so that a change of the machine's load affects all of them."""
    found: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(warm + repeats):
        for name, action in actions.items():
            value = action()
            if number >= warm:
                found[name].append(value)
    return found


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """The ratio of two medians."""
    return statistics.median(of) / max(statistics.median(to), 1e-12)


# --- the file --------------------------------------------------------------------------------------------------------


def load(path: Path, machine: Mapping[str, Any]) -> list[PerfRow]:
    """The rows of an earlier run on the same machine with the same weights; [] if there are none."""
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_text("utf-8"))
        same = all(found["manifest"].get(name) == value for name, value in machine.items())
        return [PerfRow(**plain) for plain in found["rows"]] if same else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} is not a result file of bench perf ({error}). Name another file.") from error


def save(path: Path, manifest: Mapping[str, Any], rows: Sequence[PerfRow]) -> None:
    """Write a result file: a JSON object with "manifest" and "rows"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {"manifest": dict(manifest), "rows": [asdict(item) for item in rows]}
    path.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def show(rows: Sequence[PerfRow], title: str) -> None:
    """Print rows as a table; missed bars are red."""
    from rich.console import Console
    from rich.table import Table

    table = Table("row", "value", "quartiles", "ratio", "bar", "", "n", "note", title=title)
    for item in rows:
        value = "" if item.value is None else f"{item.value:.4g} {item.unit}"
        spread = "" if item.low is None or item.high is None else f"{item.low:.4g} – {item.high:.4g}"
        compared = "" if item.ratio is None else f"{item.ratio:.3f}"
        style = {"FAIL": "red", "PASS": "green"}.get(item.verdict)
        cells = (item.name, value, spread, compared, item.bar, item.verdict, str(item.repeats), item.note)
        table.add_row(*cells, style=style)
    console = Console()
    console.width = max(console.width, 0 if console.is_terminal else 190)
    console.print(table)
