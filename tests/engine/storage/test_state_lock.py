"""The lock of a state directory: one holder at a time, until it releases the lock or its process ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from c2l_lsp.engine.storage.state_lock import StateInUse, StateLock
from c2l_lsp.errors import Severity, StorageError


def test_one_holder_at_a_time_until_it_releases_the_lock(tmp_path):
    first, second = StateLock(tmp_path / "state"), StateLock(tmp_path / "state")
    try:
        assert first.acquire()
        assert first.acquire()  # it holds the lock already
        assert (first.held, second.acquire(), second.held) == (True, False, False)
        first.require_held()
        with pytest.raises(StateInUse, match=f"Another server writes the state in {second.root}.") as raised:
            second.require_held()
        assert raised.value.severity is Severity.INFO
        first.release()
        first.release()  # nothing to release
        assert (first.held, second.acquire(), first.acquire()) == (False, True, False)
    finally:
        first.release()
        second.release()


def test_the_lock_ends_with_its_process(tmp_path):
    """Also if the process exits without releasing it."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom c2l_lsp.engine.storage.state_lock import StateLock\n"
        "lock = StateLock(Path(sys.argv[1]))\nprint(lock.acquire(), flush=True)\nsys.stdin.read()\nos._exit(9)\n"
    )
    root = tmp_path / "state"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "True\n"
        lock = StateLock(root)
        assert not lock.acquire()
        other.stdin.close()
        assert other.wait(30) == 9
    assert lock.acquire()
    lock.release()


def test_a_lock_file_that_cannot_be_created_raises(tmp_path: Path):
    (tmp_path / "file").write_text("")
    lock = StateLock(tmp_path / "file" / "state")
    with pytest.raises(StorageError, match=f"cannot be saved in {lock.root}: Not a directory"):
        lock.acquire()
    assert not lock.held
