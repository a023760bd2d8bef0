"""When one folder is looked at: after hints that files changed, and now and then anyway; not while git is at work."""

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
"""A full comparison with the disk happens at least this often, whatever the watcher says."""

FIRST_WAIT_S = 300.0
"""The first index waits so long for git at most: what a clone or checkout left half-way is better than nothing."""

_GIT_PAUSE_S = 0.5


class ReconcileRequest(NamedTuple):
    """What a look is for: the files of these hints (None: nobody knows which), or `everything` in any case."""

    hints: frozenset[str] | None
    everything: bool


class ReconcileScheduler:
    """Gathers hints of the watcher and of buffers, and plans comparisons of all files with the disk."""

    def __init__(self, folder: Path, settings: Settings, on_trouble: Callable[[C2LError], None]) -> None:
        self._folder, self._on_trouble = folder, on_trouble
        self._hints = Coalescer(settings.adapter.update_delay_ms / 1e3, settings.adapter.max_delay_ms / 1e3)
        self._watcher: Watcher | None = None
        self._next = 0.0
        self._changed_at, self._begun = float("-inf"), 0.0
        self.waits = False
        """Whether a look was put off because git is at work."""

    # --- hints -------------------------------------------------------------------------------------------------------

    def start(self, files: FileFilter) -> None:
        """Begin to watch, and plan the first comparison."""
        self._watcher = Watcher(self._folder, files, self._changed, on_warning=self._on_trouble)
        self.watch()
        self.soon()

    def watch(self) -> None:
        """Watch again if events stopped coming (the folder was moved away and is back)."""
        if self._watcher is not None and not self._watcher.alive:
            try:
                self._watcher.start()
            except C2LError as error:
                self._on_trouble(error)

    def stop(self) -> None:
        """End watching."""
        if self._watcher is not None:
            self._watcher.stop()

    @property
    def filter(self) -> FileFilter | None:
        """The rules as the watcher follows them; None before it began."""
        return self._watcher.filter if self._watcher is not None else None

    @property
    def hinted(self) -> int:
        """How many files wait to be looked at."""
        return self._hints.pending

    def hint(self, path: str) -> None:
        """A file may count otherwise now."""
        self._hints.add(frozenset([path]))

    def _changed(self, hint: frozenset[str] | None) -> None:
        """The watcher's word that files changed; from a thread of its own."""
        self._changed_at = time.monotonic()
        self._hints.add(hint)

    # --- looks -------------------------------------------------------------------------------------------------------

    def soon(self, within_s: float = 0.0) -> None:
        """Compare everything with the disk within so many seconds."""
        self._next = min(self._next, time.monotonic() + within_s)

    def due_in(self, now: float) -> float:
        """Seconds until the folder is looked at."""
        hinted = self._hints.seconds_until_due()
        return min(self._next - now, hinted if hinted is not None else float("inf"))

    def look(self, now: float, *, first: bool) -> ReconcileRequest | None:
        """What is to be looked at now; None if it is put off until git is done. `first`: nothing is learned yet."""
        due = self._hints.seconds_until_due()
        hints = self._hints.take() if due is not None and due <= 0 else frozenset()
        everything = hints is None or now >= self._next
        self.waits = self._git_at_work(now, first=first)
        if self.waits:
            self._hints.add(hints)
            self._next = max(self._next, now + _GIT_PAUSE_S)
            return None
        if everything:
            self._next = now + RECONCILE_S
            self.watch()
        return ReconcileRequest(hints, everything)

    def _git_at_work(self, now: float, *, first: bool) -> bool:
        self._begun = self._begun or now
        return git_busy(self._folder, now - self._changed_at) and not (first and now - self._begun > FIRST_WAIT_S)
