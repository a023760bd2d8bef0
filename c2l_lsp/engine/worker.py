"""The engine's process: frames in on stdin, frames out on stdout, one loop that serves completions first.

`python -m c2l_lsp.engine.worker`. Three threads at most touch anything: the reader (parses frames, sets cancel flags),
the watchers (hand in hints), and the main loop, which alone uses the model. The process ends when its stdin does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from c2l_lsp.engine import allocator, device, parent_watch, wire
from c2l_lsp.engine.inbox import Inbox
from c2l_lsp.errors import C2LError, EngineError, RequestCancelled, Severity, WireError, place

log = logging.getLogger("c2l.engine")
DEVICE_LOST = 70
"""Exit code: the device cannot be used by this process any more; whoever started it starts another."""
_MODEL_FAULTS = (RuntimeError, MemoryError, ArithmeticError)  # torch's own: out of memory, a device error; NaN
_PAUSE_S = 1.0
_SHARE, _LONGEST_S = 0.5, 0.02
"""Adapter work that is owed for a second of completions, and the longest that the next one waits for it: somebody who
asks without a pause must not keep a folder from being learned."""
_SWITCH_S = 0.0005
"""How long the loop waits at most for a thread that reads events, at each of a completion's hundreds of steps; Python's
own 5 ms made completions ten times slower while many files changed."""
_REST_S = 0.25  # longest sleep of the loop: a hint from a watcher thread is seen at the latest then


def _unforeseen(what: str, error: Exception) -> str:
    """A sentence for an error that nobody foresaw, logged too. Its text may hold source, so it says where it was."""
    sentence = f"{what} failed: {place(error)}. This is a fault of c2l-lsp; please report it."
    log.error("%s", sentence)
    return sentence


class Worker:
    """One engine behind one pair of streams."""

    def __init__(self, stdin: BinaryIO, stdout: BinaryIO, on_end: Callable[[], None] = lambda: None) -> None:
        """`on_end` is called by the reading thread after the last frame."""
        self._stdin, self._stdout, self._on_end = stdin, stdout, on_end
        self._inbox = Inbox()
        self._writing = threading.Lock()
        self._engine: Any = None  # core.Engine; imported at hello, so that a wrong frame is answered without torch
        self._running = True
        self._faults = 0
        self._code = 0
        self._pause_until = 0.0
        self._owed = 0.0

    def run(self) -> int:
        """Serve until shutdown or the end of stdin; the process' exit code."""
        threading.Thread(target=self._read, name="frames", daemon=True).start()
        while self.turn():
            pass
        if self._engine is not None:
            self._engine.close()
        return self._code

    def turn(self) -> bool:
        """A request, or a slice of adapter work, or a rest; whether it goes on."""
        engine = self._engine
        due = engine.due_in() if engine is not None else None
        if due is not None:
            due = max(due, self._pause_until - time.monotonic())
        if due is not None and due <= 0 < self._owed and not self._inbox.closed:
            self._work(engine)
            return self._running
        request = self._inbox.take(_REST_S if due is None else max(0.0, min(due, _REST_S)))
        if request is not None:
            self._serve(request)
        elif self._inbox.closed:
            self._running = False
        elif due is not None and due <= 0:
            self._work(engine)
        return self._running

    def _read(self) -> None:
        try:
            while (frame := wire.read(self._stdin)) is not None:
                if not isinstance(frame, wire.Request):
                    raise WireError("Only requests are expected here.")
                self._inbox.add(frame)
        except (WireError, OSError) as error:
            log.error("the server's frames cannot be read: %s", error)
        finally:
            self._inbox.close()
            self._on_end()

    def _work(self, engine: Any) -> None:  # noqa: ANN401 - core.Engine, imported late
        started = time.monotonic()
        try:
            engine.idle_step()
        except C2LError as error:
            self._emit(wire.Trouble(folder="", code=error.code, severity=error.severity.value, message=str(error)))
        except _MODEL_FAULTS as error:  # a folder's own are told by it; this is a device that is lost
            self._failed(error)
        except Exception as error:
            self._pause_until = time.monotonic() + _PAUSE_S  # it may fail again at once, and requests come first
            self._tell(Severity.WARNING, _unforeseen("Adapter work", error))
        self._owed -= time.monotonic() - started

    def _serve(self, request: wire.Request) -> None:
        started = time.monotonic()
        try:
            result: wire.Reply = wire.Reply(id=request.id, result=wire.to_params(self._answer(request)))
            if request.method == "complete" and self._faults:
                self._faults = 0
                self._tell(Severity.INFO, "The model answers again.")
        except C2LError as error:
            result = wire.Reply(id=request.id, error=(error.code, str(error)))
        except _MODEL_FAULTS as error:
            result = wire.Reply(id=request.id, error=("engine", self._failed(error)))
        except Exception as error:  # of this request alone: the next one is served
            result = wire.Reply(id=request.id, error=("engine", _unforeseen(f"The request {request.method}", error)))
        self._inbox.done(request.id)
        if request.method == "complete":
            self._owed = min(_LONGEST_S, max(self._owed, 0.0) + _SHARE * (time.monotonic() - started))
        try:
            self._send(result)
        except WireError as error:
            self._send(wire.Reply(id=request.id, error=(error.code, str(error))))

    def _failed(self, error: Exception) -> str:
        """The model failed: a sentence for it, also told as a trouble; the process ends if nothing else can help."""
        first = device.describe(error)
        sentence = f"The model failed: {first}"
        self._faults += 1
        log.error("%s", sentence)
        if device.is_lost(error) or self._faults >= device.FAULTS_IN_A_ROW:
            self._running, self._code = False, DEVICE_LOST
            log.error("The device cannot be used any more; the engine ends to be started again: %s", first)
        self._tell(Severity.WARNING, sentence)
        return sentence

    def _tell(self, severity: Severity, sentence: str) -> None:
        self._emit(wire.Trouble(folder="", code=EngineError.code, severity=severity.value, message=sentence))

    def _answer(self, request: wire.Request) -> msgspec.Struct:
        if request.method not in wire.METHODS:
            raise WireError(f"There is no method {request.method}.")
        params = wire.from_params(request.params, wire.METHODS[request.method][0])
        if request.method not in ("hello", "ping", "shutdown", "cancel") and self._engine is None:
            raise EngineError("The engine has not been told which model to load.")
        if request.method == "complete" and self._inbox.cancelled(request.id):
            raise RequestCancelled("The completion was cancelled before it began.")
        handler: Callable[[Any, int], msgspec.Struct | None] = getattr(self, f"_on_{request.method}")
        return handler(params, request.id) or wire.Nothing()

    # --- methods -----------------------------------------------------------------------------------------------------

    def _on_hello(self, params: wire.Hello, _id: int) -> wire.ModelInfo:
        if params.schema != wire.SCHEMA:
            raise WireError(f"The server speaks schema {params.schema}, the engine {wire.SCHEMA}; restart the editor.")
        from c2l_lsp.engine.engine import Engine

        _leave_a_core()
        if self._engine is not None:
            self._engine.close()
        self._engine = Engine(params.settings, self._emit)
        info: wire.ModelInfo = self._engine.model_info()
        return info

    def _on_open_folder(self, params: wire.OpenFolder, _id: int) -> None:
        self._engine.open_folder(params)

    def _on_close_folder(self, params: wire.Folder, _id: int) -> None:
        self._engine.close_folder(params.folder)

    def _on_buffer(self, params: wire.Buffer, _id: int) -> None:
        self._engine.life(params.folder).buffer(params.path, params.text)

    def _on_complete(self, params: wire.Complete, request_id: int) -> msgspec.Struct:
        answer: wire.Completion = self._engine.complete(params, lambda: self._inbox.cancelled(request_id))
        return answer

    def _on_score(self, params: wire.Score, _id: int) -> msgspec.Struct:
        scored: wire.Scored = self._engine.score(params)
        return scored

    def _on_cancel(self, params: wire.Cancel, _id: int) -> None:
        del params  # the flag was set when the frame was read

    def _on_adapter_info(self, params: wire.Folder, _id: int) -> msgspec.Struct:
        info: wire.AdapterInfo = self._engine.life(params.folder).info()
        return info

    def _on_regenerate(self, params: wire.Folder, _id: int) -> None:
        self._engine.life(params.folder).regenerate()

    def _on_reset(self, params: wire.Folder, _id: int) -> None:
        self._engine.life(params.folder).reset()

    def _on_deepen(self, params: wire.Deepen, _id: int) -> msgspec.Struct:
        life = self._engine.life(params.folder)
        if params.cancel:
            life.cancel_deep()
        else:
            life.deepen(params.steps)
        info: wire.AdapterInfo = life.info()
        return info

    def _on_export(self, params: wire.Export, _id: int) -> msgspec.Struct:
        exported: wire.Exported = self._engine.export(params)
        return exported

    def _on_set_enabled(self, params: wire.SetEnabled, _id: int) -> msgspec.Struct:
        life = self._engine.life(params.folder)
        life.set_enabled(params.enabled)
        info: wire.AdapterInfo = life.info()
        return info

    def _on_status(self, params: wire.Nothing, _id: int) -> msgspec.Struct:
        del params
        status: wire.Status = self._engine.status()
        return status

    def _on_ping(self, params: wire.Nothing, _id: int) -> None:
        del params

    def _on_shutdown(self, params: wire.Nothing, _id: int) -> None:
        del params
        self._running = False

    # --- out ---------------------------------------------------------------------------------------------------------

    def _emit(self, event: msgspec.Struct) -> None:
        name = next(name for name, kind in wire.EVENTS.items() if type(event) is kind)
        self._send(wire.Event(name=name, data=wire.to_params(event)))

    def _send(self, frame: wire.Frame) -> None:
        with self._writing, contextlib.suppress(BrokenPipeError):  # the reader sees the end of the other stream
            self._stdout.write(wire.pack(frame))
            self._stdout.flush()


