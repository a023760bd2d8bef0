"""A killed server ends its engine, even if the engine is blocked and reads no input."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.editor import Editor, slack

LIMIT = 5.0 * slack()

ENGINE = """
import ctypes, sys, time
from c2l_lsp.engine import parent_watch, worker
{unknown_parent}
def stuck(self, params, request_id):
    open({mark!r}, "w").close()
    {does}
worker.Worker._on_hello = stuck
sys.exit(worker.main())
"""
SERVER = "import sys; from c2l_lsp.server.app import serve; sys.exit(serve(command=[sys.executable, '-c', {engine!r}]))"

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel does it on Linux only")


@pytest.mark.parametrize(
    ("does", "by_kernel"),
    [
        ("while True: pass", False),
        ("time.sleep(600)", False),
        ("ctypes.CDLL(None).sleep(600)", False),
        pytest.param("ctypes.PyDLL(None).sleep(600)", True, marks=linux, id="native code that holds the lock"),
    ],
)
def test_blocked_engine_ends_with_a_killed_server(does: str, by_kernel: bool, folder: Path, tmp_path: Path):
    mark = tmp_path / "stuck"
    unknown = "" if by_kernel else "parent_watch.exit_with_parent = lambda: None"  # as where no kernel helps
    engine = ENGINE.format(unknown_parent=unknown, mark=str(mark), does=does)
    command = [sys.executable, "-c", SERVER.format(engine=engine)]
    with Editor(command, tmp_path / "engine.log") as editor:
        editor.initialize([folder])
        editor.until(mark.exists, 30)
        left = editor.engines()
        assert len(left) == 1
        try:
            editor.process.kill()
            editor.process.wait()
            assert all(ended(process) for process in left)
        finally:
            for process in left:
                if process.is_running():
                    process.kill()


def ended(process: psutil.Process) -> bool:
    """Whether the process ends within LIMIT. A zombie counts: process 1 may not reap it."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False
