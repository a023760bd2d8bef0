"""An engine inside the calling process, for the command line, benchmarks and tests. Uses no frames and no threads."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from c2l_lsp.config import Settings
from c2l_lsp.engine import wire
from c2l_lsp.engine.engine import Engine
from c2l_lsp.errors import EngineError

Listener = Callable[[wire.Progress | wire.AdapterChanged | wire.Trouble], None]

_SPEED_RUNS = 20
_SOON_S = 5.0  # work that is due later than this is a periodic check, not a change


class Session:
    """Opens folders and runs the engine's adapter work. A context manager: the end closes the engine.

    `listener` receives every event. `events` collects all but progress.
    """

    def __init__(self, settings: Settings, listener: Listener | None = None) -> None:
        self.settings = settings
        self.events: list[wire.AdapterChanged | wire.Trouble] = []
        self._listener = listener
        self.engine = Engine(settings, self._on_event)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()

    def open(self, folder: Path, timeout_s: float = 3600.0) -> wire.AdapterInfo:
        """Open a folder and work until its adapter is up to date. Raises as `run_until_idle` does."""
        name = str(folder.resolve())
        self.engine.open_folder(wire.OpenFolder(folder=name, settings=self.settings))
        return self.run_until_idle(name, timeout_s)

    def run_until_idle(self, folder: str, timeout_s: float = 3600.0) -> wire.AdapterInfo:
        """Work until an open folder has no work left. Raises EngineError after `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        workspace = self.engine.workspace(folder)
        while (due := workspace.due_in(time.monotonic())) is not None and (due < _SOON_S or workspace.pending):
            if time.monotonic() > deadline:
                state = workspace.info().state
                raise EngineError(f"{folder} was not up to date after {timeout_s:.0f} s (state: {state}).")
            if due > 0:
                time.sleep(min(due, 0.05))
                continue
            self.engine.idle_step()
        return workspace.info()

    def finetune(self, folder: str, steps: int = 0, timeout_s: float = 3600.0) -> wire.AdapterInfo:
        """Train LoRA pairs of an open folder by gradient descent, to the end. `steps` 0: the engine chooses."""
        self.engine.workspace(folder).finetune(steps)
        return self.run_until_idle(folder, timeout_s)

    def complete(self, request: wire.Complete) -> wire.Completion:
        """Answer a completion request."""
        return self.engine.complete(request, lambda: False)

    def ms_a_token(self, limit_s: float = 5.0) -> float:
        """The median time of a decoded token in ms, without adapter, of completions that take `limit_s` together.

        0.0 if the model completes nothing.
        """
        deadline, times = time.monotonic() + limit_s, list[float]()
        for number in range(_SPEED_RUNS):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            prefix = f"def count_{number}(items: list[int], limit: int) -> dict[int, int]:\n    "
            request = wire.Complete(
                folder="", path="count.py", language="python", prefix=prefix, suffix="", invoked=True, adapter=False,
                max_new_tokens=32, max_latency_ms=max(1, int(left * 1e3)), multiline="always",
            )  # fmt: skip
            answer = self.complete(request)
            if answer.new_tokens:
                times.append(answer.ms.decode / answer.new_tokens)
        return statistics.median(times) if times else 0.0

    def _on_event(self, event: wire.Progress | wire.AdapterChanged | wire.Trouble) -> None:
        if not isinstance(event, wire.Progress):
            self.events.append(event)
        if self._listener is not None:
            self._listener(event)
