"""The editor's process is watched by pid and start time."""

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


def test_an_editor_that_ends_is_noticed_even_unreaped() -> None:
    gone = threading.Event()
    editor = sleeper()
    parent_watch.watch(editor.pid, gone.set, poll=0.05)
    assert not gone.wait(0.3)
    editor.kill()  # a zombie now: nobody has waited for it
    assert gone.wait(5)
    editor.wait()


def test_an_editor_that_ends_while_the_watch_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between `initialize` and the thread's first look the editor may be gone; that is an end, not a container."""
    looked = threading.Event()

    class Slow(psutil.Process):
        def __init__(self, pid: int) -> None:
            assert looked.wait(5)
            super().__init__(pid)

    monkeypatch.setattr(psutil, "Process", Slow)
    gone = threading.Event()
    editor = sleeper()
    parent_watch.watch(editor.pid, gone.set, poll=0.05)
    editor.kill()
    editor.wait()
    looked.set()
    assert gone.wait(5)


def test_a_process_that_cannot_be_seen_is_not_taken_for_dead() -> None:
    gone = threading.Event()
    for pid in (2**22 + 12345, -1, 2**70):
        parent_watch.watch(pid, gone.set, poll=0.05).join(5)
    assert not gone.is_set()


def test_our_own_process_is_alive() -> None:
    gone = threading.Event()
    thread = parent_watch.watch(os.getpid(), gone.set, poll=0.05)
    time.sleep(0.3)
    assert thread.is_alive()
    assert not gone.is_set()


def test_an_editor_that_ends_as_soon_as_it_is_greeted() -> None:
    """The answer comes before pygls is loaded; what ends in that second is gone when the full protocol looks."""
    editor = sleeper()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([sys.executable, "-m", "c2l_lsp", "serve", "--stdio"], **pipes)
    try:
        asked = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {"processId": editor.pid, "capabilities": {}},
        }
        body = json.dumps(asked).encode()
        server.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        server.stdin.flush()
        assert server.stdout.readline().startswith(b"Content-Length")
        editor.kill()
        editor.wait()
        server.wait(30)  # its pipe is open still
    finally:
        for process in (editor, server):
            process.kill()
            process.wait()
        server.stdin.close()
        server.stdout.close()
