"""Supervision of a real engine process: start, crash, hang, invalid output, restart, failure, unload, end."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import psutil
import pytest

from c2l_lsp.config import Settings
from c2l_lsp.engine import wire
from c2l_lsp.errors import C2LError, EngineError, RequestCancelled, RequestError, WireError
from c2l_lsp.server.transport.connection import EngineTimeout
from c2l_lsp.server.transport.engine_client import EngineClient, EngineState, Policy
from tests.server.conftest import FAKE

QUICK = Policy(
    backoff=(0.05, 0.1), stable_after=0.3, ping_interval=0.1, ping_timeout=0.4, load_silence=2.0, close_grace=1.0
)
HELLO = wire.Hello(schema=wire.SCHEMA, settings=Settings())


@dataclass
class Engine:
    """A client, and the states and events that it reported."""

    client: EngineClient
    states: list[tuple[EngineState, str]] = field(default_factory=list)
    events: list[wire.Struct] = field(default_factory=list)

    async def until(self, holds: Callable[[], object], timeout: float = 10.0) -> None:
        deadline = time.monotonic() + timeout
        while not holds():
            assert time.monotonic() < deadline, f"timed out; states: {self.states}"
            await asyncio.sleep(0.01)


def completion_request(prefix: str, **more: object) -> wire.Complete:
    return wire.Complete(folder="", path="", language="python", prefix=prefix, suffix="", **more)


@pytest.fixture
async def make(fake_env: Callable[..., dict[str, str]]) -> AsyncIterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def start(policy: Policy = QUICK, command: tuple[str, ...] = FAKE, hello: bool = True, **env: str) -> Engine:
        engine = Engine(None)  # type: ignore[arg-type]
        engine.client = EngineClient(
            lambda state, message: engine.states.append((state, message)),
            engine.events.append,
            command,
            policy,
            fake_env(**env),
        )
        engines.append(engine)
        if hello:
            engine.client.start(HELLO)
        return engine

    yield start
    for engine in engines:
        await engine.client.stop()


async def test_start_complete_and_stop(make: Callable[..., Engine], engine_requests: Callable[..., list]) -> None:
    engine = make()
    assert await engine.client.wait_ready(10)
    answer = await engine.client.complete(completion_request("foo"), 5)
    assert answer.texts == ["_foo_0()"]
    pid = engine.client.pid
    await engine.client.stop()
    assert [state for state, _ in engine.states] == [
        EngineState.STARTING,
        EngineState.LOADING,
        EngineState.READY,
        EngineState.OFF,
    ]
    assert engine_requests()[-1] == {"pid": pid, "ended": True}
    assert not psutil.pid_exists(pid)
    with pytest.raises(EngineError):
        await engine.client.complete(completion_request("foo"), 5)


async def test_cancelled_caller_cancels_the_request_in_the_engine(
    make: Callable[..., Engine], engine_requests: Callable
) -> None:
    engine = make()
    await engine.client.wait_ready(10)
    waiting = asyncio.ensure_future(engine.client.complete(completion_request("SLOW:5"), 20))
    await engine.until(lambda: engine_requests("complete"))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await engine.until(lambda: any("cancelled" in note for note in engine_requests()), 2)
    connection = engine.client._connection
    await engine.until(lambda: not connection.pending, 2)


async def test_late_reply_is_a_timeout_and_the_next_request_works(make: Callable[..., Engine]) -> None:
    engine = make()
    await engine.client.wait_ready(10)
    with pytest.raises(EngineTimeout):
        await engine.client.complete(completion_request("SLOW:5"), 0.1)
    assert (await engine.client.complete(completion_request("b"), 5)).texts
    with pytest.raises(RequestError, match="refuses"):
        await engine.client.complete(completion_request("REFUSE"), 5)


async def test_crash_fails_pending_requests_and_state_is_sent_again(
    make: Callable[..., Engine], engine_requests: Callable[..., list]
) -> None:
    engine = make()
    folder = wire.OpenFolder(folder="/w", settings=Settings())
    assert engine.client.open_folder(folder)
    assert not engine.client.open_folder(folder)
    engine.client.set_buffer(wire.Buffer(folder="/w", path="a.py", text="x"))
    engine.client.set_buffer(wire.Buffer(folder="/w", path="b.py", text="y"))
    engine.client.set_buffer(wire.Buffer(folder="/w", path="b.py", text=None))
    await engine.client.wait_ready(10)
    await asyncio.sleep(0.35)
    before = time.monotonic()
    with pytest.raises(EngineError, match="ended with code 9"):
        await engine.client.complete(completion_request("DIE"), 5)
    assert await engine.client.wait_ready(5)
    assert time.monotonic() - before < 5
    assert (await engine.client.complete(completion_request("a"), 5)).texts
    pids = [note["pid"] for note in engine_requests("hello")]
    assert len(pids) == 2
    sent = [(n["method"], n["params"].get("path")) for n in engine_requests() if n["pid"] == pids[1] and "method" in n]
    assert sent[:3] == [("hello", None), ("open_folder", None), ("buffer", "a.py")]
    assert EngineState.RESTARTING in [state for state, _ in engine.states]


@pytest.mark.parametrize("word", ["HANG", "GARBAGE", "HUGE"])
async def test_engine_that_hangs_or_sends_garbage_is_replaced(make: Callable[..., Engine], word: str) -> None:
    engine = make()
    await engine.client.wait_ready(10)
    pid = engine.client.pid
    with pytest.raises((EngineError, WireError)):
        await engine.client.complete(completion_request(word), 8)
    await engine.until(lambda: engine.client.state is EngineState.READY and engine.client.pid != pid)
    assert not psutil.pid_exists(pid)


async def test_three_failed_starts_lead_to_failed_state_with_the_reason(
    make: Callable[..., Engine], engine_requests: Callable
) -> None:
    engine = make(FAKE_START="die")
    await engine.until(lambda: engine.client.state is EngineState.FAILED)
    assert len(engine_requests("hello")) == 3
    assert "No module named 'torch' at worker.py:12" in engine.client.message
    assert not await engine.client.wait_ready(1)
    with pytest.raises(EngineError, match="torch"):
        await engine.client.complete(completion_request("a"), 5)
    engine.client.env["FAKE_START"] = ""
    await engine.client.restart()
    assert await engine.client.wait_ready(10)


async def test_engine_that_hangs_at_every_first_request_fails(
    make: Callable[..., Engine], engine_requests: Callable
) -> None:
    """It runs until the ping times out, which must not count as a stable process."""
    engine = make()
    for number in range(1, 4):
        await engine.until(
            lambda number=number: len(engine_requests("hello")) == number and engine.client.state is EngineState.READY
        )
        with pytest.raises(EngineError):
            await engine.client.complete(completion_request("HANG"), 8)
    await engine.until(lambda: engine.client.state is EngineState.FAILED)
    assert len(engine_requests("hello")) == 3


async def test_two_failed_starts_are_retried(make: Callable[..., Engine]) -> None:
    engine = make(FAKE_START="die-twice")
    assert await engine.client.wait_ready(10)


async def test_model_error_is_not_retried(make: Callable[..., Engine], engine_requests: Callable) -> None:
    engine = make(FAKE_START="error")
    await engine.until(lambda: engine.client.state is EngineState.FAILED)
    assert engine.client.message == "The model auto cannot be found."
    await asyncio.sleep(0.3)
    assert len(engine_requests("hello")) == 1
    assert engine.client.pid is None


async def test_silence_while_loading_is_limited(make: Callable[..., Engine]) -> None:
    engine = make(Policy(backoff=(0.05,), load_silence=0.3, max_failed_starts=1), FAKE_START="mute")
    await engine.until(lambda: engine.client.state is EngineState.FAILED)
    assert "silent too long" in engine.client.message


async def test_missing_command_is_reported(make: Callable[..., Engine]) -> None:
    engine = make(command=("/no/such/engine",))
    await engine.until(lambda: engine.client.state is EngineState.FAILED)
    assert "cannot be started" in engine.client.message


async def test_idle_engine_is_unloaded_and_wake_starts_it(make: Callable[..., Engine]) -> None:
    engine = make(hello=False)
    engine.client.idle_minutes = 0.2 / 60
    engine.client.start(HELLO)
    await engine.client.wait_ready(10)
    pid = engine.client.pid
    await engine.until(lambda: engine.client.state is EngineState.UNLOADED)
    assert not psutil.pid_exists(pid)
    engine.client.idle_minutes = 0
    engine.client.wake()
    assert await engine.client.wait_ready(10)
    assert (await engine.client.complete(completion_request("a"), 5)).texts


async def test_stop_in_any_state_leaves_no_process(make: Callable[..., Engine], engine_requests: Callable) -> None:
    for pause in (0.0, 0.005, 0.02, 0.05, 0.1, 0.2):
        engine = make()
        await asyncio.sleep(pause)
        await engine.client.stop()
        assert engine.client.pid is None
    await asyncio.sleep(0.3)
    assert not [note["pid"] for note in engine_requests("hello") if psutil.pid_exists(note["pid"])]


async def test_engine_that_ignores_sigterm_is_killed(make: Callable[..., Engine]) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    engine = make(Policy(close_grace=0.3), command=(sys.executable, "-c", code))
    await engine.until(lambda: engine.client.pid is not None)
    pid = engine.client.pid
    await asyncio.sleep(0.3)
    before = time.monotonic()
    await engine.client.stop()
    assert time.monotonic() - before < 3
    assert not psutil.pid_exists(pid)


async def test_many_cancelled_requests_all_end(make: Callable[..., Engine], engine_requests: Callable) -> None:
    engine = make(Policy(ping_interval=30))
    await engine.client.wait_ready(10)
    tasks = [asyncio.ensure_future(engine.client.complete(completion_request(f"SLOW:3 {n}"), 20)) for n in range(200)]
    await engine.until(lambda: len(engine_requests("complete")) >= 100)
    for waiting in tasks:
        waiting.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)
    connection = engine.client._connection
    await engine.until(lambda: not connection.pending, 5)


async def test_errors_keep_their_class(make: Callable[..., Engine]) -> None:
    engine = make()
    await engine.client.wait_ready(10)
    connection = engine.client._connection
    request_id, future = connection.send("complete", completion_request("SLOW:3"))
    connection.cancel(request_id)
    with pytest.raises(RequestCancelled):
        await asyncio.wait_for(future, 5)
    with pytest.raises(C2LError, match="exceeds the limit"):
        connection.send("complete", completion_request("x" * (wire.MAX_FRAME + 1)))


async def test_engine_that_does_not_read_gets_only_the_latest_buffers(
    make: Callable[..., Engine], engine_requests: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its process is suspended, only the latest text of each document is kept in memory."""
    engine = make(Policy(ping_interval=60.0))
    await engine.client.wait_ready(10)
    process = psutil.Process(engine.client.pid)
    process.suspend()
    try:
        for number in range(60):
            text = f"{number:03}" + "x" * 500_000
            engine.client.set_buffer(wire.Buffer(folder="/w", path=f"{number % 3}.py", text=text))
        assert engine.client._connection.backlog < 10_000_000
        assert {key[1] for key in engine.client._deferred} == {"0.py", "1.py", "2.py"}
    finally:
        process.resume()
    await engine.until(lambda: not engine.client._deferred, 30)
    await engine.until(lambda: len(last := {n["params"]["path"]: n for n in engine_requests("buffer")}) == 3 and all(
        note["params"]["text"][:2] == "05" for note in last.values()
    ), 30)  # fmt: skip
