"""Decode steps in one compiled call: what Python hands to `_kernel.c`, and whether that was built at all.

The extension is built at installation where there is a C compiler (GCC or Clang) and left out elsewhere: then PyTorch's
int8 kernel does the same, a few times slower, since a small model's step is bound by what every operation costs to
dispatch. Here a step is one call, on the calling thread; the interpreter is free meanwhile.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

try:
    _compiled: ModuleType | None = importlib.import_module("c2l_lsp.model._kernel")
except ImportError:  # no compiler at installation
    _compiled = None

WIDTH = 16
"""Every row of a matrix and every head is a multiple of this many numbers."""

LONGEST = 8
"""Tokens of context that recall compares one by one."""

_HEADS = 64  # heads that share keys, at most
_KEY = 512  # numbers of a key that is recalled by, at most
_NOTHING = -2  # stands before the first token of a text; no row holds it
Ints = NDArray[np.int32]


def built() -> bool:
    """Whether the extension is there."""
    return _compiled is not None


def use(wanted: int) -> int:
    """Compute in registers of 4 or 8 numbers, instead of the widest there are; 0 if the processor has none such."""
    found: int = _module().use(wanted)
    return found


def _module() -> ModuleType:
    if _compiled is None:
        raise RuntimeError("the kernel was not built at installation")
    return _compiled


def multiply(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """x ↦ (x Qᵀ)·s + b: x fp32 [n, in], Q int8 [out, in], s and b fp32 [out] → fp32 [n, out].

    ValueError for other types or shapes, or rows that are not a multiple of WIDTH.
    """
    n, inside = x.shape
    _expect(x, torch.float32, (n, inside))
    _expect(weight, torch.int8, (len(scale), inside))
    _expect(scale, torch.float32, (len(scale),))
    if inside % WIDTH:
        raise ValueError(f"rows of {inside} numbers are no multiple of {WIDTH}")
    out = x.new_empty(n, len(scale))
    _module().multiply(
        weight.data_ptr(),
        scale.data_ptr(),
        _address(bias, len(scale)),
        inside,
        len(scale),
        x.data_ptr(),
        out.data_ptr(),
        n,
    )
    return out


class Recalling:
    """What is recalled of a folder, for mixing it into logits in one call: the numbers of a `recall.Recall`.

    ids int32 [all]; by their tokens: tokens, places in ids int32 [n], keys int8 [n, D]; basis fp32 [D, d]; trust the
    numbers of `recall.Trust` and the strength. ValueError for other types, or widths that are no multiple of WIDTH.
    """

    def __init__(
        self, ids: Ints, last: Ints, places: Ints, keys: NDArray[np.int8], basis: Tensor, trust: Sequence[float]
    ) -> None:
        n, (width, inner) = len(last), basis.shape
        for numbers in (ids, last, places):
            _expect(torch.from_numpy(numbers), torch.int32, (len(ids) if numbers is ids else n,))
        _expect(torch.from_numpy(keys), torch.int8, (n, width))
        _expect(basis, torch.float32, (width, inner))
        if width % WIDTH or inner % WIDTH or width > _KEY:
            raise ValueError(f"keys of {width} numbers made of {inner}")
        self._trust = np.array(trust, dtype=np.float64)
        self._held = (ids, last, places, keys, basis)
        addresses = [numbers.ctypes.data for numbers in (ids, last, places, keys)]
        self._shape = (*addresses, basis.data_ptr(), n, width, inner)

    def mix(self, hidden: Tensor, logits: Tensor, before: Sequence[Sequence[int]]) -> None:
        """Mix into logits fp32 [n, V], in place, at hidden states fp32 [n, d] after these tokens each."""
        n, vocabulary = logits.shape
        _expect(hidden, torch.float32, (n, self._shape[-1]))
        _expect(logits, torch.float32, (n, vocabulary))
        tails = np.full((n, LONGEST), _NOTHING, np.int32)
        for row, tail in zip(tails, before, strict=True):
            row[LONGEST - len(tail) :] = tail
        _module().recall(
            *self._shape,
            vocabulary,
            self._trust.ctypes.data,
            hidden.data_ptr(),
            tails.ctypes.data,
            logits.data_ptr(),
            n,
        )


@dataclass(frozen=True)
class Rows:
    """A matrix as the kernel takes it: Q int8 [out, in], s fp32 [out], b fp32 [out] or None."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class Block:
    """A layer: norms fp32 [d]; qkv [(H + 2K)·h, d], output [d, H·h], gate above up [2f, d], down [d, f]."""

    attention_norm: Tensor
    qkv: Rows
    output: Rows
    mlp_norm: Tensor
    gate_up: Rows
    down: Rows


