"""Every entry of the compiled kernel refuses widths and counts that its loops would run past."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import pytest
import torch

from c2l_lsp.model.runtime import kernel
from c2l_lsp.model.runtime.kernel import Int8Matrix

pytestmark = pytest.mark.skipif(
    not kernel.is_available(), reason="the kernel was not built: no C compiler at installation"
)
ROOM = torch.zeros(1 << 20)
"""Stands for every buffer: without the check, the calls below compute nonsense within it."""
AT = ROOM.data_ptr()
MATRIX = array("q", [AT] * 2 + [0] * 6)
SHAPE = [64, 4, 2, 16, 96, 1, 1, 1, 0]  # width, heads, kv_heads, head_dim, inner, layers, two types, rank


def multiply(width: int = 32, out: int = 8, rows: int = 1, rank: int = 0) -> None:
    matrix = array("q", [*MATRIX[:-1], rank])
    kernel.extension().multiply(matrix.buffer_info()[0], width, out, AT, AT, rows, AT, 1)


def final_map(d: int = 32, rows: int = 1) -> None:
    kernel.extension().final_map(AT, AT, AT, d, rows)


def mix_memory(
    width: int = 32, inner: int = 64, count: int = 0, positions: int = 0, vocabulary: int = 8, rows: int = 0
) -> None:
    kernel.extension().mix_memory(
        AT, AT, AT, AT, AT, count, width, inner, AT, AT, positions, vocabulary, AT, AT, AT, AT, rows, AT, AT
    )


def argmax(count: int = 8, rows: int = 0) -> None:
    kernel.extension().argmax(AT, count, AT, AT, rows)


def step(
    field: int = 0, value: int = SHAPE[0], capacity: int = 64, start: int = 0, rows: int = 1, wanted: int = 1
) -> None:
    sizes = torch.tensor([*SHAPE[:field], value, *SHAPE[field + 1 :], 0], dtype=torch.int64)
    layer = array("q", [AT, *MATRIX, *MATRIX, AT, *MATRIX, *MATRIX])
    kernel.extension().step(
        sizes.data_ptr(), layer.buffer_info()[0], AT, AT, AT, AT, capacity, AT, AT, start, rows, wanted, AT, 1
    )


WIDTHS = (0, -16, 1, 8, 24, 40, 1 << 33)
REFUSED: dict[str, Callable[[], None]] = {
    **{f"multiply, width {n}": lambda n=n: multiply(n) for n in WIDTHS},
    **{f"multiply, rank {n}": lambda n=n: multiply(rank=n) for n in (-16, 8, 24)},
    "multiply, no output": lambda: multiply(out=0),
    "multiply, rows": lambda: multiply(rows=-1),
    **{f"final_map, width {n}": lambda n=n: final_map(n) for n in WIDTHS},
    **{f"final_map, {n} rows": lambda n=n: final_map(rows=n) for n in (-1, 17)},
    **{f"mix_memory, width {n}": lambda n=n: mix_memory(n) for n in (*WIDTHS, 528)},
    **{f"mix_memory, inner {n}": lambda n=n: mix_memory(inner=n) for n in WIDTHS},
    "mix_memory, count": lambda: mix_memory(count=-1),
    "mix_memory, positions": lambda: mix_memory(positions=-1),
    "sort_positions": lambda: kernel.extension().sort_positions(AT, AT, -1),
    "merge_positions": lambda: kernel.extension().merge_positions(AT, AT, 2**31, AT, 1, AT),
    "find_token_candidates": lambda: kernel.extension().find_token_candidates(AT, AT, -1, AT, AT, AT),
    "mix_memory, vocabulary": lambda: mix_memory(vocabulary=0),
    "argmax of nothing": lambda: argmax(0),
    **{f"step, width {n}": lambda n=n: step(0, n) for n in WIDTHS},
    **{f"step, head size {n}": lambda n=n: step(3, n) for n in WIDTHS},
    **{f"step, inner {n}": lambda n=n: step(4, n) for n in WIDTHS},
    **{f"step, {n} heads": lambda n=n: step(1, n) for n in (0, 3, -4)},
    **{f"step, {n} key heads": lambda n=n: step(2, n) for n in (0, 3, -2)},
    "step, type of the embedding": lambda: step(6, 2),
    "step, type of the cache": lambda: step(7, 3),
    **{f"step, rank {n}": lambda n=n: step(8, n) for n in (-16, 8)},
    **{f"step, capacity {n}": lambda n=n: step(capacity=n) for n in (0, 24)},
    "step, beyond the cache": lambda: step(start=64),
    "step, before the cache": lambda: step(start=-1),
    "step, no row": lambda: step(rows=0),
    "step, more wanted than given": lambda: step(wanted=2),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_impossible_widths_raise(call: Callable[[], None]) -> None:
    with pytest.raises(ValueError, match=r"multiple|must not be empty|is negative"):
        call()


@pytest.mark.parametrize("call", [multiply, final_map, mix_memory, argmax, step])
def test_the_same_calls_with_sound_widths_run(call: Callable[[], None]) -> None:
    call()


@pytest.mark.parametrize("width", [8, 24, 40])
def test_matrices_of_other_widths_are_refused_before_the_call(width: int) -> None:
    weight = torch.zeros(1, width // 16, 8, 16, dtype=torch.int8)  # as if the rest of each row were left out
    with pytest.raises(ValueError, match="multiple of 16"):
        kernel.multiply(torch.zeros(1, width), Int8Matrix(weight, torch.zeros(8)))
