"""Merging single hints into batches, so that one scan handles many changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

MAX_PATHS = 10_000
"""A batch with more paths becomes a hint for the whole folder."""


class Coalescer:
    """Collects hints into a batch. Thread-safe.

    A batch is due when no hint came for `quiet_s` seconds, at the latest `max_delay_s` seconds after its first hint. A
    hint is a set of paths, or None for the whole folder.
    """

    def __init__(self, quiet_s: float, max_delay_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet_s = quiet_s
        self._max_delay_s = max(quiet_s, max_delay_s)
        self._clock = clock
        self._lock = threading.Lock()
        self._paths: set[str] = set()
        self._whole_folder = False
        self._first_at = self._last_at = 0.0

    def add(self, hint: frozenset[str] | None) -> None:
        """Add a hint. None replaces all paths of the batch."""
        with self._lock:
            now = self._clock()
            if not self._paths and not self._whole_folder:
                self._first_at = now
            self._last_at = now
            if hint is not None and not self._whole_folder:
                self._paths |= hint
            if hint is None or len(self._paths) > MAX_PATHS:
                self._whole_folder = True
                self._paths = set()

    def seconds_until_due(self) -> float | None:
        """Return the seconds until the batch is due, 0.0 if it is due now; None without hints."""
        with self._lock:
            if not self._paths and not self._whole_folder:
                return None
            due_at = min(self._last_at + self._quiet_s, self._first_at + self._max_delay_s)
            return max(0.0, due_at - self._clock())

    def take(self) -> frozenset[str] | None:
        """Return the batch, due or not, and start a new one: paths (possibly none), or None for the whole folder."""
        with self._lock:
            batch = None if self._whole_folder else frozenset(self._paths)
            self._whole_folder = False
            self._paths = set()
            return batch

    @property
    def pending(self) -> int:
        """The number of paths in the batch; at least 1 for the whole folder."""
        with self._lock:
            return max(len(self._paths), int(self._whole_folder))
