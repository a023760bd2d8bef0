"""Gathering of single hints into batches: after some quiet, or after a longest wait while changes go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

MOST_PATHS = 10_000
"""More hints than this in one batch become "look at everything"."""


class Coalescer:
    """Gathers hints until it has been quiet for `quiet_s`, or for `max_delay_s` since the first. Thread-safe."""

    def __init__(self, quiet_s: float, max_delay_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet_s = quiet_s
        self._max_delay_s = max(quiet_s, max_delay_s)
        self._clock = clock
        self._lock = threading.Lock()
        self._paths: set[str] = set()
        self._everything = False
        self._first = self._last = 0.0

    def add(self, hint: frozenset[str] | None) -> None:
        """Take in a hint; None swallows all others."""
        with self._lock:
            now = self._clock()
            if not self._paths and not self._everything:
                self._first = now
            self._last = now
            if hint is not None and not self._everything:
                self._paths |= hint
            if hint is None or len(self._paths) > MOST_PATHS:
                self._everything = True
                self._paths = set()

    def seconds_until_due(self) -> float | None:
        """Seconds until the batch should be taken, 0.0 when it is ready; None when there is none."""
        with self._lock:
            if not self._paths and not self._everything:
                return None
            ready = min(self._last + self._quiet_s, self._first + self._max_delay_s)
            return max(0.0, ready - self._clock())

    def take(self) -> frozenset[str] | None:
        """The batch, ready or not, and begin a new one: paths, none (an empty set), or None for everything."""
        with self._lock:
            batch = None if self._everything else frozenset(self._paths)
            self._everything = False
            self._paths = set()
            return batch

    @property
    def pending(self) -> int:
        """How many paths wait; at least 1 while everything does."""
        with self._lock:
            return max(len(self._paths), int(self._everything))
