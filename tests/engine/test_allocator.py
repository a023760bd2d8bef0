"""Freed memory goes back to the system, which it does not by itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SCRIPT = """
import sys, psutil
from c2l_lsp.engine import allocator
if sys.argv[1] == "bounded":
    assert allocator.return_freed_memory()
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


_READS = """
import sys
from c2l_lsp.engine import allocator
allocator.return_freed_memory()
if sys.argv[1] == "bounded":
    allocator.limit_kernel_caches()
import psutil, torch
if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
    print(-1); sys.exit()
torch.set_num_threads(1)
weight = torch.randn(768, 256).bfloat16()
def read(lengths):
    for length in lengths:
        torch.nn.functional.linear(torch.randn(length, 256).bfloat16(), weight)
    return psutil.Process().memory_info().rss
before = read(range(900, 910))
print(read(range(100, 900, 2)) - before)
"""


def test_kernels_for_every_length_ever_read_are_not_kept():
    def grown(how: str) -> int:
        words = [sys.executable, "-c", _READS, how]
        return int(subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout)

    bounded = grown("bounded")
    if bounded < 0:
        pytest.skip("this processor multiplies no bf16, and keeps no kernels for it")
    assert bounded < grown("as it is") / 2
