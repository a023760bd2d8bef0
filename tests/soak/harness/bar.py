"""The types of the soak: a bar, one run of it (`Task`), and its result (`Finding`)."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_FAILURES = 20
"""Failures that are stored as text; the others are only counted."""


@dataclass
class Task:
    """One run of one bar. `work` is its own empty folder; `plant` is the fault to plant, "" for none."""

    count: int
    work: Path
    plant: str = ""
    say: Callable[[str], None] = lambda line: None
    stretched: float = 1.0
    """The largest factor by which a limit of this run was extended; reported in every row."""

    @property
    def patience(self) -> float:
        """The factor by which limits in seconds are extended on a busy machine, at least 1.

        It is the larger of the load per core and the ratio of wall time to CPU time over 20 ms of work.
        """
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 1.0
        wall, own = time.perf_counter(), time.thread_time()
        while time.thread_time() - own < 0.02:
            pass
        starved = (time.perf_counter() - wall) / (time.thread_time() - own)
        factor = max(1.0, load / (os.cpu_count() or 1), starved)
        self.stretched = max(self.stretched, factor)
        return factor

    def planted(self, name: str) -> bool:
        """Whether this fault is planted."""
        return self.plant == name


@dataclass
class Finding:
    """The result of a bar: the number of tries, the violations as text, and measured values with their units."""

    tried: int = 0
    failures: list[str] = field(default_factory=list)
    failed: int = 0
    figures: dict[str, tuple[float, str]] = field(default_factory=dict)
    note: str = ""
    stretched: float = 1.0
    """The largest factor by which limits in seconds were extended."""

    def fail(self, sentence: str) -> None:
        """Record a violation."""
        self.failed += 1
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(sentence[:300])

    def expect(self, holds: object, sentence: str) -> bool:
        """Record a violation unless `holds` is true; returns whether it is."""
        if not holds:
            self.fail(sentence)
        return bool(holds)

    @property
    def holds(self) -> bool:
        """Whether the bar is met: at least one try and no violation."""
        return self.tried > 0 and self.failed == 0


@dataclass(frozen=True)
class Bar:
    """A row of the table of bars. `run` is "module:function" in tests.soak.bars; `plants` are faults it must detect."""

    name: str
    fault: str
    passes: str
    full: int
    short: int
    unit: str
    run: str
    plants: tuple[str, ...]

    def measure(self, task: Task) -> Finding:
        """Run the bar."""
        module, _, name = self.run.partition(":")
        function: Any = getattr(importlib.import_module(f"tests.soak.bars.{module}"), name)
        finding: Finding = function(task)
        finding.stretched = task.stretched
        return finding

    def applied(self, stretched: float) -> str:
        """The criterion as it was applied: on a busy machine limits in seconds are extended."""
        return self.passes if stretched < 1.05 else f"{self.passes} (limits in seconds × {stretched:.1f}: busy machine)"


def percentile(values: list[float], share: float) -> float:
    """The percentile of `values` at `share`; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