class Steps:
    """All layers of a model, for steps on any text of it. ValueError where the kernel does not fit their shapes."""

    def __init__(
        self, blocks: Sequence[Block], norm: Tensor, heads: int, kv_heads: int, head_dim: int, eps: float
    ) -> None:
        d, inner = len(norm), blocks[0].down.weight.shape[1]
        if head_dim % WIDTH or d % WIDTH or inner % WIDTH or heads % kv_heads or heads // kv_heads > _HEADS:
            raise ValueError(f"heads {heads}/{kv_heads} of {head_dim}, rows of {d} and {inner}")
        self._d, self._kv_width, self._group = d, 2 * kv_heads * head_dim, heads // kv_heads
        self._head_dim, self._row = head_dim, d + max((heads + 2 * kv_heads) * head_dim, 2 * inner) + heads * head_dim
        shapes = {
            "qkv": ((heads + 2 * kv_heads) * head_dim, d), "output": (d, heads * head_dim),
            "gate_up": (2 * inner, d), "down": (d, inner),
        }  # fmt: skip
        self._held = (tuple(blocks), norm)  # whose addresses are in `layers`
        self._layers = torch.tensor([_addresses(block, shapes, d) for block in blocks], dtype=torch.int64)
        self._norm = _address(norm, d)
        sizes = [d, heads, kv_heads, head_dim, inner, len(blocks)]
        self._shapes = {
            dtype: torch.cat((
                torch.tensor([*sizes, int(dtype == torch.float32)], dtype=torch.int64),
                torch.tensor([eps], dtype=torch.float64).view(torch.int64),
            ))
            for dtype in (torch.float32, torch.bfloat16)
        }  # fmt: skip

    def __call__(self, x: Tensor, kv: Tensor, rotations: Tensor, start: int) -> Tensor:
        """Final normed states fp32 [n, d] of embeddings x fp32 [n, d] that stand from `start` on.

        Their keys and values go into kv [layers, capacity, 2·K·h], fp32 or bf16; `rotations` complex64 [≥ capacity, 3,
        h/2]. The text before must be there.
        ValueError for tensors of other shapes or types, or without room.
        """
        n, capacity = len(x), kv.shape[1]
        _expect(x, torch.float32, (n, self._d))
        _expect(kv, kv.dtype, (len(self._layers), capacity, self._kv_width))
        _expect(rotations, torch.complex64, (len(rotations), 3, self._head_dim // 2))
        if (
            kv.dtype not in self._shapes
            or capacity % WIDTH
            or not 0 <= start <= start + n <= min(capacity, len(rotations))
        ):
            raise ValueError(f"{n} rows from {start} on do not fit {capacity} positions of {kv.dtype}")
        out, room = x.clone(), torch.empty(n * self._row + self._group * capacity)
        _module().step(
            self._shapes[kv.dtype].data_ptr(), self._layers.data_ptr(), self._norm, rotations.data_ptr(),
            kv.data_ptr(), capacity, out.data_ptr(), start, n, room.data_ptr(),
        )  # fmt: skip
        return out


def _addresses(block: Block, shapes: dict[str, tuple[int, int]], d: int) -> list[int]:
    found = {name: _matrix(getattr(block, name), *shape) for name, shape in shapes.items()}
    attention, mlp = _address(block.attention_norm, d), _address(block.mlp_norm, d)
    return [attention, *found["qkv"], *found["output"], mlp, *found["gate_up"], *found["down"]]


def _matrix(rows: Rows, out: int, inside: int) -> list[int]:
    _expect(rows.weight, torch.int8, (out, inside))
    return [rows.weight.data_ptr(), _address(rows.scale, out), _address(rows.bias, out)]


def _address(numbers: Tensor | None, count: int) -> int:
    if numbers is None:
        return 0
    _expect(numbers, torch.float32, (count,))
    return numbers.data_ptr()


def _expect(tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if (
        tensor.dtype != dtype
        or tuple(tensor.shape) != shape
        or not tensor.is_contiguous()
        or tensor.device.type != "cpu"
    ):
        raise ValueError(f"{tensor.dtype} {tuple(tensor.shape)} where {dtype} {shape} is expected, in a row on the CPU")
