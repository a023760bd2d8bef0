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

MAX_PATIENCE = 2.0
"""The largest factor by which a limit in seconds is extended. On a machine that is busier, nothing is measured."""


def starvation() -> float:
    """The factor by which other work slows this machine down, at least 1.

    It is the larger of the load per core and the ratio of wall time to CPU time over 20 ms of work. Being preempted
    once is no load, so the ratio is the smallest of three if the first is large.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 1.0
    starved = _wall_per_cpu_time()
    for _ in range(2):
        if starved > MAX_PATIENCE:
            starved = min(starved, _wall_per_cpu_time())
    return max(1.0, load / (os.cpu_count() or 1), starved)


def _wall_per_cpu_time() -> float:
    wall, own = time.perf_counter(), time.thread_time()
    while time.thread_time() - own < 0.02:
        pass
    return (time.perf_counter() - wall) / (time.thread_time() - own)


@dataclass
class Task:
    """One run of one bar. `work` is its own empty folder; `plant` is the fault to plant, "" for none."""

    count: int
    work: Path
    plant: str = ""
    say: Callable[[str], None] = lambda line: None
    busiest: float = 1.0
    """The largest factor by which the machine was slowed down when a limit of this run was applied."""

    @property
    def patience(self) -> float:
        """The factor by which limits in seconds are extended on a busy machine, from 1 to MAX_PATIENCE.

        A machine that is busier is recorded in `busiest`: what exceeds a limit then says nothing about the product.
        """
        factor = starvation()
        self.busiest = max(self.busiest, factor)
        return min(factor, MAX_PATIENCE)

    def planted(self, name: str) -> bool:
        """Whether this fault is planted."""
        return self.plant == name


@dataclass
class Finding:
    """The result of a bar: the number of tries, the violations as text, and measured values with their units."""

    tried: int = 0
    failures: list[str] = field(default_factory=list)
    failed: int = 0
    late: int = 0
    """Violations of a limit in seconds; `failed` counts them too."""
    figures: dict[str, tuple[float, str]] = field(default_factory=dict)
    note: str = ""
    busiest: float = 1.0
    """The largest factor by which the machine was slowed down when a limit was applied."""

    def fail(self, sentence: str, *, late: bool = False) -> None:
        """Record a violation. `late`: of a limit in seconds, which a busy machine excuses."""
        self.failed += 1
        self.late += late
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(sentence[:300])

    def expect(self, holds: object, sentence: str, *, late: bool = False) -> bool:
        """Record a violation unless `holds` is true; returns whether it is."""
        if not holds:
            self.fail(sentence, late=late)
        return bool(holds)

    @property
    def holds(self) -> bool:
        """Whether the bar is met: at least one try and no violation."""
        return self.tried > 0 and self.failed == 0

    @property
    def verdict(self) -> bool | None:
        """Whether the bar is met; None if the machine was too busy to tell.

        A violation of anything but a limit in seconds counts on a busy machine too.
        """
        if self.failed > self.late or self.tried == 0:
            return False
        return None if self.busiest > MAX_PATIENCE else self.holds


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
        finding.busiest = task.busiest
        return finding

    def applied(self, finding: Finding) -> str:
        """The criterion as it was applied: on a busy machine limits in seconds are extended, or nothing is measured."""
        if finding.verdict is None:
            return f"not measured: {BUSY.format(finding.busiest)}; {self.passes}"
        if finding.busiest < 1.05:
            return self.passes
        return f"{self.passes} (limits in seconds × {min(finding.busiest, MAX_PATIENCE):.1f}: busy machine)"


BUSY = "other work slowed the machine down {:.1f} times"


def percentile(values: list[float], share: float) -> float:
    """The percentile of `values` at `share`; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
