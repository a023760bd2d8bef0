"""A child process with pipes and a thread that reads its output. Base class of both clients."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

import psutil

_POLL_S = 0.05
_EXIT_S = 15.0
_Client = TypeVar("_Client", bound="PipedProcess")


class PipedProcess:
    """A child process; as a context manager it is killed, with its children, at the end of the block.

    `environment` is added to this process's own. stderr goes to the file `log`, or nowhere without one.
    Subclasses implement `_read`, which runs in a thread until the child closes its stdout.
    """

    timeout = 60.0
    """Seconds that a wait lasts at most, unless the call names another limit."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        log: Path | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.log = log
        self._updated = threading.Condition()
        """Notified after every message and at the end of the output."""
        self.ended = threading.Event()
        """Set when the child has closed its stdout and everything in it has been read."""
        self._writing = threading.Lock()
        with contextlib.ExitStack() as stack:
            errors = stack.enter_context(log.open("wb")) if log is not None else subprocess.DEVNULL
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                env={**os.environ, **environment}, cwd=cwd,
            )  # fmt: skip
        self._reader = threading.Thread(target=self._read_all, daemon=True)
        self._reader.start()

    def __enter__(self: _Client) -> _Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def write(self, data: bytes) -> None:
        """Write bytes to the child's stdin. OSError if the pipe is closed."""
        stream = _pipe(self.process.stdin)
        with self._writing:
            if stream.closed:
                raise BrokenPipeError("stdin of the process is closed")
            stream.write(data)
            stream.flush()

    def wait_until(self, holds: Callable[[], object], timeout: float) -> bool:
        """Wait until `holds()` is true; False after `timeout` seconds, or when the child has ended before."""
        deadline = time.monotonic() + timeout
        while True:
            ended = self.ended.is_set()
            with self._updated:
                if holds():
                    return True
                left = deadline - time.monotonic()
                if ended or left <= 0:
                    return False
                self._updated.wait(min(left, _POLL_S))

    def until(self, holds: Callable[[], object], timeout: float | None = None, what: str = "expected event") -> None:
        """Wait until `holds()` is true. TimeoutError, which names `what` was expected, if it does not become so."""
        limit = self.timeout if timeout is None else timeout
        if self.wait_until(holds, limit):
            return
        if self.ended.is_set():
            raise TimeoutError(f"the process ended: no {what}{self._last_output()}")
        raise TimeoutError(f"no {what} within {limit:.1f} s")

    def family(self) -> list[psutil.Process]:
        """The child and its own children; empty if it has ended."""
        try:
            child = psutil.Process(self.process.pid)
            return [child, *child.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    @property
    def memory(self) -> int:
        """Resident memory of the child in bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def finish(self, timeout: float = _EXIT_S) -> int:
        """Wait for the child to exit; kill it after `timeout` seconds. Returns its exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout)
        self.kill()
        return int(self.process.returncode)

    def kill(self) -> None:
        """Kill the child and its children, and close the pipes. Does nothing to a process that has ended."""
        for process in self.family()[1:]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.kill()
        self.process.wait(30)
        self._reader.join(5)
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                _pipe(stream).close()

    def _read_all(self) -> None:
        try:
            self._read(_pipe(self.process.stdout))
        finally:
            self.ended.set()
            with self._updated:
                self._updated.notify_all()

    def _read(self, stream: IO[bytes]) -> None:
        raise NotImplementedError

    def _last_output(self) -> str:
        """The last lines of the log, to explain a failure."""
        if self.log is None or not self.log.exists():
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
        return "".join(f"\n  {line}" for line in lines)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # noqa: S101 - both pipes were requested
    return stream
