"""Runs bars one after the other and saves rows after each, so that an interrupted run can be continued."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from c2l_lab.benchmarks import stats

from c2l_lsp import __version__
from c2l_lsp.errors import RequestError
from tests.soak.harness.bar import Bar, Finding, Task
from tests.soak.harness.digest import code_digest

Say = Callable[[str], None]


@dataclass(frozen=True)
class Choice:
    """The options of a run. `count` 0: each bar's own. `again`: run bars again that the result file has."""

    short: bool = False
    count: int = 0
    plant: str = ""
    again: bool = False

    def count_of(self, bar: Bar) -> int:
        """The count of a bar."""
        return self.count or (bar.short if self.short else bar.full)


def soak(bars: Sequence[Bar], choice: Choice, out: Path | None, say: Say = lambda line: None) -> list[stats.Row]:
    """The rows of all bars, also written to `out` after each bar.

    A bar that `out` has with this code and at least this count is not run again, unless the machine was too busy then.
    """
    results = _Results(out)
    for bar in bars:
        count = choice.count_of(bar)
        if not choice.again and results.has(bar, count, choice.plant):
            say(f"{bar.name}: already in {out}")
            continue
        say(f"{bar.name}: {count} {bar.unit}{f', planted fault: {choice.plant}' if choice.plant else ''}")
        code = code_digest(bar)
        started, began = dt.datetime.now(dt.timezone.utc), time.monotonic()
        finding = measure(bar, count, choice.plant, say)
        about = {
            "count": count,
            "tried": finding.tried,
            "plant": choice.plant,
            "load": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else [],
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - began, 1),
            "code": code if code == code_digest(bar) else "changed during the run",
            "busiest": round(finding.busiest, 2),
            "failures": finding.failures,
            "note": finding.note,
        }
        results.put(bar, rows(bar, finding), about)
        for failure in finding.failures[:5]:
            say(f"  {failure}")
    return [row for bar in bars for row in results.rows(bar)]


def measure(bar: Bar, count: int, plant: str = "", say: Say = lambda line: None) -> Finding:
    """Run one bar in a temporary folder. RequestError if it has no such planted fault."""
    if plant and plant not in bar.plants:
        raise RequestError(f"{bar.name} has no planted fault {plant}. It has: {', '.join(bar.plants)}.")
    work = Path(tempfile.mkdtemp(prefix=f"c2l-soak-{bar.name}-")).resolve()
    task = Task(count, work, plant, say)
    try:
        return bar.measure(task)
    except Exception as error:  # an error is a violation; the results of the other bars must survive it
        finding = Finding(tried=1)
        finding.fail(f"{type(error).__name__}: {error}", late=isinstance(error, TimeoutError))
        finding.busiest = task.busiest
        return finding
    finally:
        shutil.rmtree(work, ignore_errors=True)


def rows(bar: Bar, finding: Finding) -> list[stats.Row]:
    """The row of the bar, whose value is the number of violations, and one for each measured value."""
    of = f"violations in {finding.tried} {bar.unit}"
    row = stats.Row(bar.name, "soak", float(finding.failed), unit=of, bar=bar.applied(finding), holds=finding.verdict)
    made = [row]
    made += [stats.Row(f"{bar.name}/{k}", "soak", value, unit=unit) for k, (value, unit) in finding.figures.items()]
    return made


class _Results:
    def __init__(self, out: Path | None) -> None:
        self._out = out
        self._rows: dict[str, list[stats.Row]] = {}
        self._about: dict[str, Any] = {}
        self._manifest: dict[str, Any] = {
            "code": __version__,
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "started": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        }
        if out is not None and out.is_file():
            self._read(out)

    def _read(self, out: Path) -> None:
        try:
            plain = json.loads(out.read_text(encoding="utf-8"))
            self._about = dict(plain["manifest"]["bars"])
            for row in (stats.Row(**item) for item in plain["rows"]):
                self._rows.setdefault(row.name.partition("/")[0], []).append(row)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RequestError(f"{out} is not a result file of the soak; name another file.") from error

    def has(self, bar: Bar, count: int, plant: str) -> bool:
        about = self._about.get(bar.name, {})
        made = about.get("code") == code_digest(bar) and about.get("plant") == plant
        if self.rows(bar) and self.rows(bar)[0].holds is None:  # the machine was too busy
            return False
        return made and int(about.get("count", 0)) >= count

    def put(self, bar: Bar, made: list[stats.Row], about: dict[str, Any]) -> None:
        self._rows[bar.name], self._about[bar.name] = made, about
        if self._out is not None:
            seconds = sum(one["seconds"] for one in self._about.values())
            manifest = {**self._manifest, "seconds": round(seconds, 1), "bars": self._about}
            stats.write(self._out, manifest, [row for group in self._rows.values() for row in group])

    def rows(self, bar: Bar) -> list[stats.Row]:
        return self._rows.get(bar.name, [])
