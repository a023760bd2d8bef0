"""The connection to one engine process: its pipes, frames and pending requests. It ends with the process.

Every request gets exactly one outcome: the reply, the engine's error, or EngineError if the process ends first.
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
from typing import Any, TypeVar, cast

from msgspec import Struct

from c2l_lsp.engine import wire
from c2l_lsp.errors import C2LError, EngineError, WireError, from_code

log = logging.getLogger("c2l.engine")
_T = TypeVar("_T", bound=Struct)
EventSink = Callable[[Struct], None]


class EngineTimeout(EngineError):
    """The engine runs but did not answer in time."""


@dataclass
class Connection:
    """An engine process, created by `spawn`.

    `last_frame_at` is the loop's time of the last frame; `failure` is the reason why the process was ended or is being
    ended by us, empty if it ended by itself.
    """

    process: asyncio.subprocess.Process
    on_event: EventSink
    pending: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    stderr_lines: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    last_frame_at: float = 0.0
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    failure: str = ""
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    async def spawn(cls, command: Sequence[str], on_event: EventSink, env: dict[str, str] | None = None) -> Connection:
        """Start the process. EngineError if the operating system refuses."""
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
        connection.last_frame_at = asyncio.get_running_loop().time()
        connection._tasks = [
            asyncio.ensure_future(connection._read_frames(cast(asyncio.StreamReader, process.stdout))),
            asyncio.ensure_future(connection._read_stderr(cast(asyncio.StreamReader, process.stderr))),
        ]
        return connection

    def send(self, method: str, params: Struct) -> tuple[int, asyncio.Future[dict[str, Any]]]:
        """Send a request; returns its id and a future of the plain result.

        Raises EngineError if the process has ended, and WireError if the frame is too large.
        """
        if self.closed.is_set() or self.process.stdin is None or self.process.stdin.is_closing():
            raise EngineError("The engine is not running.")
        request = wire.Request(id=next(self._ids), method=method, params=wire.to_params(params))
        frame = wire.pack(request)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_mark_retrieved)
        self.pending[request.id] = future
        self.process.stdin.write(frame)
        return request.id, future

    async def call(self, method: str, params: Struct, result: type[_T], timeout: float | None = None) -> _T:
        """Send a request and return its result. `timeout` is in seconds.

        Raises EngineTimeout, the engine's own error, or EngineError if the process ends. A timeout or the cancellation
        of the caller also cancels the request in the engine.
        """
        request_id, future = self.send(method, params)
        try:
            reply = await asyncio.wait_for(asyncio.shield(future), timeout)
        except asyncio.TimeoutError:
            self.cancel(request_id)
            raise EngineTimeout(f"The engine did not answer {method} within {timeout:g} s.") from None
        except asyncio.CancelledError:
            self.cancel(request_id)
            raise
        return wire.from_params(reply, result)

    def cancel(self, request_id: int) -> None:
        """Ask the engine to cancel a request. It stays pending until the engine replies."""
        if request_id in self.pending:
            with contextlib.suppress(EngineError):
                self.send("cancel", wire.Cancel(id=request_id))

    async def close(self, grace: float = 1.0) -> None:
        """End the process: shutdown request and end of stdin, then SIGTERM, then SIGKILL, `grace` seconds apart."""
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

    async def kill(self, reason: str) -> None:
        """Kill the process at once; pending requests fail with `reason`."""
        self.failure = self.failure or reason
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self._finish()

    @property
    def backlog(self) -> int:
        """Bytes written but not yet taken by the pipe."""
        return self.process.stdin.transport.get_write_buffer_size() if self.process.stdin is not None else 0

    def exit_reason(self) -> str:
        """Why the process ended, as a sentence: `failure`, or the exit code and the type of its last error."""
        if self.failure:
            return self.failure
        code, last = self.process.returncode, error_summary(self.stderr_lines)
        return f"The engine ended with code {code}" + (f": {last}." if last else ".")

    async def _finish(self) -> None:
        await self.process.wait()
        _done, unfinished = await asyncio.wait(self._tasks, timeout=1.0)
        for task in unfinished:  # a grandchild may hold the pipes open
            task.cancel()
        self._fail_pending()

    async def _read_frames(self, stream: asyncio.StreamReader) -> None:
        try:
            while True:
                size = wire.frame_length(await stream.readexactly(4))
                self._dispatch(wire.unpack(await stream.readexactly(size)))
                self.last_frame_at = asyncio.get_running_loop().time()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except WireError as error:  # the stream cannot be resynchronised after an invalid frame
            self.failure = f"The engine sent an invalid message: {error}"
        if self.process.returncode is None and not await _ended(self.process, 0.5):
            self.failure = self.failure or "The engine closed its output."
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        await self.process.wait()
        self._fail_pending()

    def _dispatch(self, frame: wire.Frame) -> None:
        if isinstance(frame, wire.Event):
            kind = wire.EVENTS.get(frame.name)
            if kind is None:
                raise WireError(f"The event {frame.name!r} is not in the schema.")
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

    async def _read_stderr(self, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # the line is over the stream's limit; its rest follows
                continue
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()
            self.stderr_lines.append(text)
            log.info("%s", text)

    def _fail_pending(self) -> None:
        self.closed.set()
        pending, self.pending = self.pending, {}
        for future in pending.values():
            if not future.done():
                future.set_exception(EngineError(self.exit_reason()))


_ERROR = re.compile(r"(?:[\w.]+\.)?([A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning|Lost))(?::.*)?")
_IMPORT = re.compile(r"(?:ModuleNotFound|Import)Error: (No module named '[\w.]+')")
_FRAME = re.compile(r'  File ".*?([^/\\"]+)", line (\d+), in .*')


def error_summary(lines: Iterable[str]) -> str:
    """Type and location of the error at the end of a traceback, such as "KeyError at store.py:41"; "" without one.

    An error's own text and other output are left out because they may contain source. The name of a missing module
    cannot, so it is included.
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


def _mark_retrieved(future: asyncio.Future[dict[str, Any]]) -> None:
    """Retrieve the exception, so that asyncio does not log an error reply that no caller waits for."""
    if not future.cancelled():
        future.exception()


async def _ended(process: asyncio.subprocess.Process, seconds: float) -> bool:
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except asyncio.TimeoutError:
        return False
    return True
