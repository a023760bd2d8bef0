"""An engine inside this process, for the command line, benchmarks and tests: no editor, no frames."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from c2l_lsp.config import Settings
from c2l_lsp.engine import wire
from c2l_lsp.engine.engine import Engine
from c2l_lsp.errors import EngineError

Listener = Callable[[wire.Progress | wire.AdapterChanged | wire.Trouble], None]


class Session:
    """Opens folders and waits for their adapters; use as a context manager."""

    def __init__(self, settings: Settings, listener: Listener | None = None) -> None:
        self.settings = settings
        self.events: list[wire.AdapterChanged | wire.Trouble] = []
        self._listener = listener
        self.engine = Engine(settings, self._heard)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()

    def open(self, folder: Path, timeout_s: float = 3600.0) -> wire.AdapterInfo:
        """Open a folder and work until its adapter is up to date with the disk."""
        name = str(folder.resolve())
        self.engine.open_folder(wire.OpenFolder(folder=name, settings=self.settings))
        return self.run_until_idle(name, timeout_s)

    def run_until_idle(self, folder: str, timeout_s: float = 3600.0) -> wire.AdapterInfo:
        """Work until nothing of the folder is due. EngineError when it takes longer than `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        workspace = self.engine.workspace(folder)
        while (due := workspace.due_in(time.monotonic())) is not None and (due < 5.0 or workspace.pending):
            if time.monotonic() > deadline:
                raise EngineError(f"{folder} was not learned within {timeout_s:.0f} s ({workspace.info().state}).")
            if due > 0:
                time.sleep(min(due, 0.05))
                continue
            self.engine.idle_step()
        return workspace.info()

    def run_until(self, holds: Callable[[], object], timeout_s: float = 30.0) -> None:
        """Work as an engine's loop does until something holds. EngineError when it takes longer than `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > deadline:
                raise EngineError(f"What was waited for did not come within {timeout_s:.0f} s.")
            due = self.engine.due_in()
            if due is not None and due <= 0:
                self.engine.idle_step()
            else:
                time.sleep(0.005)

    def finetune(self, folder: str, steps: int = 0, timeout_s: float = 3600.0) -> wire.AdapterInfo:
        """Train LoRA pairs of an open folder by gradient descent, to the end."""
        self.engine.workspace(folder).finetune(steps)
        return self.run_until_idle(folder, timeout_s)

    def complete(self, request: wire.Complete) -> wire.Completion:
        """Answer a request now."""
        return self.engine.complete(request, lambda: False)

    def _heard(self, event: wire.Progress | wire.AdapterChanged | wire.Trouble) -> None:
        if not isinstance(event, wire.Progress):
            self.events.append(event)
        if self._listener is not None:
            self._listener(event)
