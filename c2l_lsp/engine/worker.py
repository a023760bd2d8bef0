"""The engine process: reads frames on stdin, writes frames to stdout, and serves completions before adapter work.

Started as `python -m c2l_lsp.engine.worker`. Three kinds of threads: the reader (parses frames, marks cancelled
requests), file watchers (report hints), and the main loop, which alone uses the model. The process ends when its stdin
ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from c2l_lsp import isolation
from c2l_lsp.engine import allocator, device, parent_watch, wire
from c2l_lsp.engine.inbox import Inbox
from c2l_lsp.errors import C2LError, EngineError, RequestCancelled, Severity, WireError, type_and_location

if TYPE_CHECKING:
    from c2l_lsp.engine.engine import Engine

log = logging.getLogger("c2l.engine")

DEVICE_LOST = 70
"""Exit code: this process can no longer use its device, and the server should start another one."""

_MODEL_FAULTS = (RuntimeError, MemoryError, ArithmeticError)  # torch's: out of memory, a device error; NaN

_ERROR_PAUSE_S = 1.0
"""Pause of adapter work after an unexpected error, which may occur again at once."""

_WORK_SHARE, _MAX_WORK_S = 0.5, 0.02
"""Adapter work to do per second of completions, and the longest that the next completion waits for it. Without it,
requests that follow each other without a pause would keep a folder from being indexed."""

_SWITCH_INTERVAL_S = 0.0005
"""Longest wait for the GIL at each of the many steps of a completion. With Python's default of 5 ms, completions took
ten times as long while the watcher read many events."""

_MAX_WAIT_S = 0.25
"""Longest wait of the main loop for a request: the latest point at which it sees a watcher's hint."""


def _unexpected(task: str, error: Exception) -> str:
    """Log an unexpected error and return a sentence for it. It names a code location, as messages may hold source."""
    sentence = f"{task} failed: {type_and_location(error)}. This is a bug in c2l-lsp; please report it."
    log.error("%s", sentence)
    return sentence


