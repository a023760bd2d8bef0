"""The end of a session: neither server nor engine outlives the editor."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from c2l_lab.clients.lsp import frame

from tests.e2e.conftest import Start
from tests.support.editor import Editor, fake_command, slack

LIMIT = 5.0 * slack()
"""Required limit: five seconds on an idle machine."""


Connect = Callable[[int | None], subprocess.Popen[bytes]]


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def gone(processes: list[psutil.Process], limit: float = LIMIT) -> bool:
    return psutil.wait_procs(processes, timeout=limit)[1] == []


def test_shutdown_and_exit_end_server_and_engine(editor: Editor) -> None:
    everyone = family(editor.process.pid)
    assert len(everyone) == 2
    before = time.monotonic()
    editor.request("shutdown")
    assert time.monotonic() - before < 2
    editor.notify("exit")
    assert editor.process.wait(LIMIT) == 0
    assert gone(everyone[1:])


def test_exit_without_shutdown_returns_1(editor: Editor) -> None:
    everyone = family(editor.process.pid)
    editor.notify("exit")
    assert editor.process.wait(LIMIT) == 1
    assert gone(everyone[1:])


@pytest.mark.parametrize("word", ["foo", "SLOW:60", "HANG"])
def test_closed_pipe_ends_server_and_engine(editor: Editor, uri: str, word: str) -> None:
    everyone = family(editor.process.pid)
    editor.change(uri, word)
    editor.send_completion(uri, 0, len(word))
    time.sleep(0.1)
    editor.process.stdin.close()
    editor.process.wait(LIMIT)
    assert gone(everyone[1:])


@pytest.fixture
def connect(folder: Path) -> Iterator[Connect]:
    """Starts a server by hand, up to its engine's start; whatever is left of it at the end is killed."""
    with contextlib.ExitStack() as stack:

        def one(process_id: int | None) -> subprocess.Popen[bytes]:
            server = subprocess.Popen(
                fake_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            stack.callback(_close, server)
            folders = [{"uri": folder.as_uri(), "name": "w"}]
            params = {"capabilities": {}, "processId": process_id, "rootUri": None, "workspaceFolders": folders}
            server.stdin.write(frame({"id": 1, "method": "initialize", "params": params}))
            server.stdin.write(frame({"method": "initialized", "params": {}}))
            server.stdin.flush()
            deadline = time.monotonic() + 10 * slack()
            while len(family(server.pid)) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            return server

        yield one


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that could be an editor."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(170)"])
    yield process
    process.kill()
    process.wait()


def _close(server: subprocess.Popen[bytes]) -> None:
    server.kill()
    server.wait()
    with contextlib.suppress(OSError):
        server.stdin.close()
    server.stdout.close()


def test_ended_editor_with_open_pipe_ends_the_server(connect: Connect, sleeper: subprocess.Popen[bytes]) -> None:
    everyone = family(connect(sleeper.pid).pid)
    sleeper.kill()
    sleeper.wait()
    assert gone(everyone)


def test_ended_editor_ends_a_blocked_server(connect: Connect, sleeper: subprocess.Popen[bytes]) -> None:
    """Nobody reads the server's output any more and its loop is busy: the watch still ends it."""
    server = connect(sleeper.pid)
    everyone = family(server.pid)
    server.stdin.write(
        frame({"id": 2, "method": "workspace/executeCommand", "params": {"command": "c2l.showReport"}}) * 3000
    )
    server.stdin.flush()
    sleeper.kill()
    sleeper.wait()
    assert gone(everyone, LIMIT + 1)


def test_invisible_process_id_does_not_end_the_server(connect: Connect) -> None:
    server = connect(2**22 + 4321)
    everyone = family(server.pid)
    assert not gone(everyone, 2.5)
    server.stdin.close()
    assert gone(everyone)


@pytest.mark.parametrize(
    "hostile",
    [b"Content-Length: 67108865\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"],
)
def test_malformed_stream_ends_the_server(hostile: bytes, connect: Connect) -> None:
    server = connect(None)
    everyone = family(server.pid)
    server.stdin.write(hostile)
    server.stdin.flush()
    assert server.wait(LIMIT) == 1
    assert gone(everyone[1:])
    assert b'"code": -32700' in server.stdout.read()


def test_sigterm_ends_server_and_engine(start: Start, folder: Path) -> None:
    editor = start()
    editor.initialize([folder])
    editor.ready()
    everyone = family(editor.process.pid)
    editor.process.terminate()
    editor.process.wait(LIMIT)
    assert gone(everyone[1:])
