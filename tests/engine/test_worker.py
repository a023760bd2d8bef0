"""The engine's process, spoken to in frames: order, cancellation, refusals, its end."""

from __future__ import annotations

import io
import os
import queue
import struct
import subprocess
import sys
import threading
import time

import pytest
import torch

from c2l_lsp.engine import wire, worker
from c2l_lsp.engine.inbox import Inbox
from c2l_lsp.engine.worker import DEVICE_LOST, Worker

WAIT = 90.0


class Process:
    """A worker and what it said so far."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "c2l_lsp.engine.worker"]
        self.popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        self.frames: queue.Queue[wire.Frame | None] = queue.Queue()
        self.events: list[wire.Event] = []
        self._id = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while (frame := wire.read(self.popen.stdout)) is not None:
            self.frames.put(frame)
        self.frames.put(None)

    def send(self, method: str, params=None) -> int:
        self._id += 1
        plain = wire.to_params(params or wire.Nothing())
        self.popen.stdin.write(wire.pack(wire.Request(id=self._id, method=method, params=plain)))
        self.popen.stdin.flush()
        return self._id

    def reply(self, wanted: int) -> wire.Reply:
        while True:
            frame = self.frames.get(timeout=WAIT)
            assert frame is not None, "the process ended"
            if isinstance(frame, wire.Event):
                self.events.append(frame)
            elif frame.id == wanted:
                return frame

    def call(self, method: str, params=None) -> wire.Reply:
        return self.reply(self.send(method, params))

    def end(self) -> int:
        self.popen.stdin.close()
        code = self.popen.wait(timeout=20)
        self.popen.stdout.close()
        self.popen.stderr.close()
        return code


@pytest.fixture
def process():
    made = Process()
    yield made
    if made.popen.poll() is None:
        made.popen.kill()
    made.popen.wait(timeout=10)
    for stream in (made.popen.stdin, made.popen.stdout, made.popen.stderr):
        stream.close()


def ask(**changes) -> wire.Complete:
    plain = {"folder": "", "path": "a.py", "language": "python", "prefix": "def f(a):\n    return ", "suffix": ""}
    return wire.Complete(**{**plain, "max_latency_ms": 20_000, **changes})


def test_a_session_of_frames(process, settings, folder):
    hello = process.call("hello", wire.Hello(schema=wire.SCHEMA, settings=settings))
    assert wire.from_params(hello.result, wire.ModelInfo).fim
    name = str(folder.resolve())
    process.call("open_folder", wire.OpenFolder(folder=name, settings=settings))
    # a completion is answered while the folder is being indexed, under the bare model
    first = wire.from_params(process.call("complete", ask(folder=name, max_new_tokens=4)).result, wire.Completion)
    assert first.generation == 0
    deadline = time.monotonic() + WAIT
    while not any(event.name == "adapter_changed" for event in process.events):
        assert time.monotonic() < deadline
        process.call("ping")
    answer = wire.from_params(process.call("complete", ask(folder=name, max_new_tokens=4)).result, wire.Completion)
    assert answer.generation == 1
    assert answer.prompt_tokens == first.prompt_tokens
    status = wire.from_params(process.call("status").result, wire.Status)
    assert [info.generation for info in status.folders] == [1]
    deep = wire.from_params(process.call("deepen", wire.Deepen(folder=name, steps=9999)).result, wire.AdapterInfo)
    assert deep.deep == "waiting"
    stopped = process.call("deepen", wire.Deepen(folder=name, cancel=True)).result
    assert wire.from_params(stopped, wire.AdapterInfo).deep == ""
    assert process.call("deepen", wire.Deepen(folder="/nowhere")).error[0] == "request"
    assert process.end() == 0


def test_a_cancelled_completion_gets_the_error(process, settings):
    process.call("hello", wire.Hello(schema=wire.SCHEMA, settings=settings))
    first = process.send("complete", ask(max_new_tokens=1000, multiline="always", invoked=True, candidates=8))
    second = process.send("complete", ask())
    process.send("cancel", wire.Cancel(id=second))
    assert process.reply(first).error is None
    assert process.reply(second).error[0] == "cancelled"
    running = process.send("complete", ask(max_new_tokens=1000, multiline="always", invoked=True, candidates=8))
    process.send("cancel", wire.Cancel(id=running))
    assert process.reply(running).error[0] == "cancelled"


def test_what_is_wrong_is_refused_by_name(process):
    assert process.call("status").error[0] == "engine"  # before hello
    assert "no method" in process.call("nonsense").error[1]
    assert "Folder" in process.call("close_folder", wire.Nothing()).error[1]
    assert "schema 0" in process.call("hello", wire.Hello(schema=0, settings=wire.Settings())).error[1]


def test_a_model_that_is_not_there_is_a_sentence(process, settings, tmp_path):
    import msgspec

    lost = msgspec.structs.replace(settings, model=msgspec.structs.replace(settings.model, path=str(tmp_path / "no")))
    reply = process.call("hello", wire.Hello(schema=wire.SCHEMA, settings=lost))
    assert reply.error[0] == "model"
    assert "holds no config.json" in reply.error[1]


def test_it_ends_with_its_stream(process):
    assert process.call("ping").error is None
    assert process.end() == 0


def test_a_giant_frame_ends_it_rather_than_its_memory(process):
    process.popen.stdin.write(struct.pack(">I", wire.MAX_FRAME + 1))
    process.popen.stdin.flush()
    assert process.popen.wait(timeout=30) == 0


def test_prints_do_not_reach_the_frames():
    code = (
        "import os, sys\n"
        "from c2l_lsp.engine import worker\n"
        "real = worker.Worker.run\n"
        "def run(self):\n"
        "    print('noise'); os.write(1, b'more noise'); return real(self)\n"
        "worker.Worker.run = run\n"
        "sys.exit(worker.main())\n"
    )
    ping = wire.pack(wire.Request(id=1, method="ping", params={}))
    done = subprocess.run([sys.executable, "-c", code], input=ping, capture_output=True, timeout=WAIT, check=True)
    assert wire.unpack(done.stdout[4:]) == wire.Reply(id=1, result={})
    assert b"noise" in done.stderr


def test_cancels_of_finished_requests_are_not_collected():
    inbox = Inbox()
    for number in range(1000):
        inbox.add(wire.Request(id=2 * number, method="cancel", params={"id": 2 * number - 1}))
        inbox.done(inbox.take(0).id)
    assert not inbox._cancelled
    assert not inbox._pending


def test_only_the_latest_text_of_a_buffer_waits_and_every_request_is_answered():
    inbox = Inbox()
    for number in range(1, 1001):
        place = {"folder": "/w", "path": f"{number % 2}.py", "text": str(number) * 100}
        inbox.add(wire.Request(id=number, method="buffer", params=place))
    inbox.add(wire.Request(id=1001, method="close_folder", params={"folder": "/w"}))
    inbox.add(wire.Request(id=1002, method="buffer", params={"folder": "/w", "path": "0.py", "text": "after"}))
    taken = [inbox.take(0) for _ in range(1002)]
    assert [request.id for request in taken] == list(range(1, 1003))
    held = [(request.id, request.params["text"]) for request in taken if request.method == "buffer"]
    assert held == [(999, "999" * 100), (1002, "after")]
    assert inbox._texts == {}


class Failing:
    """Stands where an engine does; every completion fails."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)

    def due_in(self) -> None: ...

    def close(self) -> None: ...

    def complete(self, *_: object) -> wire.Completion:
        error = self.errors.pop(0)
        if error is not None:
            raise error
        return wire.Completion(texts=[], generation=0, prompt_tokens=0, new_tokens=0, ms=wire.Timing())


