"""The kernel's thread pool: the same bits on any number of threads and callers, and no CPU time when idle."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from c2l_lsp.model.adapter.forward import NativeReader
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime import kernel, quantized_linear
from c2l_lsp.model.runtime.kernel import Int8Matrix

pytestmark = pytest.mark.skipif(
    not kernel.is_available(), reason="the kernel was not built: no C compiler at installation"
)


def make_matrix(out: int, inside: int, seed: int) -> Int8Matrix:
    dice = torch.Generator().manual_seed(seed)
    Q = torch.randint(-127, 128, (out, inside), generator=dice, dtype=torch.int8)
    return Int8Matrix.pack(Q, torch.rand(out, generator=dice), torch.randn(out, generator=dice))


@pytest.mark.parametrize("threads", [2, 3, 8, 30])
def test_products_have_the_same_bits_on_any_number_of_threads(threads: int) -> None:
    """Thousands of jobs in a row, of many and of few parts: a late worker must not run a part of the wrong job."""
    cases = []
    for number, (out, inside, n) in enumerate(
        [(4096, 64, 1), (700, 512, 3), (8, 16, 2), (1024, 1024, 5), (640, 256, 1)]
    ):
        matrix, x = (
            make_matrix(out, inside, number),
            torch.randn(n, inside, generator=torch.Generator().manual_seed(number)),
        )
        cases.append((x, matrix, kernel.multiply(x, matrix)))
    for _ in range(400):
        for x, matrix, expected in cases:
            assert torch.equal(kernel.multiply(x, matrix, threads), expected)


def model() -> BaseModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=2048,
    )  # fmt: skip
    lm = LlamaForCausalLM(config).eval().requires_grad_(False)
    return BaseModel("m", "m", lm, None, None, torch.device("cpu"), torch.float32, 2048, 0.0)


def states(base: BaseModel, ids: list[int]) -> Tensor:
    reader = NativeReader(base.lm, AdapterSlot(base), int8=True, compiled=True)
    text = reader.new_sequence()
    text.prefill(ids[:600])
    return torch.cat([text.decode(ids[at : at + 1 + at % 3]) for at in range(600, 640)])


def test_steps_have_the_same_bits_on_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    base, ids = model(), torch.randint(0, 300, (700,), generator=torch.Generator().manual_seed(1)).tolist()
    alone = states(base, ids)
    monkeypatch.setattr(quantized_linear, "_threads", lambda count: 3)
    assert torch.equal(states(base, ids), alone)  # attention is parallel from 256 positions on


def test_concurrent_callers_get_their_own_results() -> None:
    """One caller holds the workers; the others compute on their own threads."""
    matrices = [make_matrix(2048, 256, seed) for seed in range(4)]
    x = torch.randn(2, 256)
    expected = [kernel.multiply(x, matrix) for matrix in matrices]
    wrong: list[int] = []

    def call(number: int) -> None:
        for _ in range(300):
            if not torch.equal(kernel.multiply(x, matrices[number], 3), expected[number]):
                wrong.append(number)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not wrong and not any(caller.is_alive() for caller in callers)


def test_idle_workers_use_no_cpu_time() -> None:
    code = """
import time, torch
from c2l_lsp.model.runtime import kernel
torch.set_num_threads(1)
matrix = kernel.Int8Matrix.pack(torch.ones(4096, 256, dtype=torch.int8), torch.ones(4096))
for _ in range(50): kernel.multiply(torch.ones(1, 256), matrix, 4)
time.sleep(0.05)  # workers poll for 0.2 ms
before = time.process_time()
time.sleep(0.5)
print(time.process_time() - before)
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert float(done.stdout) < 0.02
    assert time.monotonic() - began < 60, "workers must not keep the process alive"
