"""What is said of one folder: a trouble once, and what goes on in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from c2l_lsp.engine import wire
from c2l_lsp.errors import C2LError, Severity

Emit = Callable[[wire.Progress | wire.AdapterChanged | wire.Trouble], None]


class FolderEvents:
    """Makes events of what happens. `emit` takes one as it is."""

    def __init__(self, folder: Path, emit: Emit) -> None:
        self.emit = emit
        self._folder = str(folder)
        self._told: set[str] = set()

    def warn_once(self, error: C2LError) -> None:
        """Something went wrong. The same again is not told again until all was `well`."""
        if str(error) not in self._told:
            self._told.add(str(error))
            self.emit_message(error.code, error.severity, str(error))

    def clear_warnings(self) -> None:
        """What goes wrong from now on is told, also what was told before."""
        self._told.clear()

    def emit_message(self, code: str, severity: Severity, message: str) -> None:
        """A sentence about what a code names."""
        self.emit(wire.Trouble(folder=self._folder, code=code, severity=severity.value, message=message))

    def progress(self, task: str, done: int, total: int, unit: str, finished: bool) -> None:
        """How far a task is."""
        self.emit(wire.Progress(folder=self._folder, task=task, done=done, total=total, unit=unit, finished=finished))
