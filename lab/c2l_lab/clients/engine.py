"""The engine as a process, called in the frames that the server uses."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, BinaryIO, TypeVar, cast

import msgspec

from c2l_lab.clients.process import PipedProcess
from c2l_lsp.config import Settings
from c2l_lsp.engine import wire
from c2l_lsp.errors import EngineError

ENGINE = (sys.executable, "-m", "c2l_lsp.engine.worker")
_Result = TypeVar("_Result", bound=msgspec.Struct)
_LOAD_S = 600.0


class EngineProcess(PipedProcess):
    """One engine process. `replies` and `events` hold every message with the time.monotonic() at which it arrived."""

    def __init__(
        self, environment: Mapping[str, str], command: Sequence[str] = ENGINE, *, log: Path | None = None
    ) -> None:
        self.replies: dict[int, tuple[float, wire.Reply]] = {}
        self.events: list[tuple[float, wire.Event]] = []
        self._ids = itertools.count(1)
        super().__init__(command, environment, log=log)

    def hello(self, settings: Settings, timeout: float = _LOAD_S) -> wire.ModelInfo:
        """Load the model; its description. EngineError if that fails."""
        return self.call("hello", wire.Hello(schema=wire.SCHEMA, settings=settings), wire.ModelInfo, timeout)

    def open_folder(self, folder: Path, settings: Settings, timeout: float = 120.0) -> None:
        """Start adapting to a folder."""
        self.call("open_folder", wire.OpenFolder(folder=str(folder), settings=settings), wire.Nothing, timeout)

    def call(self, method: str, params: msgspec.Struct, result: type[_Result], timeout: float = 120.0) -> _Result:
        """Call a method and return its result. EngineError if the engine refuses, ends or takes too long."""
        try:
            _, reply = self.reply(self.send(method, params), timeout)
        except (TimeoutError, OSError) as error:
            raise EngineError(f"The engine did not answer {method}: {error}.") from error
        if reply.error is not None:
            raise EngineError(f"{method}: {reply.error[1]}")
        return wire.from_params(reply.result, result)

    def send(self, method: str, params: msgspec.Struct) -> int:
        """Send a request; its id."""
        number = next(self._ids)
        self.write(wire.pack(wire.Request(id=number, method=method, params=wire.to_params(params))))
        return number

    def reply(self, number: int, timeout: float) -> tuple[float, wire.Reply]:
        """The reply to a request and when it arrived. TimeoutError if none comes."""
        self.until(lambda: number in self.replies, timeout, f"reply to request {number}")
        return self.replies[number]

    def named(self, name: str, since: int = 0) -> list[tuple[float, wire.Event]]:
        """The events of a name, from event number `since` on."""
        return [(at, event) for at, event in list(self.events)[since:] if event.name == name]

    def close(self, timeout: float = 20.0) -> int:
        """End the engine as the server does, by closing its stdin; its exit code."""
        with contextlib.suppress(OSError):
            cast(IO[bytes], self.process.stdin).close()
        return self.finish(timeout)

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(EngineError, OSError, ValueError):
            while (found := wire.read(cast(BinaryIO, stream))) is not None:
                now = time.monotonic()
                with self._updated:
                    if isinstance(found, wire.Reply):
                        self.replies[found.id] = (now, found)
                    elif isinstance(found, wire.Event):
                        self.events.append((now, found))
                    self._updated.notify_all()
