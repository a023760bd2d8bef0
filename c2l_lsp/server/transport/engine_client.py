"""The engine as the server sees it: wanted or not, up or not. Starts, watches, restarts and unloads its process.

Remembers what the engine was told (settings, folders, buffers) and tells it again after a restart. Knows wire frames,
no LSP. A start that fails three times within three minutes leaves safe mode: no engine, a reason, and `restart()`.
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

from c2l_lsp.engine import wire
from c2l_lsp.errors import C2LError, EngineError, ModelError, SettingError
from c2l_lsp.server.transport import liveness
from c2l_lsp.server.transport.connection import Connection

log = logging.getLogger("c2l.engine")
_ROOT = str(Path(__file__).resolve().parents[3])
ENGINE_COMMAND = (
    sys.executable,
    "-c",
    f"import sys; sys.path = [p for p in sys.path if p]; sys.path.append({_ROOT!r}); "
    "from c2l_lsp.engine.worker import main; sys.exit(main())",
)
"""Not `-m`: Python would look for every module in the current folder first, and that is the workspace."""

_BACKLOG = 8 * 1024 * 1024
"""Bytes an engine has not read yet above which texts of buffers wait, the latest of each."""
_LATE = 0.5
_T = TypeVar("_T", bound=Struct)


class Life(str, Enum):
    """Where the engine process stands. FAILED is safe mode; UNLOADED starts again at the next call."""

    OFF = "off"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    UNLOADED = "unloaded"


@dataclass(frozen=True)
class Policy:
    """Every number of the engine's life, in seconds unless named otherwise."""

    backoff: tuple[float, ...] = (0.5, 2.0, 8.0)
    window: float = 180.0
    failed_starts: int = 3
    crashes: int = 6
    settled: float = 10.0
    load_silence: float = 600.0
    ping_every: float = 5.0
    ping_timeout: float = 20.0
    starved_pings: int = 6
    call_timeout: float = 30.0
    close_grace: float = 1.0