def _leave_a_core() -> None:
    """The model computes on all cores but one, unless OMP_NUM_THREADS says how many.

    At each of hundreds of steps every thread waits for the slowest. On two cores beside a git checkout completions took
    3.5 times as long as alone with two threads, and 1.0 times with one.
    """
    import torch

    from c2l_lsp.model.runtime import hardware

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(hardware.thread_count())


def main() -> int:
    """Seal stdout (a private duplicate carries the frames, prints go to stderr) and serve."""
    parent_watch.exit_with_parent()
    frames_out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    if os.name == "nt":  # frames are bytes
        import msvcrt

        msvcrt.setmode(0, os.O_BINARY)  # type: ignore[attr-defined]
        msvcrt.setmode(frames_out.fileno(), os.O_BINARY)  # type: ignore[attr-defined]
    allocator.return_freed_memory()
    allocator.limit_kernel_caches()
    sys.setswitchinterval(_SWITCH_S)
    os.chdir(Path(__file__).parent)  # a model's Hub name must not be taken for a folder of the workspace
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    logging.basicConfig(level=os.environ.get("C2L_LOG_LEVEL", "WARNING"), format="%(name)s %(levelname)s %(message)s")
    return Worker(sys.stdin.buffer, frames_out, parent_watch.exit_after_grace).run()


if __name__ == "__main__":
    sys.exit(main())
