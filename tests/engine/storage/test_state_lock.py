"""Who may write a state directory: one at a time, until it lets go or its process ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from c2l_lsp.engine.storage.state_lock import StateInUse, StateLock
from c2l_lsp.errors import Severity, StorageError


def test_one_has_it_until_it_lets_go(tmp_path):
    first, second = StateLock(tmp_path / "state"), StateLock(tmp_path / "state")
    try:
        assert first.acquire()
        assert first.acquire()  # it has it already
        assert (first.held, second.acquire(), second.held) == (True, False, False)
        first.require_held()
        with pytest.raises(StateInUse, match=f"Another server keeps what is learned in {second.root};") as told:
            second.require_held()
        assert told.value.severity is Severity.INFO
        first.release()
        first.release()  # it has nothing to let go of
        assert (first.held, second.acquire(), first.acquire()) == (False, True, False)
    finally:
        first.release()
        second.release()


def test_it_ends_with_the_process_that_has_it(tmp_path):
    """However that ends: nothing is left to clean up."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom c2l_lsp.engine.storage.state_lock import StateLock\n"
        "claim = StateLock(Path(sys.argv[1]))\nprint(claim.acquire(), flush=True)\nsys.stdin.read()\nos._exit(9)\n"
    )
    root = tmp_path / "state"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "True\n"
        claim = StateLock(root)
        assert not claim.acquire()
        other.stdin.close()
        assert other.wait(30) == 9
    assert claim.acquire()
    claim.release()


def test_a_place_where_no_file_can_be_made_is_a_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    claim = StateLock(tmp_path / "file" / "state")
    with pytest.raises(StorageError, match=f"cannot be kept in {claim.root}: Not a directory"):
        claim.acquire()
    assert not claim.held
