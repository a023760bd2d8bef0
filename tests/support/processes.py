"""The two processes under test, driven by hand over their pipes: a server as an editor has it, and a bare engine.

Reading is strict: a byte that belongs to no message is an error. Nothing here knows LSP beyond ids and methods.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import msgspec
import psutil

from c2l_lsp.engine import wire
from c2l_lsp.errors import EngineError
from c2l_lsp.server.transport.stdio import Framer, FramingError
from tests.support.commands import module_command

SERVER = (sys.executable, "-m", "c2l_lsp", "serve", "--stdio")
ENGINE = (sys.executable, "-m", "c2l_lsp.engine.worker")
Plain = dict[str, Any]


def planted(fault: str, what: str) -> tuple[str, ...]:
    """The command of a server or engine with a fault in it; without one, the ordinary command."""
    if not fault:
        return SERVER if what == "server" else ENGINE
    return module_command("tests.soak.planted", fault, what)


def environment(work: Path, **more: str) -> dict[str, str]:
    """State of this run's own and no network. Settings are the defaults, unless C2L_CONFIG names a file."""
    config = os.environ.get("C2L_CONFIG", str(work / "config.toml"))
    private = {"C2L_STATE_DIR": str(work / "state"), "C2L_CONFIG": config, "HF_HUB_OFFLINE": "1"}
    return {**os.environ, "TOKENIZERS_PARALLELISM": "false", **private, **more}


def frame(message: Mapping[str, object]) -> bytes:
    """A message as bytes on the pipe."""
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


