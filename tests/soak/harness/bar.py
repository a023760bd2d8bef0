"""What a bar of the soak is: a fault, what passes, how often it is tried, and the faults that can be planted."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST_FAILURES = 20
"""So many are written down; the rest are counted."""


@dataclass
class Task:
    """One run of one bar. `work` is an empty folder of its own; `plant` names the fault to plant, "" none."""

    count: int
    work: Path
    plant: str = ""
    say: Callable[[str], None] = lambda line: None
    stretched: float = 1.0
    """The most that a limit of this run was multiplied with; it stands beside the bar in every row."""

    @property
    def patience(self) -> float:
        """What limits in seconds are multiplied with: how much longer than its own time this process takes just now.

        The load per core, or the wall time of some 20 ms of work against its CPU time, whichever is more; at least 1.
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
    """What came out: how many were tried, every violation in words, and measured figures with their units."""

    tried: int = 0
    failures: list[str] = field(default_factory=list)
    failed: int = 0
    figures: dict[str, tuple[float, str]] = field(default_factory=dict)
    note: str = ""
    stretched: float = 1.0
    """What the limits in seconds were multiplied with at most, for the machine was busy."""

    def fail(self, sentence: str) -> None:
        """One violation."""
        self.failed += 1
        if len(self.failures) < MOST_FAILURES:
            self.failures.append(sentence[:300])

    def expect(self, holds: object, sentence: str) -> bool:
        """A violation unless it holds; whether it does."""
        if not holds:
            self.fail(sentence)
        return bool(holds)

    @property
    def holds(self) -> bool:
        """Whether the bar is passed: something was tried and nothing failed."""
        return self.tried > 0 and self.failed == 0


@dataclass(frozen=True)
class Bar:
    """A row of the table of bars. `run` is "module:function" in this package; `plants` name faults it must find."""

    name: str
    fault: str
    passes: str
    full: int
    short: int
    unit: str
    run: str
    plants: tuple[str, ...]

    def measure(self, task: Task) -> Finding:
        """Run it. An error of the bar itself is a violation too."""
        module, _, name = self.run.partition(":")
        function: Any = getattr(importlib.import_module(f"tests.soak.bars.{module}"), name)
        finding: Finding = function(task)
        finding.stretched = task.stretched
        return finding

    def applied(self, stretched: float) -> str:
        """What passes, as it was held: on a busy machine limits in seconds are longer than they are written."""
        return self.passes if stretched < 1.05 else f"{self.passes} (limits in seconds × {stretched:.1f}: busy machine)"


def percentile(values: list[float], share: float) -> float:
    """The value that this share of `values` stays within; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
