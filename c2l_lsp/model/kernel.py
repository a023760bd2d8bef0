"""Decode steps in one compiled call: what Python hands to `_kernel.c`, and whether that was built at all.

The extension is built at installation where there is a C compiler (GCC or Clang) and left out elsewhere: then PyTorch's
int8 kernel does the same, a few times slower, since a small model's step is bound by what every operation costs to
dispatch. Here a step is one call, on the calling thread; the interpreter is free meanwhile.
"""

from __future__ import annotations

import importlib
from array import array
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

STRIP = 8
"""Rows of a matrix that are computed at once."""

LONGEST = 8
"""Tokens of context that recall compares one by one."""

_KINDS = {torch.bfloat16: 0, torch.float32: 1, torch.float16: 2}  # as in the kernel
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


@dataclass(frozen=True)
class Rows:
    """A matrix as the kernel takes it: W ≈ s·Q, s fp32 [out]; b fp32 [out] or None.

    Q int8 [⌈out / STRIP⌉, in / WIDTH, STRIP, WIDTH]: rows that are computed at once lie side by side, so that they come
    from memory in one stream (measured on one core of Zen 3: 15 instead of 10 GB/s).
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None = None

    @classmethod
    def of(cls, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Rows:
        """From Q int8 [out, in]. ValueError if rows are no multiple of WIDTH."""
        out, inside = weight.shape
        if inside % WIDTH:
            raise ValueError(f"rows of {inside} numbers are no multiple of {WIDTH}")
        whole = torch.nn.functional.pad(weight, (0, 0, 0, -out % STRIP))
        strips = whole.view(-1, STRIP, inside // WIDTH, WIDTH).transpose(1, 2)
        return cls(strips.contiguous(), scale.contiguous(), bias)

    def whole(self) -> Tensor:
        """W fp32 [out, in] as it is multiplied by."""
        rows = self.weight.transpose(1, 2).flatten(2).flatten(0, 1)[: len(self.scale)]
        return rows.float() * self.scale[:, None]

    def addresses(self, out: int, inside: int) -> list[int]:
        """Of weight, scale and bias. ValueError unless the shape is [out, in]."""
        _expect(self.weight, torch.int8, (-(-out // STRIP), inside // WIDTH, STRIP, WIDTH))
        return [self.weight.data_ptr(), _address(self.scale, out), _address(self.bias, out)]


def multiply(x: Tensor, rows: Rows, threads: int = 1) -> Tensor:
    """x ↦ x Wᵀ + b: x fp32 [n, in] → fp32 [n, out].

    ValueError for other types or shapes.
    """
    (n, inside), out = x.shape, len(rows.scale)
    _expect(x, torch.float32, (n, inside))
    y, room = x.new_empty(n, out), x.new_empty(n * _rounded(inside))
    given = (x.data_ptr(), y.data_ptr(), n, room.data_ptr(), threads)
    _module().multiply(*rows.addresses(out, inside), inside, out, *given)
    return y


def _rounded(inside: int) -> int:
    """Room, in fp32, for so many numbers of 16 bits and their scale."""
    return inside // 2 + 1


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
        self._held, self._trust_at = (ids, last, places, keys, basis), self._trust.ctypes.data
        addresses = [numbers.ctypes.data for numbers in (ids, last, places, keys)]
        self._shape = (*addresses, basis.data_ptr(), n, width, inner)

    def mix(self, hidden: Tensor, logits: Tensor, before: Sequence[Sequence[int]]) -> None:
        """Mix into logits fp32 [n, V], in place, at hidden states fp32 [n, d] after these tokens each."""
        n, vocabulary = logits.shape
        _expect(hidden, torch.float32, (n, self._shape[-1]))
        _expect(logits, torch.float32, (n, vocabulary))
        if len(before) != n:
            raise ValueError(f"{len(before)} texts before {n} positions")
        tails = array("i")
        for tail in before:
            tails.extend([*[_NOTHING] * (LONGEST - len(tail)), *tail[-LONGEST:]])
        given = (vocabulary, self._trust_at, hidden.data_ptr(), tails.buffer_info()[0], logits.data_ptr(), n)
        _module().recall(*self._shape, *given)


@dataclass(frozen=True)
class Block:
    """A layer: norms fp32 [d]; qkv [(H + 2K)·h, d], output [d, H·h], gate above up [2f, d], down [d, f]."""

    attention_norm: Tensor
    qkv: Rows
    output: Rows
    mlp_norm: Tensor
    gate_up: Rows
    down: Rows

    @property
    def count(self) -> int:
        """Weights of its matrices."""
        return sum(rows.weight.numel() for rows in (self.qkv, self.output, self.gate_up, self.down))


class Steps:
    """All layers of a model, for steps on any text of it. ValueError where the kernel does not fit their shapes."""

    def __init__(
        self,
        embedding: Tensor,
        blocks: Sequence[Block],
        norm: Tensor,
        heads: int,
        kv_heads: int,
        head_dim: int,
        eps: float,
        kv: torch.dtype,
        threads: int = 1,
    ) -> None:
        """The embedding is [V, d], fp32 or bf16; keys and values may also be fp16."""
        d, inner = len(norm), blocks[0].down.weight.shape[1] * WIDTH
        if head_dim % WIDTH or d % WIDTH or inner % WIDTH or heads % kv_heads:
            raise ValueError(f"heads {heads}/{kv_heads} of {head_dim}, rows of {d} and {inner}")
        if embedding.dtype not in (torch.float32, torch.bfloat16) or kv not in _KINDS:
            raise ValueError(f"an embedding of {embedding.dtype}, keys and values of {kv}")
        _expect(embedding, embedding.dtype, (len(embedding), d))
        self._d, self._kv_width, self._group = d, 2 * kv_heads * head_dim, heads // kv_heads
        wide, seen = max((heads + 2 * kv_heads) * head_dim, 2 * inner), heads * head_dim
        self._head_dim, self._row = head_dim, d + wide + seen + _rounded(max(d, seen, inner))
        shapes = {
            "qkv": ((heads + 2 * kv_heads) * head_dim, d), "output": (d, heads * head_dim),
            "gate_up": (2 * inner, d), "down": (d, inner),
        }  # fmt: skip
        self._embedding, self._kv, self._threads = embedding, kv, threads
        self._held = (tuple(blocks), norm)  # whose addresses are in `layers`
        self._layers = torch.tensor([_addresses(block, shapes, d) for block in blocks], dtype=torch.int64)
        self._norm = _address(norm, d)
        kinds = (_KINDS[embedding.dtype], _KINDS[kv])
        sizes = torch.tensor([d, heads, kv_heads, head_dim, inner, len(blocks), *kinds], dtype=torch.int64)
        self._shape = torch.cat((sizes, torch.tensor([eps], dtype=torch.float64).view(torch.int64)))

    def on(self, kv: Tensor, rotations: Tensor) -> Stepping:
        """Steps on one text: kv [layers, capacity, 2·K·h], rotations complex64 [≥ capacity, 3, h/2].

        ValueError for tensors of other shapes or types.
        """
        capacity = kv.shape[1]
        _expect(kv, self._kv, (len(self._layers), capacity, self._kv_width))
        _expect(rotations, torch.complex64, (len(rotations), 3, self._head_dim // 2))
        if capacity % WIDTH or capacity > len(rotations):
            raise ValueError(f"{capacity} positions, {len(rotations)} of them expected to be turned, by {WIDTH}")
        model = (self._shape.data_ptr(), self._layers.data_ptr(), self._norm, self._embedding.data_ptr())
        fixed = (*model, rotations.data_ptr(), kv.data_ptr(), capacity)
        scores = self._group * capacity * (1 if self._threads == 1 else self._kv_width // (2 * self._head_dim))
        sizes = (len(self._embedding), self._d, self._row + scores, capacity)
        return Stepping(fixed, sizes, self._threads, (self, kv, rotations))


class Stepping:
    """Decode steps on one text, by addresses that were looked at once."""

    def __init__(
        self, fixed: tuple[int, ...], sizes: tuple[int, int, int, int], threads: int, held: tuple[object, ...]
    ) -> None:
        """`held` is whatever the addresses point into."""
        self._fixed, self._threads, self._held = fixed, threads, held
        self._vocabulary, self._d, self._row, self._capacity = sizes

    def __call__(self, ids: Sequence[int], start: int) -> Tensor:
        """Final normed states fp32 [n, d] of ids that stand from `start` on; their keys and values are written.

        The text before must be there. ValueError for ids that the model does not have, or without room.
        """
        n = len(ids)
        if not n or min(ids) < 0 or max(ids) >= self._vocabulary or not 0 <= start <= start + n <= self._capacity:
            raise ValueError(
                f"{n} ids from {start} on do not fit {self._capacity} positions of {self._vocabulary} tokens"
            )
        given = array("i", ids)
        out, room = torch.empty(n, self._d), torch.empty(n * self._row)
        address = given.buffer_info()[0]
        _module().step(*self._fixed, address, out.data_ptr(), start, n, room.data_ptr(), self._threads)
        return out


def mapped(x: Tensor, final: Tensor) -> Tensor | None:
    """x + x Cᵀ of a few rows x fp32 [n, d], C fp32 [d, d]; None where PyTorch's product is the one to take."""
    n, d = x.shape
    fits = _compiled is not None and n <= WIDTH and d % WIDTH == 0
    if not fits or not _plain(x) or not _plain(final) or final.shape != (d, d):
        return None
    out = torch.empty_like(x)
    _module().map(x.data_ptr(), final.data_ptr(), out.data_ptr(), d, n)
    return out


def best(logits: Tensor) -> tuple[list[int], list[float]] | None:
    """The likeliest token of each row of logits fp32 [n, V], and log Σ e^logit; None where PyTorch is to be asked."""
    if _compiled is None or not _plain(logits):
        return None
    n, count = logits.shape
    tokens, norms = array("i", bytes(4 * n)), array("d", bytes(8 * n))
    _module().best(logits.data_ptr(), count, tokens.buffer_info()[0], norms.buffer_info()[0], n)
    return tokens.tolist(), norms.tolist()


def _plain(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.is_contiguous()


def _addresses(block: Block, shapes: dict[str, tuple[int, int]], d: int) -> list[int]:
    found = {name: getattr(block, name).addresses(*shape) for name, shape in shapes.items()}
    attention, mlp = _address(block.attention_norm, d), _address(block.mlp_norm, d)
    return [attention, *found["qkv"], *found["output"], mlp, *found["gate_up"], *found["down"]]


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
