"""Steps and prompts in one compiled call: what Python hands to `_kernel.c`, and whether that was built at all.

The extension is built at installation where there is a C compiler (GCC or Clang) and left out elsewhere: then PyTorch's
int8 kernel does the same, a few times slower, since a small model's step is bound by what every operation costs to
dispatch. Here a step is one call; the interpreter is free meanwhile.
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
    _compiled: ModuleType | None = importlib.import_module("c2l_lsp.model.runtime._kernel")
except ImportError:  # no compiler at installation
    _compiled = None

ALIGNMENT = 16
"""Every row of a matrix and every head is a multiple of this many numbers."""

PANEL_ROWS = 8
"""Rows of a matrix that are computed at once."""

MAX_MATCH = 8
"""Tokens of context that recall compares one by one."""

_KEY = 512  # numbers of a key that is recalled by, at most
_NOTHING = -2  # stands before the first token of a text; no row holds it
Int32Array = NDArray[np.int32]


def is_available() -> bool:
    """Whether the extension is there."""
    return _compiled is not None


def select_lanes(wanted: int) -> int:
    """Compute in registers of 4 or 8 numbers, instead of the widest there are; 0 if the processor has none such."""
    found: int = extension().select_lanes(wanted)
    return found


def extension() -> ModuleType:
    """The extension. RuntimeError if it is not there."""
    if _compiled is None:
        raise RuntimeError("the kernel was not built at installation")
    return _compiled


@dataclass(frozen=True)
class Int8Matrix:
    """A matrix as the kernel takes it: W ≈ s·Q, s fp32 [out]; b fp32 [out] or None.

    Q int8 [⌈out / STRIP⌉, in / WIDTH, STRIP, WIDTH]: rows that are computed at once lie side by side, so that they come
    from memory in one stream (measured on one core of Zen 3: 15 instead of 10 GB/s). `beside`: low [r, in] and high
    [out, r] of an adapter, r a multiple of WIDTH; y has high (low x) besides.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None = None
    lora: tuple[Int8Matrix, Int8Matrix] | None = None

    @classmethod
    def pack(cls, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Int8Matrix:
        """From Q int8 [out, in]. ValueError if rows are no multiple of WIDTH."""
        out, inside = weight.shape
        if inside % ALIGNMENT:
            raise ValueError(f"rows of {inside} numbers are no multiple of {ALIGNMENT}")
        padded = torch.nn.functional.pad(weight, (0, 0, 0, -out % PANEL_ROWS))
        strips = padded.view(-1, PANEL_ROWS, inside // ALIGNMENT, ALIGNMENT).transpose(1, 2)
        return cls(strips.contiguous(), scale.contiguous(), bias)

    def dequantize(self) -> Tensor:
        """W fp32 [out, in] as it is multiplied by."""
        rows = self.weight.transpose(1, 2).flatten(2).flatten(0, 1)[: len(self.scale)]
        return rows.float() * self.scale[:, None]

    @property
    def rank(self) -> int:
        """Rows of what stands beside."""
        return 0 if self.lora is None else len(self.lora[0].scale)

    def descriptor(self, out: int, inside: int) -> list[int]:
        """What the kernel needs to know. ValueError unless the shape is [out, in]."""
        descriptor = [*self._addresses(out, inside), address(self.bias, out)]
        if self.lora is None:
            return [*descriptor, 0, 0, 0, 0, 0]
        low, high = self.lora
        return [*descriptor, *low._addresses(self.rank, inside), *high._addresses(out, self.rank), self.rank]

    def _addresses(self, out: int, inside: int) -> list[int]:
        check_tensor(self.weight, torch.int8, (-(-out // PANEL_ROWS), inside // ALIGNMENT, PANEL_ROWS, ALIGNMENT))
        return [self.weight.data_ptr(), address(self.scale, out)]


def multiply(x: Tensor, rows: Int8Matrix, threads: int = 1) -> Tensor:
    """x ↦ x Wᵀ + b: x fp32 [n, in] → fp32 [n, out].

    ValueError for other types or shapes.
    """
    (n, inside), out = x.shape, len(rows.scale)
    check_tensor(x, torch.float32, (n, inside))
    y, room = x.new_empty(n, out), x.new_empty(n * scratch_size(inside, rows.rank))
    matrix, given = array("q", rows.descriptor(out, inside)), (x.data_ptr(), y.data_ptr(), n, room.data_ptr(), threads)
    extension().multiply(matrix.buffer_info()[0], inside, out, *given)
    return y


def scratch_size(inside: int, rank: int) -> int:
    """Room, in fp32, for so many numbers of 16 bits and their scale, and for what stands beside."""
    return inside // 2 + 2 + 2 * rank


class KnnMixer:
    """What is recalled of a folder, for mixing it into logits in one call: the numbers of a `recall.Recall`.

    ids int32 [all]; by their tokens: tokens, places in ids int32 [n], keys int8 [n, D]; basis fp32 [D, d]; trust the
    numbers of `recall.Trust` and the strength. ValueError for other types, or widths that are no multiple of WIDTH.
    """

    def __init__(
        self,
        ids: Int32Array,
        last: Int32Array,
        places: Int32Array,
        keys: NDArray[np.int8],
        basis: Tensor,
        trust: Sequence[float],
    ) -> None:
        n, (width, inner) = len(last), basis.shape
        for numbers in (ids, last, places):
            check_tensor(torch.from_numpy(numbers), torch.int32, (len(ids) if numbers is ids else n,))
        check_tensor(torch.from_numpy(keys), torch.int8, (n, width))
        check_tensor(basis, torch.float32, (width, inner))
        if width % ALIGNMENT or inner % ALIGNMENT or width > _KEY:
            raise ValueError(f"keys of {width} numbers made of {inner}")
        self._trust = np.array(trust, dtype=np.float64)
        self._held, self._trust_at = (ids, last, places, keys, basis), self._trust.ctypes.data
        addresses = [numbers.ctypes.data for numbers in (ids, last, places, keys)]
        self._shape = (*addresses, basis.data_ptr(), n, width, inner)

    def mix(self, hidden: Tensor, logits: Tensor, before: Sequence[Sequence[int]]) -> None:
        """Mix into logits fp32 [n, V], in place, at hidden states fp32 [n, d] after these tokens each."""
        n, vocabulary = logits.shape
        check_tensor(hidden, torch.float32, (n, self._shape[-1]))
        check_tensor(logits, torch.float32, (n, vocabulary))
        if len(before) != n:
            raise ValueError(f"{len(before)} texts before {n} positions")
        tails = array("i")
        for tail in before:
            tails.extend([*[_NOTHING] * (MAX_MATCH - len(tail)), *tail[-MAX_MATCH:]])
        given = (vocabulary, self._trust_at, hidden.data_ptr(), tails.buffer_info()[0], logits.data_ptr(), n)
        extension().mix_knn(*self._shape, *given)


def apply_final_map(x: Tensor, final: Tensor) -> Tensor | None:
    """x + x Cᵀ of a few rows x fp32 [n, d], C fp32 [d, d]; None where PyTorch's product is the one to take."""
    n, d = x.shape
    fits = _compiled is not None and n <= ALIGNMENT and d % ALIGNMENT == 0
    if not fits or not _plain(x) or not _plain(final) or final.shape != (d, d):
        return None
    out = torch.empty_like(x)
    extension().final_map(x.data_ptr(), final.data_ptr(), out.data_ptr(), d, n)
    return out


def argmax_and_logsumexp(logits: Tensor) -> tuple[list[int], list[float]] | None:
    """The likeliest token of each row of logits fp32 [n, V], and log Σ e^logit; None where PyTorch is to be asked."""
    if _compiled is None or not _plain(logits):
        return None
    n, count = logits.shape
    tokens, norms = array("i", bytes(4 * n)), array("d", bytes(8 * n))
    extension().argmax(logits.data_ptr(), count, tokens.buffer_info()[0], norms.buffer_info()[0], n)
    return tokens.tolist(), norms.tolist()


def _plain(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.is_contiguous()


def address(numbers: Tensor | None, count: int) -> int:
    """Where so many fp32 numbers stand, 0 for None. ValueError if they are others."""
    if numbers is None:
        return 0
    check_tensor(numbers, torch.float32, (count,))
    return numbers.data_ptr()


def check_tensor(tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """ValueError unless a tensor is of that type and shape, in a row on the CPU."""
    if (
        tensor.dtype != dtype
        or tuple(tensor.shape) != shape
        or not tensor.is_contiguous()
        or tensor.device.type != "cpu"
    ):
        raise ValueError(f"{tensor.dtype} {tuple(tensor.shape)} where {dtype} {shape} is expected, in a row on the CPU")
