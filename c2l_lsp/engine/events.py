"""Events of one folder, sent to the server: warnings and progress."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from c2l_lsp.engine import wire
from c2l_lsp.errors import C2LError, Severity

Emit = Callable[[wire.Progress | wire.AdapterChanged | wire.Trouble], None]


class FolderEvents:
    """Builds the events of a folder and sends them through `emit`."""

    def __init__(self, folder: Path, emit: Emit) -> None:
        self.emit = emit
        self._folder = str(folder)
        self._warned: set[str] = set()

    def warn_once(self, error: C2LError) -> None:
        """Send an error. The same sentence is not sent again before `clear_warnings`."""
        if str(error) not in self._warned:
            self._warned.add(str(error))
            self.emit_message(error.code, error.severity, str(error))

    def clear_warnings(self) -> None:
        """Mark the folder as sound: from now on every error is sent again."""
        self._warned.clear()

    def emit_message(self, code: str, severity: Severity, message: str) -> None:
        """Send a sentence with an error code of `c2l_lsp.errors`."""
        self.emit(wire.Trouble(folder=self._folder, code=code, severity=severity.value, message=message))

    def progress(self, task: str, done: int, total: int, unit: str, finished: bool) -> None:
        """Send the progress of a task."""
        self.emit(wire.Progress(folder=self._folder, task=task, done=done, total=total, unit=unit, finished=finished))
