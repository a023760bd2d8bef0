"""The watch of the editor's process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import psutil
import pytest

from c2l_lsp.server.transport import parent_watch


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def test_ended_editor_is_noticed_even_as_a_zombie() -> None:
    ended = threading.Event()
    editor = sleeper()
    parent_watch.watch(editor.pid, ended.set, poll=0.05)
    assert not ended.wait(0.3)
    editor.kill()  # now a zombie, because it has not been waited for
    assert ended.wait(5)
    editor.wait()


def test_editor_that_ends_while_the_watch_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor that existed at `initialize` and is gone at the first look has ended; it is not merely invisible."""
    looked = threading.Event()

    class Slow(psutil.Process):
        def __init__(self, pid: int) -> None:
            assert looked.wait(5)
            super().__init__(pid)

    monkeypatch.setattr(psutil, "Process", Slow)
    ended = threading.Event()
    editor = sleeper()
    parent_watch.watch(editor.pid, ended.set, poll=0.05)
    editor.kill()
    editor.wait()
    looked.set()
    assert ended.wait(5)


def test_invisible_process_is_not_reported_as_ended() -> None:
    ended = threading.Event()
    for pid in (2**22 + 12345, -1, 2**70):
        parent_watch.watch(pid, ended.set, poll=0.05).join(5)
    assert not ended.is_set()


def test_running_process_is_not_reported_as_ended() -> None:
    ended = threading.Event()
    thread = parent_watch.watch(os.getpid(), ended.set, poll=0.05)
    time.sleep(0.3)
    assert thread.is_alive()
    assert not ended.is_set()


def test_editor_that_ends_right_after_initialize() -> None:
    """`initialize` is answered before pygls is imported; an editor that ends in between must be noticed."""
    editor = sleeper()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([sys.executable, "-m", "c2l_lsp", "serve", "--stdio"], **pipes)
    try:
        message = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {"processId": editor.pid, "capabilities": {}},
        }
        body = json.dumps(message).encode()
        server.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        server.stdin.flush()
        assert server.stdout.readline().startswith(b"Content-Length")
        editor.kill()
        editor.wait()
        server.wait(30)  # its pipe is still open
    finally:
        for process in (editor, server):
            process.kill()
            process.wait()
        server.stdin.close()
        server.stdout.close()
