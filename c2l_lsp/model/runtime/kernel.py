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

WIDTH = 16
"""Every row of a matrix and every head is a multiple of this many numbers."""

STRIP = 8
"""Rows of a matrix that are computed at once."""

LONGEST = 8
"""Tokens of context that recall compares one by one."""

_KEY = 512  # numbers of a key that is recalled by, at most
_NOTHING = -2  # stands before the first token of a text; no row holds it
Ints = NDArray[np.int32]


def built() -> bool:
    """Whether the extension is there."""
    return _compiled is not None


def use(wanted: int) -> int:
    """Compute in registers of 4 or 8 numbers, instead of the widest there are; 0 if the processor has none such."""
    found: int = module().use(wanted)
    return found


def module() -> ModuleType:
    """The extension. RuntimeError if it is not there."""
    if _compiled is None:
        raise RuntimeError("the kernel was not built at installation")
    return _compiled


@dataclass(frozen=True)
class Rows:
    """A matrix as the kernel takes it: W ≈ s·Q, s fp32 [out]; b fp32 [out] or None.

    Q int8 [⌈out / STRIP⌉, in / WIDTH, STRIP, WIDTH]: rows that are computed at once lie side by side, so that they come
    from memory in one stream (measured on one core of Zen 3: 15 instead of 10 GB/s). `beside`: low [r, in] and high
    [out, r] of an adapter, r a multiple of WIDTH; y has high (low x) besides.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None = None
    beside: tuple[Rows, Rows] | None = None

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

    @property
    def rank(self) -> int:
        """Rows of what stands beside."""
        return 0 if self.beside is None else len(self.beside[0].scale)

    def words(self, out: int, inside: int) -> list[int]:
        """What the kernel needs to know. ValueError unless the shape is [out, in]."""
        words = [*self._addresses(out, inside), address(self.bias, out)]
        if self.beside is None:
            return [*words, 0, 0, 0, 0, 0]
        low, high = self.beside
        return [*words, *low._addresses(self.rank, inside), *high._addresses(out, self.rank), self.rank]

    def _addresses(self, out: int, inside: int) -> list[int]:
        expect(self.weight, torch.int8, (-(-out // STRIP), inside // WIDTH, STRIP, WIDTH))
        return [self.weight.data_ptr(), address(self.scale, out)]


def multiply(x: Tensor, rows: Rows, threads: int = 1) -> Tensor:
    """x ↦ x Wᵀ + b: x fp32 [n, in] → fp32 [n, out].

    ValueError for other types or shapes.
    """
    (n, inside), out = x.shape, len(rows.scale)
    expect(x, torch.float32, (n, inside))
    y, room = x.new_empty(n, out), x.new_empty(n * rounded(inside, rows.rank))
    matrix, given = array("q", rows.words(out, inside)), (x.data_ptr(), y.data_ptr(), n, room.data_ptr(), threads)
    module().multiply(matrix.buffer_info()[0], inside, out, *given)
    return y


def rounded(inside: int, rank: int) -> int:
    """Room, in fp32, for so many numbers of 16 bits and their scale, and for what stands beside."""
    return inside // 2 + 2 + 2 * rank


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
            expect(torch.from_numpy(numbers), torch.int32, (len(ids) if numbers is ids else n,))
        expect(torch.from_numpy(keys), torch.int8, (n, width))
        expect(basis, torch.float32, (width, inner))
        if width % WIDTH or inner % WIDTH or width > _KEY:
            raise ValueError(f"keys of {width} numbers made of {inner}")
        self._trust = np.array(trust, dtype=np.float64)
        self._held, self._trust_at = (ids, last, places, keys, basis), self._trust.ctypes.data
        addresses = [numbers.ctypes.data for numbers in (ids, last, places, keys)]
        self._shape = (*addresses, basis.data_ptr(), n, width, inner)

    def mix(self, hidden: Tensor, logits: Tensor, before: Sequence[Sequence[int]]) -> None:
        """Mix into logits fp32 [n, V], in place, at hidden states fp32 [n, d] after these tokens each."""
        n, vocabulary = logits.shape
        expect(hidden, torch.float32, (n, self._shape[-1]))
        expect(logits, torch.float32, (n, vocabulary))
        if len(before) != n:
            raise ValueError(f"{len(before)} texts before {n} positions")
        tails = array("i")
        for tail in before:
            tails.extend([*[_NOTHING] * (LONGEST - len(tail)), *tail[-LONGEST:]])
        given = (vocabulary, self._trust_at, hidden.data_ptr(), tails.buffer_info()[0], logits.data_ptr(), n)
        module().recall(*self._shape, *given)


def mapped(x: Tensor, final: Tensor) -> Tensor | None:
    """x + x Cᵀ of a few rows x fp32 [n, d], C fp32 [d, d]; None where PyTorch's product is the one to take."""
    n, d = x.shape
    fits = _compiled is not None and n <= WIDTH and d % WIDTH == 0
    if not fits or not _plain(x) or not _plain(final) or final.shape != (d, d):
        return None
    out = torch.empty_like(x)
    module().map(x.data_ptr(), final.data_ptr(), out.data_ptr(), d, n)
    return out


def best(logits: Tensor) -> tuple[list[int], list[float]] | None:
    """The likeliest token of each row of logits fp32 [n, V], and log Σ e^logit; None where PyTorch is to be asked."""
    if _compiled is None or not _plain(logits):
        return None
    n, count = logits.shape
    tokens, norms = array("i", bytes(4 * n)), array("d", bytes(8 * n))
    module().best(logits.data_ptr(), count, tokens.buffer_info()[0], norms.buffer_info()[0], n)
    return tokens.tolist(), norms.tolist()


def _plain(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.is_contiguous()


def address(numbers: Tensor | None, count: int) -> int:
    """Where so many fp32 numbers stand, 0 for None. ValueError if they are others."""
    if numbers is None:
        return 0
    expect(numbers, torch.float32, (count,))
    return numbers.data_ptr()


def expect(tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """ValueError unless a tensor is of that type and shape, in a row on the CPU."""
    if (
        tensor.dtype != dtype
        or tuple(tensor.shape) != shape
        or not tensor.is_contiguous()
        or tensor.device.type != "cpu"
    ):
        raise ValueError(f"{tensor.dtype} {tuple(tensor.shape)} where {dtype} {shape} is expected, in a row on the CPU")