class Worker:
    """One engine behind a pair of streams. `on_end` is called by the reader thread after the last frame."""

    def __init__(self, stdin: BinaryIO, stdout: BinaryIO, on_end: Callable[[], None] = lambda: None) -> None:
        self._stdin, self._stdout, self._on_end = stdin, stdout, on_end
        self._inbox = Inbox()
        self._write_lock = threading.Lock()
        self._engine: Engine | None = None  # imported by `hello`: other requests are answered without torch
        self._running = True
        self._faults = 0
        self._exit_code = 0
        self._pause_until = 0.0
        self._work_due_s = 0.0  # adapter work to do before the next completion

    def run(self) -> int:
        """Serve until `shutdown` or the end of stdin. Returns the exit code of the process."""
        threading.Thread(target=self._read, name="frames", daemon=True).start()
        while self.turn():
            pass
        if self._engine is not None:
            self._engine.close()
        return self._exit_code

    def turn(self) -> bool:
        """Serve a request, do one step of adapter work, or wait. Returns whether the loop continues."""
        engine = self._engine
        due = engine.due_in() if engine is not None else None
        wait_s = _MAX_WAIT_S if due is None else max(due, self._pause_until - time.monotonic())
        if engine is not None and wait_s <= 0 < self._work_due_s and not self._inbox.closed:
            self._work(engine)
            return self._running
        request = self._inbox.take(max(0.0, min(wait_s, _MAX_WAIT_S)))
        if request is not None:
            self._serve(request)
        elif self._inbox.closed:
            self._running = False
        elif engine is not None and wait_s <= 0:
            self._work(engine)
        return self._running

    def _read(self) -> None:
        try:
            while (frame := wire.read(self._stdin)) is not None:
                if not isinstance(frame, wire.Request):
                    raise WireError("The engine accepts requests only.")
                self._inbox.add(frame)
        except (WireError, OSError) as error:
            log.error("cannot read the server's frames: %s", error)
        finally:
            self._inbox.close()
            self._on_end()

    def _work(self, engine: Engine) -> None:
        started = time.monotonic()
        try:
            engine.idle_step()
        except C2LError as error:
            self._emit(wire.Trouble(folder="", code=error.code, severity=error.severity.value, message=str(error)))
        except _MODEL_FAULTS as error:  # a folder handles its own faults, so this one is about the device
            self._model_failed(error)
        except Exception as error:
            self._pause_until = time.monotonic() + _ERROR_PAUSE_S
            self._notify(Severity.WARNING, _unexpected("Adapter work", error))
        self._work_due_s -= time.monotonic() - started

    def _serve(self, request: wire.Request) -> None:
        started = time.monotonic()
        try:
            reply = wire.Reply(id=request.id, result=wire.to_params(self._answer(request)))
            if request.method == "complete" and self._faults:
                self._faults = 0
                self._notify(Severity.INFO, "The model works again.")
        except C2LError as error:
            reply = wire.Reply(id=request.id, error=(error.code, str(error)))
        except _MODEL_FAULTS as error:
            reply = wire.Reply(id=request.id, error=("engine", self._model_failed(error)))
        except Exception as error:  # fails this request only
            reply = wire.Reply(id=request.id, error=("engine", _unexpected(f"The request {request.method}", error)))
        self._inbox.finish(request.id)
        if request.method == "complete":
            self._work_due_s = min(_MAX_WORK_S, max(self._work_due_s, 0.0) + _WORK_SHARE * (time.monotonic() - started))
        try:
            self._send(reply)
        except WireError as error:
            self._send(wire.Reply(id=request.id, error=(error.code, str(error))))

    def _model_failed(self, error: Exception) -> str:
        """Warn the user and return the sentence. Ends the process if the device is lost or failures repeat."""
        description = device.describe(error)
        sentence = f"The model failed: {description}"
        self._faults += 1
        log.error("%s", sentence)
        if device.is_lost(error) or self._faults >= device.FAULTS_IN_A_ROW:
            self._running, self._exit_code = False, DEVICE_LOST
            log.error("the engine exits to be restarted, as its device is lost: %s", description)
        self._notify(Severity.WARNING, sentence)
        return sentence

    def _notify(self, severity: Severity, sentence: str) -> None:
        self._emit(wire.Trouble(folder="", code=EngineError.code, severity=severity.value, message=sentence))

    def _answer(self, request: wire.Request) -> msgspec.Struct:
        if request.method not in wire.METHODS:
            raise WireError(f"There is no method {request.method}.")
        params = wire.from_params(request.params, wire.METHODS[request.method][0])
        handler: Callable[[Any, int], msgspec.Struct | None] = getattr(self, f"_on_{request.method}")
        return handler(params, request.id) or wire.Nothing()

    @property
    def _loaded(self) -> Engine:
        if self._engine is None:
            raise EngineError("The engine has no model yet: `hello` must be the first request.")
        return self._engine

    # --- methods -----------------------------------------------------------------------------------------------------

    def _on_hello(self, params: wire.Hello, _id: int) -> wire.ModelInfo:
        if params.schema != wire.SCHEMA:
            raise WireError(
                f"The server uses wire schema {params.schema}, the engine {wire.SCHEMA}. Restart the editor."
            )
        from c2l_lsp.engine.engine import Engine

        _leave_one_core()
        if self._engine is not None:
            self._engine.close()
        self._engine = Engine(params.settings, self._emit)
        return self._engine.model_info()

    def _on_open_folder(self, params: wire.OpenFolder, _id: int) -> None:
        self._loaded.open_folder(params)

    def _on_close_folder(self, params: wire.Folder, _id: int) -> None:
        self._loaded.close_folder(params.folder)

    def _on_buffer(self, params: wire.Buffer, _id: int) -> None:
        self._loaded.workspace(params.folder).set_buffer(params.path, params.text)

    def _on_complete(self, params: wire.Complete, request_id: int) -> wire.Completion:
        engine = self._loaded
        if self._inbox.is_cancelled(request_id):
            raise RequestCancelled("The completion was cancelled before it started.")
        return engine.complete(params, lambda: self._inbox.is_cancelled(request_id))

    def _on_score(self, params: wire.Score, _id: int) -> wire.Scored:
        return self._loaded.score(params)

    def _on_cancel(self, params: wire.Cancel, _id: int) -> None:
        del params  # the reader thread has marked the request

    def _on_adapter_info(self, params: wire.Folder, _id: int) -> wire.AdapterInfo:
        return self._loaded.workspace(params.folder).info()

    def _on_regenerate(self, params: wire.Folder, _id: int) -> None:
        self._loaded.workspace(params.folder).regenerate()

    def _on_reset(self, params: wire.Folder, _id: int) -> None:
        self._loaded.workspace(params.folder).reset()

    def _on_deepen(self, params: wire.Deepen, _id: int) -> wire.AdapterInfo:
        workspace = self._loaded.workspace(params.folder)
        if params.cancel:
            workspace.cancel_finetuning()
        else:
            workspace.finetune(params.steps)
        return workspace.info()

    def _on_export(self, params: wire.Export, _id: int) -> wire.Exported:
        return self._loaded.export(params)

    def _on_set_enabled(self, params: wire.SetEnabled, _id: int) -> wire.AdapterInfo:
        workspace = self._loaded.workspace(params.folder)
        workspace.set_enabled(params.enabled)
        return workspace.info()

    def _on_status(self, params: wire.Nothing, _id: int) -> wire.Status:
        del params
        return self._loaded.status()

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
        with self._write_lock, contextlib.suppress(BrokenPipeError):  # the reader thread sees the end of stdin too
            self._stdout.write(wire.pack(frame))
            self._stdout.flush()


def _leave_one_core() -> None:
    """Use all cores but one for the model, unless OMP_NUM_THREADS is set.

    Threads wait for the slowest at each step. On two cores beside a `git checkout`, completions took 3.5 times as long
    as alone with two threads, and 1.0 times with one.
    """
    import torch

    from c2l_lsp.model.runtime import hardware

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(hardware.thread_count())


def main() -> int:
    """Run a worker on stdin and stdout, and return its exit code.

    Frames use a private duplicate of stdout. The stdout of Python and of native code goes to stderr.
    """
    parent_watch.exit_with_parent()
    frames_out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    if os.name == "nt":  # no translation of line endings
        import msvcrt

        msvcrt.setmode(0, os.O_BINARY)  # type: ignore[attr-defined]
        msvcrt.setmode(frames_out.fileno(), os.O_BINARY)  # type: ignore[attr-defined]
    allocator.return_freed_memory()
    allocator.limit_kernel_caches()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    isolation.leave_folder()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    logging.basicConfig(level=os.environ.get("C2L_LOG_LEVEL", "WARNING"), format="%(name)s %(levelname)s %(message)s")
    return Worker(sys.stdin.buffer, frames_out, parent_watch.exit_after_grace).run()


if __name__ == "__main__":
    sys.exit(main())
