"""Supervises the engine process: starts it, monitors it, restarts it after a crash and unloads it when idle.

Stores settings, folders and buffers, and sends them again after a restart. Three failed starts within three minutes
lead to EngineState.FAILED: no engine, a message for the user, and no further attempt until `restart()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from c2l_lsp import isolation
from c2l_lsp.engine import wire
from c2l_lsp.errors import C2LError, EngineError, ModelError, SettingError
from c2l_lsp.server.transport import liveness
from c2l_lsp.server.transport.connection import Connection

log = logging.getLogger("c2l.engine")
_ROOT = str(Path(__file__).resolve().parents[3])
ENGINE_COMMAND = (
    sys.executable,
    *isolation.OPTIONS,
    f"{isolation.CLEAN}; {_ROOT!r} in sys.path or sys.path.insert(0, {_ROOT!r}); "
    "from c2l_lsp.engine.worker import main; sys.exit(main())",
)
"""Imports this copy of the package, and nothing of the current folder or of PYTHONPATH."""

_MAX_BACKLOG = 8 * 1024 * 1024
"""Unread bytes in the engine's pipe above which buffer texts are deferred. Only the latest text of each is kept."""
_DEFER_S = 0.5
_T = TypeVar("_T", bound=Struct)


class EngineState(str, Enum):
    """State of the engine process. FAILED: not restarted automatically. UNLOADED: restarted by the next completion."""

    OFF = "off"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    UNLOADED = "unloaded"


@dataclass(frozen=True)
class Policy:
    """Limits of the supervision. Times are in seconds.

    `backoff`: pauses before the first, second, … restart within `restart_window`. `max_failed_starts`: processes that
    ended within `stable_after` of being ready. `max_crashes`: ends of any process. `load_silence`: time without a frame
    while the model loads. `max_starved_pings`: ping timeouts tolerated while the process gets no CPU time.
    """

    backoff: tuple[float, ...] = (0.5, 2.0, 8.0)
    restart_window: float = 180.0
    max_failed_starts: int = 3
    max_crashes: int = 6
    stable_after: float = 10.0
    load_silence: float = 600.0
    ping_interval: float = 5.0
    ping_timeout: float = 20.0
    max_starved_pings: int = 6
    call_timeout: float = 30.0
    close_grace: float = 1.0


