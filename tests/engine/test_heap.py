"""Freed memory goes back to the system, which it does not by itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SCRIPT = """
import sys, psutil
from c2l_lsp.engine import heap
if sys.argv[1] == "bounded":
    assert heap.give_back()
def block():
    made = bytearray(2 << 20)
    made[::4096] = b"x" * 512  # every page is there
    return made
first = bytearray(24 << 20)
del first  # glibc: blocks up to this size are worth keeping from now on
before = psutil.Process().memory_info().rss
held, pins = [], []
for _ in range(60):
    held.append(block())
    pins.append(bytearray(3000))  # stands between them, as what is still needed does
held.clear()
print(psutil.Process().memory_info().rss - before)
"""


def kept(how: str) -> int:
    made = subprocess.run([sys.executable, "-c", _SCRIPT, how], capture_output=True, text=True, check=True, timeout=60)
    return int(made.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_large_blocks_go_back_and_would_not_by_themselves():
    assert kept("bounded") < 30 << 20
    assert kept("as it is") > 60 << 20
