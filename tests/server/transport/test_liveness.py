"""Distinguishing a process that hangs from one that gets no CPU time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from c2l_lsp.server.transport import liveness


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield process
    process.kill()
    process.wait()


def test_busy_process_is_not_starved(busy: subprocess.Popen[bytes]) -> None:
    used = liveness.cpu_seconds(busy.pid)
    deadline = time.monotonic() + 30
    while liveness.cpu_seconds(busy.pid) - used < 0.3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not liveness.is_starved(busy.pid, used, 0.5)
    assert liveness.is_starved(busy.pid, used, 1000.0)  # the same CPU time in a much longer interval


def test_waiting_process_is_not_starved() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        watched = psutil.Process(process.pid)
        deadline = time.monotonic() + 30
        while watched.status() != psutil.STATUS_SLEEPING:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.1)
        assert not liveness.is_starved(process.pid, liveness.cpu_seconds(process.pid), 1000.0)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()


def test_ended_process_is_not_starved() -> None:
    assert liveness.cpu_seconds(2**22 + 99) is None
    assert not liveness.is_starved(2**22 + 99, 0.0, 1.0)
    assert not liveness.is_starved(2**22 + 99, None, 1.0)