@dataclass
class EngineClient:
    """Supervisor of one engine process. `on_life` is told every change, `on_event` every event of the engine.

    `code`: of the error behind `message`, where that tells of one. `disabled`: folders whose adapter is switched off.
    """

    on_life: Callable[[Life, str], None]
    on_event: Callable[[Struct], None]
    command: Sequence[str] = ENGINE_COMMAND
    policy: Policy = Policy()
    env: dict[str, str] | None = None
    life: Life = Life.OFF
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
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _used: float = 0.0
    _ready_since: float | None = None
    _unloading: asyncio.Task[None] | None = None
    _late: dict[tuple[str, str], wire.Buffer] = field(default_factory=dict)
    _later: asyncio.TimerHandle | None = None

    # --- life ---

    def start(self, hello: wire.Hello) -> None:
        """Want the engine, with these settings. Does nothing if it is wanted already."""
        self.hello = hello
        self._touch()
        if self._task is None or self._task.done():
            self._set(Life.STARTING)
            self._task = asyncio.ensure_future(self._supervise())

    async def stop(self, life: Life = Life.OFF, message: str = "") -> None:
        """End the process and do not start it again until asked."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])
        if self._later is not None:
            self._later.cancel()
            self._later = None
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close(self.policy.close_grace)
        self._set(life, message)

    async def unload(self) -> None:
        """End the process and give its memory back; the next completion starts it again."""
        await self.stop(Life.UNLOADED)

    async def restart(self, hello: wire.Hello | None = None) -> None:
        """A fresh process at once, also out of safe mode."""
        hello = hello or self.hello
        await self.stop()
        if hello is not None:
            self.start(hello)

    def wake(self) -> None:
        """Start again after an unload."""
        self._touch()
        if self.life is Life.UNLOADED and self.hello is not None:
            self.start(self.hello)

    async def ready(self, timeout: float) -> bool:
        """Wait until the engine can be asked; False if it is not by then or will not be."""
        deadline = _now() + timeout
        while not self.up and self.life not in (Life.FAILED, Life.OFF):
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), max(0.0, deadline - _now()))
            except asyncio.TimeoutError:
                break
        return self.up

    @property
    def up(self) -> bool:
        """Whether the engine can be asked now."""
        return self.life is Life.READY and self._connection is not None and not self._connection.closed.is_set()

    @property
    def memory_mb(self) -> float:
        """Resident memory of the engine's process in MB; 0 without one."""
        import psutil  # takes a while, and `initialize` need not wait for it

        try:
            return float(psutil.Process(self.pid).memory_info().rss / 2**20) if self.pid is not None else 0.0
        except psutil.Error:  # it has just ended
            return 0.0

    @property
    def pid(self) -> int | None:
        """Process id of the running engine."""
        return self._connection.process.pid if self._connection is not None else None

    # --- what the engine is told, now and after a restart ---

    def open_folder(self, record: wire.OpenFolder) -> bool:
        """Learn a folder, or learn it under other settings: then the engine begins anew, so its buffers follow.

        Says whether there was anything new.
        """
        old = self.folders.get(record.folder)
        self.folders[record.folder] = record
        if old is not None and _learned_under(old) == _learned_under(record):
            return False
        self._tell("open_folder", record)
        if record.folder in self.disabled:
            self._tell("set_enabled", wire.SetEnabled(folder=record.folder, enabled=False))
        for buffer in list(self.buffers.values()):
            if buffer.folder == record.folder:
                self._tell_buffer(buffer)
        return True

    def close_folder(self, folder: str) -> None:
        """Forget a folder until it is opened again."""
        if self.folders.pop(folder, None) is not None:
            self.buffers = {key: value for key, value in self.buffers.items() if key[0] != folder}
            self._tell("close_folder", wire.Folder(folder=folder))

    def set_buffer(self, record: wire.Buffer) -> None:
        """Text of an open document; None takes it back."""
        key = (record.folder, record.path)
        if record.text is None:
            if self.buffers.pop(key, None) is None:
                return
        else:
            self.buffers[key] = record
        self._tell_buffer(record)

    def _tell_buffer(self, record: wire.Buffer) -> None:
        """Send a text; to an engine that does not read just now, later: texts must not pile up without bound."""
        if self._connection is None or self._connection.backlog <= _BACKLOG:
            self._late.pop((record.folder, record.path), None)
            self._tell("buffer", record)
            return
        self._late[record.folder, record.path] = record
        if self._later is None:
            self._later = asyncio.get_running_loop().call_later(_LATE, self._tell_late)

    def _tell_late(self) -> None:
        self._later = None
        late, self._late = self._late, {}
        for record in late.values():
            self._tell_buffer(record)

    # --- questions ---

    async def complete(self, params: wire.Complete, timeout: float) -> wire.Completion:
        """One completion. Cancelling the caller cancels it in the engine, which still answers."""
        self._touch()
        return await self._ready_connection().call("complete", params, wire.Completion, timeout)

    async def call(self, method: str, params: Struct, result: type[_T], timeout: float | None = None) -> _T:
        """Any other method."""
        return await self._ready_connection().call(method, params, result, timeout or self.policy.call_timeout)

    def _ready_connection(self) -> Connection:
        if self._connection is None or self.life is not Life.READY:
            raise EngineError(self.message or "The engine is not running.")
        return self._connection

    def _tell(self, method: str, record: Struct) -> None:
        """Send without waiting; while the engine is not ready the replay after `hello` does it."""
        if self._connection is not None and self.life is Life.READY:
            try:
                self._connection.send(method, record)
            except C2LError as error:
                log.warning("%s was not sent: %s", method, error)

    # --- supervision ---

    async def _supervise(self) -> None:
        ends: deque[tuple[float, bool]] = deque()
        while True:
            began = _now()
            try:
                why = await self._session()
            except (ModelError, SettingError) as error:  # starting again would not help
                await self._drop()
                self._set(Life.FAILED, str(error), error.code)
                return
            except C2LError as error:
                why = str(error)
            settled = self._settled()
            await self._drop()
            ends.append((_now(), settled))
            while ends and ends[0][0] < _now() - self.policy.window:
                ends.popleft()
            failed = sum(not settled for _at, settled in ends)
            if failed >= self.policy.failed_starts or len(ends) >= self.policy.crashes:
                self._set(Life.FAILED, f"{why} It failed {len(ends)} times and is not started again.")
                return
            pause = self.policy.backoff[min(len(ends), len(self.policy.backoff)) - 1]
            log.warning("%s It is started again in %g s (it ran %.1f s).", why, pause, _now() - began)
            self._set(Life.RESTARTING, why)
            await asyncio.sleep(pause)

    def _settled(self) -> bool:
        """Whether the process that ended was heard of long enough after it was ready; one that hung at once was not."""
        ready, connection = self._ready_since, self._connection
        return ready is not None and connection is not None and connection.heard - ready >= self.policy.settled

    async def _session(self) -> str:
        """One process from start to end; why it ended."""
        self._ready_since = None
        self._set(Life.STARTING)
        connection = self._connection = await _spawn(self.command, self.on_event, self.env)
        self._set(Life.LOADING)
        self.model = await self._load(connection)
        self._late.clear()  # everything is told below
        for folder in list(self.folders.values()):
            connection.send("open_folder", folder)
            if folder.folder in self.disabled:
                connection.send("set_enabled", wire.SetEnabled(folder=folder.folder, enabled=False))
        for buffer in list(self.buffers.values()):
            connection.send("buffer", buffer)
        self._ready_since = _now()
        self._set(Life.READY)
        await self._watch(connection)
        return connection.epitaph()

    async def _load(self, connection: Connection) -> wire.ModelInfo:
        """Say hello. A download may take long, so only silence is limited, not the whole."""
        if self.hello is None:
            raise EngineError("The engine was started without settings.")
        call = asyncio.ensure_future(connection.call("hello", self.hello, wire.ModelInfo))
        try:
            while not call.done():
                left = connection.heard + self.policy.load_silence - _now()
                if left <= 0:
                    await connection.kill("The engine was silent too long while loading the model.")
                    break
                await asyncio.wait([call], timeout=left)
            return await call
        finally:
            call.cancel()

    async def _watch(self, connection: Connection) -> None:
        """Until the process ends: ping it when it is silent, kill it when it does not answer, unload it when idle."""
        while not connection.closed.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(connection.closed.wait(), self.policy.ping_every)
                return
            if self.idle_minutes and _now() - self._used > self.idle_minutes * 60:
                self._unloading = asyncio.ensure_future(self.unload())
                await connection.closed.wait()  # `unload` cancels this task, and ends the process in order
            if _now() - connection.heard >= self.policy.ping_every and not await self._answers(connection):
                await connection.kill("The engine hung and was ended.")

    async def _answers(self, connection: Connection) -> bool:
        """Whether the engine answers a ping in its time. One that gets no processor has several times as long."""
        for _ in range(self.policy.starved_pings):
            used, pid = liveness.cpu_seconds(connection.process.pid), connection.process.pid
            began, heard = _now(), connection.heard
            try:
                await connection.call("ping", wire.Nothing(), wire.Nothing, self.policy.ping_timeout)
            except EngineError:
                if connection.heard > heard:  # it says something, if not this
                    return True
                if connection.closed.is_set() or not liveness.starved(pid, used, _now() - began):
                    return False
                log.warning("The engine gets no processor; it is waited for.")
            else:
                return True
        return False

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.kill(connection.fault)

    def _touch(self) -> None:
        self._used = _now()

    def _set(self, life: Life, message: str = "", code: str = EngineError.code) -> None:
        if (life, message) != (self.life, self.message):
            self.life, self.message, self.code = life, message, code
            if life is not Life.READY:
                self.model = None
            self._changed.set()
            self.on_life(life, message)


def machine(hello: wire.Hello) -> tuple[object, ...]:
    """What a running engine cannot change about itself."""
    return hello.settings.model, hello.settings.remote


def _learned_under(record: wire.OpenFolder) -> tuple[object, ...]:
    return record.trusted, record.settings.adapter, record.settings.files


async def _spawn(command: Sequence[str], on_event: Callable[[Struct], None], env: dict[str, str] | None) -> Connection:
    spawning = asyncio.ensure_future(Connection.spawn(command, on_event, env))
    try:
        return await asyncio.shield(spawning)
    except asyncio.CancelledError:  # the process may exist already, and nobody else knows of it
        await (await spawning).kill("")
        raise


def _now() -> float:
    return asyncio.get_running_loop().time()
