"""When a folder is compared with the disk: after hints of changes, and regularly; never while git writes files."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from c2l_lsp.config import Settings
from c2l_lsp.errors import C2LError
from c2l_lsp.repo.filter.files import FileFilter
from c2l_lsp.repo.git.git_directory import git_busy
from c2l_lsp.repo.watching.coalesce import Coalescer
from c2l_lsp.repo.watching.watch import Watcher

RECONCILE_S = 300.0
"""Longest time in seconds between two comparisons of all files: the watcher may lose events."""

FIRST_WAIT_S = 300.0
"""Longest time in seconds that the first index waits for git: a half-finished checkout is better than no index."""

_GIT_PAUSE_S = 0.5


class ReconcileRequest(NamedTuple):
    """A comparison that is due. `paths` None: all files."""

    paths: frozenset[str] | None


class ReconcileScheduler:
    """Collects hints of the watcher and of unsaved buffers, and schedules comparisons with the disk."""

    def __init__(self, folder: Path, settings: Settings, on_error: Callable[[C2LError], None]) -> None:
        """`on_error` is called when the folder cannot be watched."""
        self._folder, self._on_error = folder, on_error
        self._hints = Coalescer(settings.adapter.update_delay_ms / 1e3, settings.adapter.max_delay_ms / 1e3)
        self._watcher: Watcher | None = None
        self._next_full = 0.0
        self._changed_at, self._first_request_at = float("-inf"), 0.0
        self.waits = False
        """Whether the last request was postponed because git is at work."""

    # --- hints -------------------------------------------------------------------------------------------------------

    def start(self, files: FileFilter) -> None:
        """Schedule the first comparison; watching starts with it."""
        self._watcher = Watcher(self._folder, files, self._changed, on_warning=self._on_error)
        self.soon()

    def stop(self) -> None:
        """End watching."""
        if self._watcher is not None:
            self._watcher.stop()

    @property
    def filter(self) -> FileFilter | None:
        """The filter that the watcher follows; None before `start`."""
        return self._watcher.filter if self._watcher is not None else None

    @property
    def hinted(self) -> int:
        """The number of files that wait for a comparison."""
        return self._hints.pending

    def hint(self, path: str) -> None:
        """Note that a file may have changed."""
        self._hints.add(frozenset([path]))

    def _watch(self) -> None:
        """Start the watcher, or restart it after the folder was away and came back."""
        if self._watcher is not None and not self._watcher.alive:
            try:
                self._watcher.start()
            except C2LError as error:
                self._on_error(error)

    def _changed(self, paths: frozenset[str] | None) -> None:
        """Receive the watcher's hint; runs in the watcher's thread."""
        self._changed_at = time.monotonic()
        self._hints.add(paths)

    # --- requests ----------------------------------------------------------------------------------------------------

    def soon(self, within_s: float = 0.0) -> None:
        """Schedule a comparison of all files within so many seconds."""
        self._next_full = min(self._next_full, time.monotonic() + within_s)

    def due_in(self, now: float) -> float:
        """Return the seconds until the next comparison."""
        hinted = self._hints.seconds_until_due()
        return min(self._next_full - now, hinted if hinted is not None else float("inf"))

    def next_request(self, now: float, *, first: bool) -> ReconcileRequest | None:
        """Return what to compare now, None if it is postponed until git is done. `first`: there is no state yet."""
        due = self._hints.seconds_until_due()
        hints = self._hints.take() if due is not None and due <= 0 else frozenset()
        everything = hints is None or now >= self._next_full
        self.waits = self._git_at_work(now, first=first)
        if self.waits:
            self._hints.add(hints)
            self._next_full = max(self._next_full, now + _GIT_PAUSE_S)
            return None
        if everything:
            self._next_full = now + RECONCILE_S
            self._watch()
        return ReconcileRequest(None if everything else hints)

    def _git_at_work(self, now: float, *, first: bool) -> bool:
        self._first_request_at = self._first_request_at or now
        waited = now - self._first_request_at
        return git_busy(self._folder, now - self._changed_at) and not (first and waited > FIRST_WAIT_S)
