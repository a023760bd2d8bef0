"""The state of every bar in a result file. A row counts only if it was measured with today's code."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.soak.harness.bar import Bar
from tests.soak.harness.digest import ROOT, code_digest

RESULTS = ROOT / "lab/results/soak.json"


@dataclass(frozen=True)
class Line:
    """A bar and what is known of it today."""

    bar: Bar
    state: str
    day: str


def lines(bars: Iterable[Bar], path: Path) -> list[Line]:
    """One line per bar; a bar that the file does not hold was not run."""
    plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    about = plain.get("manifest", {}).get("bars", {})
    holds = {row["name"]: row["holds"] for row in plain.get("rows", [])}
    return [_line(bar, about.get(bar.name), holds.get(bar.name)) for bar in bars]


def _line(bar: Bar, about: dict[str, Any] | None, holds: bool | None) -> Line:
    if about is None:
        return Line(bar, "not run", "")
    return Line(bar, _state(bar, about, holds), str(about["started"])[:10])


def _state(bar: Bar, about: dict[str, Any], holds: bool | None) -> str:
    if about.get("code") != code_digest(bar):
        return "older code: make soak measures it again"
    if about.get("plant"):
        return f"run with the planted fault {about['plant']}"
    if holds is None:
        return "not measured: the machine was too busy"
    if not holds:
        return f"does not hold: {(about['failures'] or [''])[0]}"
    return "holds" if about["count"] >= bar.full else f"holds in a short run of {about['count']:,}"


def markdown(bars: Iterable[Bar], path: Path) -> str:
    """The table of the documentation."""
    rows = [
        f"| `{line.bar.name}` | {line.bar.full:,} {line.bar.unit} | {line.bar.passes} | {line.state} | {line.day} |"
        for line in lines(bars, path)
    ]
    return "\n".join(["| bar | count | condition | state | measured |", "|---|---|---|---|---|", *rows])
