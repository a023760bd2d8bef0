"""One running engine process: its pipes, its frames, its pending requests. Ends with the process, never restarts it.

Every request gets exactly one outcome: the reply, the engine's error, or EngineError when the process ends first.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from msgspec import Struct

from c2l_lsp.engine import wire
from c2l_lsp.errors import C2LError, EngineError, WireError, from_code

log = logging.getLogger("c2l.engine")
_T = TypeVar("_T", bound=Struct)
EventSink = Callable[[Struct], None]


class EngineTimeout(EngineError):
    """The engine is up but did not answer in time."""


@dataclass
class Connection:
    """The engine's process and what it owes us. Made by `spawn`."""

    process: asyncio.subprocess.Process
    on_event: EventSink
    pending: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    heard: float = 0.0
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    fault: str = ""
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    async def spawn(cls, command: Sequence[str], on_event: EventSink, env: dict[str, str] | None = None) -> Connection:
        """Start the process. EngineError if the system refuses."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=env,
            )
        except OSError as error:
            raise EngineError(f"The engine process cannot be started: {error}.") from error
        connection = cls(process, on_event)
        connection.heard = asyncio.get_running_loop().time()
        connection._tasks = [
            asyncio.ensure_future(connection._read_frames()),
            asyncio.ensure_future(connection._read_errors()),
        ]
        return connection

    def send(self, method: str, params: Struct) -> tuple[int, asyncio.Future[dict[str, Any]]]:
        """Send a request; the future gets the plain result, or the error."""
        if self.closed.is_set() or self.process.stdin is None or self.process.stdin.is_closing():
            raise EngineError("The engine is not running.")
        request = wire.Request(id=next(self._ids), method=method, params=wire.to_params(params))
        frame = wire.pack(request)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_seen)
        self.pending[request.id] = future
        self.process.stdin.write(frame)
        return request.id, future

    async def call(self, method: str, params: Struct, result: type[_T], timeout: float | None = None) -> _T:
        """Send and wait. A caller that is cancelled or runs out of time cancels the request in the engine too."""
        request_id, future = self.send(method, params)
        try:
            plain = await asyncio.wait_for(asyncio.shield(future), timeout)
        except asyncio.TimeoutError:
            self.cancel(request_id)
            raise EngineTimeout(f"The engine did not answer {method} within {timeout:g} s.") from None
        except asyncio.CancelledError:
            self.cancel(request_id)
            raise
        return wire.from_params(plain, result)

    def cancel(self, request_id: int) -> None:
        """Ask for an early end. The request stays pending until the engine answers it."""
        if request_id in self.pending:
            with contextlib.suppress(EngineError):
                self.send("cancel", wire.Cancel(id=request_id))

    async def close(self, grace: float = 1.0) -> None:
        """End the process: ask, then close its stdin, then terminate, then kill."""
        if self.process.returncode is None:
            with contextlib.suppress(C2LError, OSError):
                self.send("shutdown", wire.Nothing())
            if self.process.stdin is not None:
                self.process.stdin.close()
            for end in (None, self.process.terminate, self.process.kill):
                if end is not None:
                    with contextlib.suppress(ProcessLookupError):
                        end()
                if await _ended(self.process, grace):
                    break
        await self._finish()

    async def kill(self, why: str) -> None:
        """End a process that no longer listens."""
        self.fault = self.fault or why
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self._finish()

    @property
    def backlog(self) -> int:
        """Bytes that the engine has not read yet, apart from what is in the pipe."""
        return self.process.stdin.transport.get_write_buffer_size() if self.process.stdin is not None else 0

    def epitaph(self) -> str:
        """Why the process ended, for a user: our own reason, else its exit code and what kind of error came last."""
        if self.fault:
            return self.fault
        code, last = self.process.returncode, last_words(self.errors)
        return f"The engine ended with code {code}" + (f": {last}." if last else ".")

    async def _finish(self) -> None:
        await self.process.wait()
        _done, late = await asyncio.wait(self._tasks, timeout=1.0)
        for task in late:  # a grandchild may hold the pipes open
            task.cancel()
        self._abandon()

    async def _read_frames(self) -> None:
        stream = self.process.stdout
        assert stream is not None  # noqa: S101 - always piped by spawn
        try:
            while True:
                size = wire.frame_length(await stream.readexactly(4))
                self._take(wire.unpack(await stream.readexactly(size)))
                self.heard = asyncio.get_running_loop().time()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except WireError as error:  # nothing after a bad frame can be trusted
            self.fault = f"The engine broke the protocol: {error}"
        if self.process.returncode is None and not await _ended(self.process, 0.5):
            self.fault = self.fault or "The engine closed its output."
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        await self.process.wait()
        self._abandon()

    def _take(self, frame: wire.Frame) -> None:
        if isinstance(frame, wire.Event):
            kind = wire.EVENTS.get(frame.name)
            if kind is None:
                raise WireError(f"An event {frame.name!r} is not in the schema.")
            self.on_event(wire.from_params(frame.data, kind))
        elif isinstance(frame, wire.Reply):
            future = self.pending.pop(frame.id, None)
            if future is None or future.done():
                return
            if frame.error is not None:
                future.set_exception(from_code(*frame.error))
            else:
                future.set_result(frame.result or {})
        else:
            raise WireError("The engine sent a request.")

    async def _read_errors(self) -> None:
        stream = self.process.stderr
        assert stream is not None  # noqa: S101 - always piped by spawn
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # a line over the stream's limit; its rest follows
                continue
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()
            self.errors.append(text)
            log.info("%s", text)

    def _abandon(self) -> None:
        self.closed.set()
        pending, self.pending = self.pending, {}
        for future in pending.values():
            if not future.done():
                future.set_exception(EngineError(self.epitaph()))


_ERROR = re.compile(r"(?:[\w.]+\.)?([A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning|Lost))(?::.*)?")
_IMPORT = re.compile(r"(?:ModuleNotFound|Import)Error: (No module named '[\w.]+')")
_FRAME = re.compile(r'  File ".*?([^/\\"]+)", line (\d+), in .*')


def last_words(lines: Iterable[str]) -> str:
    """The type of the error that a traceback ends with, and where it was; "" without one.

    Only that: an error's own text, and whatever else a library prints, may hold source. A module's name cannot.
    """
    kind = where = ""
    for line in lines:
        if frame := _FRAME.fullmatch(line):
            where = f" at {frame[1]}:{frame[2]}"
        elif missing := _IMPORT.fullmatch(line):
            kind = missing[1]
        elif error := _ERROR.fullmatch(line):
            kind = error[1]
    return kind and kind + where


def _seen(future: asyncio.Future[dict[str, Any]]) -> None:
    """A reply nobody waits for any more may be an error; that is no fault to report."""
    if not future.cancelled():
        future.exception()


async def _ended(process: asyncio.subprocess.Process, seconds: float) -> bool:
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except asyncio.TimeoutError:
        return False
    return True
