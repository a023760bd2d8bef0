"""The engine process started a second time on the same folder, and asked what no editor asks: how likely is a text?"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from msgspec import Struct

from c2l_lab.demo.places import Place
from c2l_lsp.config import Settings
from c2l_lsp.engine import wire
from c2l_lsp.errors import EngineError
from c2l_lsp.server.transport.engine_client import EngineClient

_LOAD_WITHIN_S = 180.0
_LOOKS, _LOOK_S = 3, 0.3


class SecondStart:
    """An engine on a folder it knows already. Use as an async context manager; `changes` are the adapters it made."""

    def __init__(self, root: Path, settings: Settings, environment: Mapping[str, str]) -> None:
        self.changes: list[wire.AdapterChanged] = []
        self._root, self._settings = root, settings
        self._heard = asyncio.Event()
        self._engine = EngineClient(lambda *_: None, self._on_event, env={**os.environ, **environment})

    async def __aenter__(self) -> SecondStart:
        self._engine.start(wire.Hello(schema=wire.SCHEMA, settings=self._settings))
        if not await self._engine.ready(_LOAD_WITHIN_S):
            await self._engine.stop()
            raise EngineError(self._engine.message or "The engine did not start a second time.")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._engine.stop()

    def open_folder(self) -> None:
        """Begin to follow the folder; what was kept on disk comes back as the first of `changes`."""
        self._engine.open_folder(wire.OpenFolder(folder=str(self._root), settings=self._settings))

    async def reaches(self, count: int, within: float) -> bool:
        """Wait until so many adapters were made; False when they were not within so many seconds."""
        while len(self.changes) < count:
            self._heard.clear()
            try:
                await asyncio.wait_for(self._heard.wait(), within)
            except asyncio.TimeoutError:
                return False
        return True

    async def rest(self, within: float) -> None:
        """Wait until nothing of the folder waits to be learned, three looks in a row."""
        deadline, resting = time.monotonic() + within, 0
        while resting < _LOOKS and time.monotonic() < deadline:
            info = await self._engine.call("adapter_info", wire.Folder(folder=str(self._root)), wire.AdapterInfo)
            resting = resting + 1 if info.state == "ready" and not info.pending_files else 0
            await asyncio.sleep(_LOOK_S)

    async def odds(self, places: Iterable[Place], *, adapter: bool) -> list[float]:
        """Log-probability, in nat, of what is expected at each place."""
        return [await self._score(place, adapter) for place in places]

    async def _score(self, place: Place, adapter: bool) -> float:
        lines = place.text.split("\n")
        before = "\n".join([*lines[: place.line], place.before])
        asked = wire.Score(
            folder=str(self._root),
            prefix=before,
            suffix=place.text[len(before) :],
            text=place.expected,
            adapter=adapter,
        )
        return (await self._engine.call("score", asked, wire.Scored)).logprob

    def _on_event(self, event: Struct) -> None:
        if isinstance(event, wire.AdapterChanged):
            self.changes.append(event)
            self._heard.set()
