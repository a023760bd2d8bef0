"""The engine as a process, spoken to as the server does it: frames on pipes, answers by number, events aside."""

from __future__ import annotations

import itertools
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import BinaryIO, TypeVar, cast

import msgspec
import psutil

from c2l_lsp.config import Settings
from c2l_lsp.engine import wire
from c2l_lsp.errors import EngineError

_T = TypeVar("_T", bound=msgspec.Struct)
_END_S = 20.0
_ENGINE = ("-m", "c2l_lsp.engine.worker")


class EngineProcess:
    """One engine process; a context manager. Events are kept with the time they came."""

    def __init__(
        self, settings: Settings, environment: Mapping[str, str], command: Sequence[str] = (sys.executable, *_ENGINE)
    ) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **environment},
        )  # fmt: skip
        self._numbers = itertools.count(1)
        self._replies: queue.Queue[wire.Reply | None] = queue.Queue()
        self.events: list[tuple[float, wire.Event]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.model = self.ask("hello", wire.Hello(schema=wire.SCHEMA, settings=settings), wire.ModelInfo, 600)

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_END_S)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def ask(self, method: str, params: msgspec.Struct, result: type[_T], timeout_s: float = 120) -> _T:
        """Call a method and wait for its answer. EngineError if it fails or takes too long."""
        number = next(self._numbers)
        assert self._process.stdin is not None  # noqa: S101
        request = wire.Request(id=number, method=method, params=wire.to_params(params))
        self._process.stdin.write(wire.pack(request))
        self._process.stdin.flush()
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                reply = self._replies.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise EngineError(f"The engine did not answer {method} within {timeout_s:.0f} s.") from None
            if reply is None:
                raise EngineError("The engine has ended.")
            if reply.id == number:
                break
        if reply.error is not None:
            raise EngineError(f"{method}: {reply.error[1]}")
        return wire.from_params(reply.result, result)

    def until_changed(self, since: int, timeout_s: float) -> float:
        """When the next adapter went live after event number `since` (perf_counter). EngineError if none does."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for at, event in self.events[since:]:
                if event.name == "adapter_changed":
                    return at
            time.sleep(0.002)
        raise EngineError(f"No adapter went live within {timeout_s:.0f} s.")

    @property
    def memory(self) -> int:
        """Bytes resident now."""
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def _read(self) -> None:
        stdout = self._process.stdout
        while stdout is not None and (frame := wire.read(cast(BinaryIO, stdout))) is not None:
            if isinstance(frame, wire.Reply):
                self._replies.put(frame)
            elif isinstance(frame, wire.Event):
                self.events.append((time.perf_counter(), frame))
        self._replies.put(None)