def frames(*errors: Exception | None) -> tuple[int, list[wire.Frame], int]:
    """Exit code of a worker whose model fails like this, what it said, and how many requests it left unanswered."""
    asked = b"".join(
        wire.pack(wire.Request(id=number, method="complete", params=wire.to_params(ask())))
        for number in range(1, len(errors) + 1)
    )
    out = io.BytesIO()
    worker = Worker(io.BytesIO(asked), out)
    worker._engine = Failing(*errors)
    worker._read()  # the whole stream, so that nothing depends on a thread
    worker._inbox.closed = False
    worker._stdin = io.BytesIO()
    for _ in errors:
        if worker._running:
            worker._serve(worker._inbox.take(0))
    said = io.BytesIO(out.getvalue())
    told = []
    while (frame := wire.read(said)) is not None:
        told.append(frame)
    return worker._code if not worker._running else 0, told, len(worker._inbox._pending)


def severities(told: list[wire.Frame]) -> list[str]:
    return [frame.data["severity"] for frame in told if isinstance(frame, wire.Event)]


def test_a_device_that_is_lost_ends_the_process():
    code, told, _ = frames(RuntimeError("CUDA error: an illegal memory access was encountered"), None)
    assert code == DEVICE_LOST
    assert severities(told) == ["warning"]
    assert told[-1].error[0] == "engine"


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory. Tried"), MemoryError(), FloatingPointError("NaN")])
def test_a_failure_that_passes_is_told_and_so_is_its_end(error: Exception):
    code, told, left = frames(error, None, error, None)
    assert (code, left) == (0, 0)
    assert severities(told) == ["warning", "info", "warning", "info"]
    assert [frame.error is not None for frame in told if isinstance(frame, wire.Reply)] == [True, False, True, False]


def test_a_model_that_keeps_failing_ends_the_process():
    code, told, _ = frames(*[FloatingPointError("NaN")] * 5)
    assert code == DEVICE_LOST
    assert len([frame for frame in told if isinstance(frame, wire.Reply)]) == 3


class Busy(Failing):
    """Always has adapter work, and notes in which order it did what."""

    def __init__(self, done: list[str]) -> None:
        super().__init__()
        self.done = done

    def due_in(self) -> float:
        return 0.0

    def idle_step(self) -> None:
        self.done.append("work")
        time.sleep(0.002)

    def complete(self, *_: object) -> wire.Completion:
        self.done.append("completion")
        self.errors.append(None)
        time.sleep(0.02)
        return super().complete()


def test_who_asks_without_a_pause_does_not_keep_a_folder_from_being_learned():
    """And waits no longer than is owed: half of what a completion took, 20 ms at most."""
    done: list[str] = []
    asked = [wire.Request(id=n, method="complete", params=wire.to_params(ask())) for n in range(1, 21)]
    worker = Worker(io.BytesIO(), io.BytesIO())
    worker._engine = Busy(done)
    for request in asked:
        worker._inbox.add(request)
    while done.count("completion") < len(asked):
        assert worker.turn()
    between = "".join(one[0] for one in done).strip("w").split("c")[1:-1]
    assert len(between) == len(asked) - 1
    assert all(1 <= len(work) <= 12 for work in between), between


@pytest.mark.parametrize(("cores", "said", "wanted"), [(8, None, [7]), (1, None, [1]), (8, "3", [])])
def test_a_core_is_left_to_the_editor(cores: int, said: str | None, wanted: list[int], monkeypatch: pytest.MonkeyPatch):
    chosen: list[int] = []
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr("psutil.cpu_count", lambda logical=True: cores)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    worker._leave_a_core()
    assert chosen == wanted
