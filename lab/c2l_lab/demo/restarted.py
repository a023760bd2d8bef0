"""The engine started a second time on a folder whose state is on disk, without a server: it also scores texts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from c2l_lab.clients.engine import EngineProcess
from c2l_lab.demo.places import Place
from c2l_lsp.config import Settings
from c2l_lsp.engine import wire

_LOAD_TIMEOUT_S = 180.0
_SETTLED_POLLS, _POLL_S = 3, 0.3


class RestartedEngine:
    """An engine on one folder; a context manager."""

    def __init__(self, root: Path, settings: Settings, environment: Mapping[str, str]) -> None:
        self._root, self._settings = root, settings
        self._engine = EngineProcess(environment, log=root.parent / "engine.log")

    def __enter__(self) -> RestartedEngine:
        self._engine.hello(self._settings, _LOAD_TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    def open_folder(self, timeout: float) -> wire.AdapterChanged:
        """Open the folder; its first adapter. TimeoutError if there is none within `timeout` seconds."""
        self._engine.open_folder(self._root, self._settings)
        self._engine.until(self.changes, timeout, "adapter after the restart")
        return self.changes()[0]

    def changes(self) -> list[wire.AdapterChanged]:
        """Every adapter that went live."""
        return [wire.from_params(event.data, wire.AdapterChanged) for _, event in self._engine.named("adapter_changed")]

    def wait_for_changes(self, count: int, timeout: float) -> bool:
        """Wait until `count` adapters have gone live; False after `timeout` seconds."""
        return self._engine.wait_until(lambda: len(self.changes()) >= count, timeout)

    def settle(self, timeout: float) -> None:
        """Wait until no file is pending, in several polls in a row."""
        deadline, settled = time.monotonic() + timeout, 0
        while settled < _SETTLED_POLLS and time.monotonic() < deadline:
            info = self._engine.call("adapter_info", wire.Folder(folder=str(self._root)), wire.AdapterInfo)
            settled = settled + 1 if info.state == "ready" and not info.pending_files else 0
            time.sleep(_POLL_S)

    def log_probabilities(self, places: Iterable[Place], *, adapter: bool) -> list[float]:
        """The log-probability, in nat, of the expected text at each place."""
        return [self._score(place, adapter) for place in places]

    def _score(self, place: Place, adapter: bool) -> float:
        lines = place.text.split("\n")
        prefix = "\n".join([*lines[: place.line], place.before])
        request = wire.Score(
            folder=str(self._root),
            prefix=prefix,
            suffix=place.text[len(prefix) :],
            text=place.expected,
            adapter=adapter,
        )
        return self._engine.call("score", request, wire.Scored).logprob