@dataclass
class EngineClient:
    """Supervisor of one engine process.

    `on_state` is called with each new state and its message, `on_event` with each event of the engine. `code` is the
    code of the error in `message`. `disabled` holds the folders whose adapter is switched off.
    """

    on_state: Callable[[EngineState, str], None]
    on_event: Callable[[Struct], None]
    command: Sequence[str] = ENGINE_COMMAND
    policy: Policy = Policy()
    env: dict[str, str] | None = None
    state: EngineState = EngineState.OFF
    message: str = ""
    code: str = EngineError.code
    model: wire.ModelInfo | None = None
    hello: wire.Hello | None = None
    idle_minutes: float = 0.0
    folders: dict[str, wire.OpenFolder] = field(default_factory=dict)
    disabled: set[str] = field(default_factory=set)
    buffers: dict[tuple[str, str], wire.Buffer] = field(default_factory=dict)
    _connection: Connection | None = None
    _task: asyncio.Task[None] | None = None
    _state_changed: asyncio.Event = field(default_factory=asyncio.Event)
    _last_used: float = 0.0
    _ready_since: float | None = None
    _unloading: asyncio.Task[None] | None = None
    _deferred: dict[tuple[str, str], wire.Buffer] = field(default_factory=dict)
    _deferred_timer: asyncio.TimerHandle | None = None

    # --- start and stop ---

    def start(self, hello: wire.Hello) -> None:
        """Start the engine with these settings; does nothing if it is running or starting."""
        self.hello = hello
        self._mark_used()
        if self._task is None or self._task.done():
            self._set_state(EngineState.STARTING)
            self._task = asyncio.ensure_future(self._supervise())

    async def stop(self, state: EngineState = EngineState.OFF) -> None:
        """End the process and its supervision, and enter `state`."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])
        if self._deferred_timer is not None:
            self._deferred_timer.cancel()
            self._deferred_timer = None
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close(self.policy.close_grace)
        self._set_state(state)

    async def unload(self) -> None:
        """End the process to free its memory; the next `wake()` starts it again."""
        await self.stop(EngineState.UNLOADED)

    async def restart(self, hello: wire.Hello | None = None) -> None:
        """Replace the process at once, also from EngineState.FAILED."""
        hello = hello or self.hello
        await self.stop()
        if hello is not None:
            self.start(hello)

    def wake(self) -> None:
        """Start the engine if it was unloaded, and reset the idle timer."""
        self._mark_used()
        if self.state is EngineState.UNLOADED and self.hello is not None:
            self.start(self.hello)

    async def wait_ready(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until the engine is ready. False if it is not, or has failed or is off."""
        deadline = _now() + timeout
        while not self.is_ready and self.state not in (EngineState.FAILED, EngineState.OFF):
            self._state_changed.clear()
            try:
                await asyncio.wait_for(self._state_changed.wait(), max(0.0, deadline - _now()))
            except asyncio.TimeoutError:
                break
        return self.is_ready

    @property
    def is_ready(self) -> bool:
        """Whether the engine accepts requests now."""
        return self.state is EngineState.READY and self._connection is not None and not self._connection.closed.is_set()

    @property
    def memory_mb(self) -> float:
        """Resident memory of the engine process in MB; 0 without one."""
        import psutil  # slow to import, and `initialize` must not wait for it

        try:
            return float(psutil.Process(self.pid).memory_info().rss / 2**20) if self.pid is not None else 0.0
        except psutil.Error:  # the process has just ended
            return 0.0

    @property
    def pid(self) -> int | None:
        """Process id of the engine; None without one."""
        return self._connection.process.pid if self._connection is not None else None

    # --- folders and buffers: sent now, and again after a restart ---

    def open_folder(self, record: wire.OpenFolder) -> bool:
        """Open a folder or change its settings; returns False if nothing relevant changed.

        New settings make the engine open the folder again, so the folder's buffers are sent again.
        """
        old = self.folders.get(record.folder)
        self.folders[record.folder] = record
        if old is not None and _adapter_settings(old) == _adapter_settings(record):
            return False
        self._send("open_folder", record)
        if record.folder in self.disabled:
            self._send("set_enabled", wire.SetEnabled(folder=record.folder, enabled=False))
        for buffer in list(self.buffers.values()):
            if buffer.folder == record.folder:
                self._send_buffer(buffer)
        return True

    def close_folder(self, folder: str) -> None:
        """Close a folder and drop its buffers."""
        if self.folders.pop(folder, None) is not None:
            self.buffers = {key: value for key, value in self.buffers.items() if key[0] != folder}
            self._send("close_folder", wire.Folder(folder=folder))

    def set_buffer(self, record: wire.Buffer) -> None:
        """Set the text of an open document. None removes it, so that the file on disk counts again."""
        key = (record.folder, record.path)
        if record.text is None:
            if self.buffers.pop(key, None) is None:
                return
        else:
            self.buffers[key] = record
        self._send_buffer(record)

    def _send_buffer(self, record: wire.Buffer) -> None:
        """Send a text now, or later if the engine is not reading: texts must not pile up in memory."""
        if self._connection is None or self._connection.backlog <= _MAX_BACKLOG:
            self._deferred.pop((record.folder, record.path), None)
            self._send("buffer", record)
            return
        self._deferred[record.folder, record.path] = record
        if self._deferred_timer is None:
            self._deferred_timer = asyncio.get_running_loop().call_later(_DEFER_S, self._send_deferred)

    def _send_deferred(self) -> None:
        self._deferred_timer = None
        deferred, self._deferred = self._deferred, {}
        for record in deferred.values():
            self._send_buffer(record)

    # --- requests ---

    async def complete(self, params: wire.Complete, timeout: float) -> wire.Completion:
        """One completion; see `call` for the errors. `timeout` is in seconds."""
        self._mark_used()
        return await self._ready_connection().call("complete", params, wire.Completion, timeout)

    async def call(self, method: str, params: Struct, result: type[_T], timeout: float | None = None) -> _T:
        """Call any method of the engine. `timeout` is in seconds; the default is `Policy.call_timeout`.

        Raises EngineError if the engine is not ready or ends, EngineTimeout, or the engine's own error.
        """
        return await self._ready_connection().call(method, params, result, timeout or self.policy.call_timeout)

    def _ready_connection(self) -> Connection:
        if self._connection is None or self.state is not EngineState.READY:
            raise EngineError(self.message or "The engine is not running.")
        return self._connection

    def _send(self, method: str, record: Struct) -> None:
        """Send without waiting for the reply. Before READY it does nothing: `_run_process` sends everything then."""
        if self._connection is not None and self.state is EngineState.READY:
            try:
                self._connection.send(method, record)
            except C2LError as error:
                log.warning("%s was not sent: %s", method, error)

    # --- supervision ---

    async def _supervise(self) -> None:
        """Run one process after the other until it fails for good or this task is cancelled."""
        ends: deque[tuple[float, bool]] = deque()  # (time, whether the process had been stable)
        while True:
            started_at = _now()
            try:
                reason = await self._run_process()
            except (ModelError, SettingError) as error:  # a restart would fail in the same way
                await self._kill_connection()
                self._set_state(EngineState.FAILED, str(error), error.code)
                return
            except C2LError as error:
                reason = str(error)
            stable = self._was_stable()
            await self._kill_connection()
            ends.append((_now(), stable))
            while ends and ends[0][0] < _now() - self.policy.restart_window:
                ends.popleft()
            failed_starts = sum(not stable for _at, stable in ends)
            if failed_starts >= self.policy.max_failed_starts or len(ends) >= self.policy.max_crashes:
                message = f"{reason} It failed {len(ends)} times. Run c2l.restartServer to start it again."
                self._set_state(EngineState.FAILED, message)
                return
            pause = self.policy.backoff[min(len(ends), len(self.policy.backoff)) - 1]
            log.warning("%s Restarting in %g s (it ran for %.1f s).", reason, pause, _now() - started_at)
            self._set_state(EngineState.RESTARTING, reason)
            await asyncio.sleep(pause)

    def _was_stable(self) -> bool:
        """Whether the last frame came long enough after READY. A process that hung at once was not stable."""
        ready, connection = self._ready_since, self._connection
        stable_after = self.policy.stable_after
        return ready is not None and connection is not None and connection.last_frame_at - ready >= stable_after

    async def _run_process(self) -> str:
        """Run one process until it ends; returns the reason. C2LError if it cannot be started or load its model."""
        self._ready_since = None
        self._set_state(EngineState.STARTING)
        connection = self._connection = await _spawn(self.command, self.on_event, self.env)
        self._set_state(EngineState.LOADING)
        self.model = await self._load_model(connection)
        self._deferred.clear()  # all buffers are sent below
        for folder in list(self.folders.values()):
            connection.send("open_folder", folder)
            if folder.folder in self.disabled:
                connection.send("set_enabled", wire.SetEnabled(folder=folder.folder, enabled=False))
        for buffer in list(self.buffers.values()):
            connection.send("buffer", buffer)
        self._ready_since = _now()
        self._set_state(EngineState.READY)
        await self._monitor(connection)
        return connection.exit_reason()

    async def _load_model(self, connection: Connection) -> wire.ModelInfo:
        """Send `hello` and wait for the model. A download may take long, so only silence is limited."""
        if self.hello is None:
            raise EngineError("The engine was started without settings.")
        call = asyncio.ensure_future(connection.call("hello", self.hello, wire.ModelInfo))
        try:
            while not call.done():
                left = connection.last_frame_at + self.policy.load_silence - _now()
                if left <= 0:
                    await connection.kill("The engine was silent too long while loading the model.")
                    break
                await asyncio.wait([call], timeout=left)
            return await call
        finally:
            call.cancel()

    async def _monitor(self, connection: Connection) -> None:
        """Return when the process ends. Pings it when it is silent, kills it when it hangs, unloads it when idle."""
        while not connection.closed.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(connection.closed.wait(), self.policy.ping_interval)
                return
            if self.idle_minutes and _now() - self._last_used > self.idle_minutes * 60:
                self._unloading = asyncio.ensure_future(self.unload())
                await connection.closed.wait()  # `unload` cancels this task and closes the connection
            silent = _now() - connection.last_frame_at >= self.policy.ping_interval
            if silent and not await self._answers_ping(connection):
                await connection.kill("The engine did not respond and was stopped.")

    async def _answers_ping(self, connection: Connection) -> bool:
        """Whether the engine answers a ping in time. A process without CPU time gets several attempts."""
        for _ in range(self.policy.max_starved_pings):
            cpu_before, pid = liveness.cpu_seconds(connection.process.pid), connection.process.pid
            sent_at, last_frame_at = _now(), connection.last_frame_at
            try:
                await connection.call("ping", wire.Nothing(), wire.Nothing, self.policy.ping_timeout)
            except EngineError:
                if connection.last_frame_at > last_frame_at:  # it sent another frame
                    return True
                if connection.closed.is_set() or not liveness.is_starved(pid, cpu_before, _now() - sent_at):
                    return False
                log.warning("The engine gets no CPU time; waiting for it.")
            else:
                return True
        return False

    async def _kill_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.kill(connection.failure)

    def _mark_used(self) -> None:
        self._last_used = _now()

    def _set_state(self, state: EngineState, message: str = "", code: str = EngineError.code) -> None:
        if (state, message) != (self.state, self.message):
            self.state, self.message, self.code = state, message, code
            if state is not EngineState.READY:
                self.model = None
            self._state_changed.set()
            self.on_state(state, message)


def process_settings(hello: wire.Hello) -> tuple[object, ...]:
    """The settings that take effect only in a new engine process."""
    return hello.settings.model, hello.settings.remote


def _adapter_settings(record: wire.OpenFolder) -> tuple[object, ...]:
    return record.trusted, record.settings.adapter, record.settings.files


async def _spawn(command: Sequence[str], on_event: Callable[[Struct], None], env: dict[str, str] | None) -> Connection:
    spawning = asyncio.ensure_future(Connection.spawn(command, on_event, env))
    try:
        return await asyncio.shield(spawning)
    except asyncio.CancelledError:  # the process may exist already, and only this coroutine can end it
        await (await spawning).kill("")
        raise


def _now() -> float:
    return asyncio.get_running_loop().time()
