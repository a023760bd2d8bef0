"""The engine process: requests, cancellation, errors and exit."""

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
from c2l_lsp.engine.worker import DEVICE_LOST, Worker

WAIT = 90.0


class Process:
    """A worker process and its events so far."""

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


def test_a_session_from_hello_to_the_end_of_stdin(process, settings, folder):
    hello = process.call("hello", wire.Hello(schema=wire.SCHEMA, settings=settings))
    assert wire.from_params(hello.result, wire.ModelInfo).fim
    name = str(folder.resolve())
    process.call("open_folder", wire.OpenFolder(folder=name, settings=settings))
    # while the folder is indexed, completions come from the base model alone
    first = wire.from_params(process.call("complete", ask(folder=name, max_new_tokens=4)).result, wire.Completion)
    assert first.generation == 0
    deadline = time.monotonic() + WAIT
    changed = [event for event in process.events if event.name == "adapter_changed"]
    while not any(event.data["info"]["complete"] for event in changed):
        assert time.monotonic() < deadline
        process.call("ping")
        changed = [event for event in process.events if event.name == "adapter_changed"]
    assert changed[0].data["trigger"] == wire.TOKENS  # before anything is embedded
    generation = changed[-1].data["info"]["generation"]
    answer = wire.from_params(process.call("complete", ask(folder=name, max_new_tokens=4)).result, wire.Completion)
    assert answer.generation == generation
    assert answer.prompt_tokens == first.prompt_tokens
    status = wire.from_params(process.call("status").result, wire.Status)
    assert [info.generation for info in status.folders] == [generation]
    deep = wire.from_params(process.call("deepen", wire.Deepen(folder=name, steps=9999)).result, wire.AdapterInfo)
    assert deep.deep == "waiting"
    stopped = process.call("deepen", wire.Deepen(folder=name, cancel=True)).result
    assert wire.from_params(stopped, wire.AdapterInfo).deep == ""
    assert process.call("deepen", wire.Deepen(folder="/nowhere")).error[0] == "request"
    assert process.end() == 0


def test_a_cancelled_completion_is_answered_with_an_error(process, settings):
    process.call("hello", wire.Hello(schema=wire.SCHEMA, settings=settings))
    first = process.send("complete", ask(max_new_tokens=1000, multiline="always", invoked=True, candidates=8))
    second = process.send("complete", ask())
    process.send("cancel", wire.Cancel(id=second))
    assert process.reply(first).error is None
    assert process.reply(second).error[0] == "cancelled"
    running = process.send("complete", ask(max_new_tokens=1000, multiline="always", invoked=True, candidates=8))
    process.send("cancel", wire.Cancel(id=running))
    assert process.reply(running).error[0] == "cancelled"


def test_a_wrong_request_is_answered_with_the_reason(process):
    assert process.call("status").error[0] == "engine"  # before hello
    assert "no method" in process.call("nonsense").error[1]
    assert "Folder" in process.call("close_folder", wire.Nothing()).error[1]
    assert "schema 0" in process.call("hello", wire.Hello(schema=0, settings=wire.Settings())).error[1]


def test_a_missing_model_is_reported(process, settings, tmp_path):
    import msgspec

    missing = msgspec.structs.replace(
        settings, model=msgspec.structs.replace(settings.model, path=str(tmp_path / "no"))
    )
    reply = process.call("hello", wire.Hello(schema=wire.SCHEMA, settings=missing))
    assert reply.error[0] == "model"
    assert "holds no config.json" in reply.error[1]


def test_the_process_exits_at_the_end_of_stdin(process):
    assert process.call("ping").error is None
    assert process.end() == 0


def test_a_frame_over_the_limit_ends_the_process_without_being_read(process):
    process.popen.stdin.write(struct.pack(">I", wire.MAX_FRAME + 1))
    process.popen.stdin.flush()
    assert process.popen.wait(timeout=30) == 0


def test_prints_go_to_stderr_and_not_between_frames():
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


class FailingEngine:
    """A stand-in for the engine: completion number i raises `errors[i]`, or succeeds if that is None."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)

    def due_in(self) -> None: ...

    def close(self) -> None: ...

    def complete(self, *_: object) -> wire.Completion:
        error = self.errors.pop(0)
        if error is not None:
            raise error
        return wire.Completion(texts=[], generation=0, prompt_tokens=0, new_tokens=0, ms=wire.Timing())


def serve(*errors: Exception | None) -> tuple[int, list[wire.Frame], int]:
    """(exit code, frames sent, requests left unanswered) of a worker whose completions fail like this."""
    requests = b"".join(
        wire.pack(wire.Request(id=number, method="complete", params=wire.to_params(ask())))
        for number in range(1, len(errors) + 1)
    )
    out = io.BytesIO()
    worker = Worker(io.BytesIO(requests), out)
    worker._engine = FailingEngine(*errors)
    worker._read()  # reads the whole stream, so that the test needs no thread
    worker._inbox.closed = False
    worker._stdin = io.BytesIO()
    for _ in errors:
        if worker._running:
            worker._serve(worker._inbox.take(0))
    sent = io.BytesIO(out.getvalue())
    frames = []
    while (frame := wire.read(sent)) is not None:
        frames.append(frame)
    return worker._exit_code if not worker._running else 0, frames, len(worker._inbox._pending)


def severities(frames: list[wire.Frame]) -> list[str]:
    return [frame.data["severity"] for frame in frames if isinstance(frame, wire.Event)]


def test_a_lost_device_ends_the_process():
    code, frames, _ = serve(RuntimeError("CUDA error: an illegal memory access was encountered"), None)
    assert code == DEVICE_LOST
    assert severities(frames) == ["warning"]
    assert frames[-1].error[0] == "engine"


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory. Tried"), MemoryError(), FloatingPointError("NaN")])
def test_a_failure_of_the_model_and_its_recovery_are_reported(error: Exception):
    code, frames, left = serve(error, None, error, None)
    assert (code, left) == (0, 0)
    assert severities(frames) == ["warning", "info", "warning", "info"]
    assert [frame.error is not None for frame in frames if isinstance(frame, wire.Reply)] == [True, False, True, False]


def test_a_model_that_fails_repeatedly_ends_the_process():
    code, frames, _ = serve(*[FloatingPointError("NaN")] * 5)
    assert code == DEVICE_LOST
    assert len([frame for frame in frames if isinstance(frame, wire.Reply)]) == 3


class BusyEngine(FailingEngine):
    """An engine that always has adapter work. Appends "work" or "completion" to `done`."""

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


def test_adapter_work_goes_on_between_completions_without_a_pause():
    """A completion waits for half the time of the previous one, 20 ms at most."""
    done: list[str] = []
    requests = [wire.Request(id=n, method="complete", params=wire.to_params(ask())) for n in range(1, 21)]
    worker = Worker(io.BytesIO(), io.BytesIO())
    worker._engine = BusyEngine(done)
    for request in requests:
        worker._inbox.add(request)
    while done.count("completion") < len(requests):
        assert worker.turn()
    between = "".join(one[0] for one in done).strip("w").split("c")[1:-1]
    assert len(between) == len(requests) - 1
    assert all(1 <= len(work) <= 12 for work in between), between


@pytest.mark.parametrize(("cores", "variable", "expected"), [(8, None, [7]), (1, None, [1]), (8, "3", [])])
def test_one_core_is_left_to_other_processes(cores, variable, expected, monkeypatch):
    chosen: list[int] = []
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr("psutil.cpu_count", lambda logical=True: cores)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    worker._leave_one_core()
    assert chosen == expected