class Editor:
    """A server process and everything it said. Also a context manager: nothing of it is left afterwards."""

    def __init__(self, work: Path, command: Sequence[str] = SERVER, cwd: Path | None = None, **env: str) -> None:
        self.log = work / f"server-{time.monotonic_ns()}.log"
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(work, **env),
                cwd=cwd,
            )
        self.replies: dict[object, list[Plain]] = {}
        self.told: list[Plain] = []
        self.raw = 0
        self.broken = ""
        self.ended = threading.Event()
        self.news = threading.Condition()
        self._id = 0
        self._writing = threading.Lock()
        self._reader = threading.Thread(target=self._read, args=(_pipe(self.process.stdout),), daemon=True)
        self._reader.start()

    def __enter__(self) -> Editor:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _read(self, stream: IO[bytes]) -> None:
        framer = Framer()
        try:
            while data := os.read(stream.fileno(), 1 << 16):
                self.raw += len(data)
                for body in framer.feed(data):
                    self._take(json.loads(body))
        except (FramingError, ValueError) as error:
            self.broken = f"{type(error).__name__}: {error}"
        except OSError:
            pass
        self.ended.set()
        with self.news:
            self.news.notify_all()

    def _take(self, message: Plain) -> None:
        if "method" in message and "id" in message:
            with contextlib.suppress(OSError, ValueError):
                self.write(frame({"id": message["id"], "result": None}))
        with self.news:
            if "method" in message:
                self.told.append(message)
            else:
                self.replies.setdefault(message.get("id"), []).append(message)
            self.news.notify_all()

    def write(self, data: bytes) -> None:
        """Bytes as they are."""
        stream = _pipe(self.process.stdin)
        with self._writing:
            stream.write(data)
            stream.flush()

    def notify(self, method: str, params: object) -> None:
        """A notification."""
        self.write(frame({"method": method, "params": params}))

    def send(self, method: str, params: object) -> int:
        """A request; its id."""
        self._id += 1
        self.write(frame({"id": self._id, "method": method, "params": params}))
        return self._id

    def reply(self, number: object, timeout: float) -> Plain:
        """The reply to a request. TimeoutError if none comes, or the server has ended."""
        self.until(lambda: number in self.replies or self.ended.is_set(), timeout, f"no reply to {number}")
        if number not in self.replies:
            raise TimeoutError(f"the server ended before it replied to {number}")
        return self.replies[number][0]

    def ask(self, method: str, params: object, timeout: float = 60.0) -> Plain:
        """A request and its reply."""
        return self.reply(self.send(method, params), timeout)

    def until(self, holds: Callable[[], object], timeout: float, why: str) -> None:
        """Wait for something to be told. TimeoutError otherwise."""
        with self.news:
            if not self.news.wait_for(lambda: bool(holds()), timeout):
                raise TimeoutError(f"{why} within {timeout:.1f} s")

    def initialize(
        self, folders: Sequence[Path] = (), options: object = None, process_id: int | None = None, timeout: float = 60.0
    ) -> Plain:
        """Say hello as an editor does; the reply."""
        params = {
            "processId": process_id,
            "rootUri": None,
            "capabilities": {"textDocument": {"inlineCompletion": {}}},
            "workspaceFolders": [{"uri": path.as_uri(), "name": path.name} for path in folders],
            "initializationOptions": options or {},
        }
        found = self.ask("initialize", params, timeout)
        self.notify("initialized", {})
        return found

    def open(self, uri: str, text: str, language: str = "python") -> None:
        """A document was opened."""
        item = {"uri": uri, "languageId": language, "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": item})

    def complete(self, uri: str, line: int, character: int) -> int:
        """Ask explicitly for a completion; the request's id."""
        position = {"line": line, "character": character}
        context = {"triggerKind": 1}
        params = {"textDocument": {"uri": uri}, "position": position, "context": context}
        return self.send("textDocument/inlineCompletion", params)

    def statuses(self) -> list[Plain]:
        """Every status that was told."""
        return [message["params"] for message in list(self.told) if message["method"] == "c2l/didChangeStatus"]

    def changes(self) -> list[Plain]:
        """Every new adapter that was told."""
        return [message["params"] for message in list(self.told) if message["method"] == "c2l/adapter/didChange"]

    def ready(self, timeout: float, adapter: bool = True) -> None:
        """Wait for the status ready, with an adapter or without."""
        self.until(lambda: any(_ready(status, adapter) for status in self.statuses()[-1:]), timeout, "not ready")

    def family(self) -> list[psutil.Process]:
        """The server and its children."""
        try:
            server = psutil.Process(self.process.pid)
            return [server, *server.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """End it and its children, at once."""
        for process in self.family()[1:]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.kill()
        self.process.wait(30)
        self._reader.join(5)
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                _pipe(stream).close()


def _ready(status: Plain, adapter: bool) -> bool:
    return status["state"] == "ready" and (not adapter or bool(status.get("adapter")))


class Engine:
    """An engine process spoken to in frames. Also a context manager."""

    def __init__(self, work: Path, command: Sequence[str] = ENGINE, **env: str) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(work, **env),
        )
        self.replies: dict[int, tuple[float, wire.Reply]] = {}
        self.events: list[wire.Event] = []
        self.news = threading.Condition()
        self.ended = threading.Event()
        self._id = 0
        self._reader = threading.Thread(target=self._read, args=(_pipe(self.process.stdout),), daemon=True)
        self._reader.start()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(30)
        self._reader.join(5)
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                _pipe(stream).close()

    def _read(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(EngineError, OSError, ValueError):
            while (found := wire.read(cast(BinaryIO, stream))) is not None:
                with self.news:
                    if isinstance(found, wire.Reply):
                        self.replies[found.id] = (time.monotonic(), found)
                    elif isinstance(found, wire.Event):
                        self.events.append(found)
                    self.news.notify_all()
        self.ended.set()
        with self.news:
            self.news.notify_all()

    def send(self, method: str, params: msgspec.Struct | None = None) -> int:
        """A request; its id."""
        self._id += 1
        stream = _pipe(self.process.stdin)
        stream.write(
            wire.pack(wire.Request(id=self._id, method=method, params=wire.to_params(params or wire.Nothing())))
        )
        stream.flush()
        return self._id

    def reply(self, number: int, timeout: float) -> tuple[float, wire.Reply]:
        """When the reply came (monotonic) and what it is. TimeoutError otherwise."""
        with self.news:
            if not self.news.wait_for(lambda: number in self.replies or self.ended.is_set(), timeout):
                raise TimeoutError(f"no reply of the engine within {timeout:.1f} s")
            if number not in self.replies:
                raise TimeoutError("the engine ended before it replied")
            return self.replies[number]

    def call(self, method: str, params: msgspec.Struct | None = None, timeout: float = 120.0) -> wire.Reply:
        """A request and its reply."""
        return self.reply(self.send(method, params), timeout)[1]

    def heard(self, name: str) -> list[wire.Event]:
        """Every event of a name so far."""
        return [event for event in list(self.events) if event.name == name]


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def gone(processes: Sequence[psutil.Process], timeout: float) -> list[psutil.Process]:
    """The processes that are still there after the time."""
    left: list[psutil.Process] = psutil.wait_procs(processes, timeout=timeout)[1]
    return left
