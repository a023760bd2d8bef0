"""Freed memory goes back to the system and kernel caches stay small; both do not happen by default."""

from __future__ import annotations

import subprocess
import sys

import pytest

_ALLOCATIONS = """
import sys, psutil
from c2l_lsp.engine import allocator
if sys.argv[1] == "bounded":
    assert allocator.return_freed_memory()
def block():
    made = bytearray(2 << 20)
    made[::4096] = b"x" * 512  # touch every page
    return made
first = bytearray(24 << 20)
del first  # from now on glibc keeps blocks up to this size
before = psutil.Process().memory_info().rss
held, pins = [], []
for _ in range(60):
    held.append(block())
    pins.append(bytearray(3000))  # a block in use between the freed ones
held.clear()
print(psutil.Process().memory_info().rss - before)
"""


def growth(how: str) -> int:
    made = subprocess.run(
        [sys.executable, "-c", _ALLOCATIONS, how], capture_output=True, text=True, check=True, timeout=60
    )
    return int(made.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_large_freed_blocks_go_back_to_the_system():
    assert growth("bounded") < 30 << 20
    assert growth("default") > 60 << 20


_PROMPT_LENGTHS = """
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


def test_kernel_caches_do_not_grow_with_the_number_of_prompt_lengths():
    def cached(how: str) -> int:
        command = [sys.executable, "-c", _PROMPT_LENGTHS, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)

    bounded = cached("bounded")
    if bounded < 0:
        pytest.skip("this CPU has no bf16 kernels")
    assert bounded < cached("default") / 2
