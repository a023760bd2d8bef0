"""Python binding of the compiled kernel `_kernel`: int8 products, the final map, argmax and kNN look-up.

The extension is compiled at installation if there is a C compiler (GCC or Clang). Without it PyTorch's int8 operators
do the same work several times slower, because the cost of a small model's step is the dispatch of its operations. Calls
release the interpreter lock. The kernel checks widths and counts only: every function here checks types, shapes and
memory layout first.
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
    _extension: ModuleType | None = importlib.import_module("c2l_lsp.model.runtime._kernel")
except ImportError:  # no compiler at installation
    _extension = None

ALIGNMENT = 16
"""Matrix rows and attention heads have a multiple of this many elements; `PANEL_COLUMNS` in C."""

PANEL_ROWS = 8
"""Rows of a matrix that are interleaved in memory and multiplied together."""

MAX_MATCH = 8
"""Preceding tokens that the kNN look-up compares, the current one included."""

MAX_CONTEXT = 64
"""Preceding tokens that the token index compares, the current one included."""

TOKEN_CANDIDATES = 32
"""Positions that a look-up in the token index returns at most."""

GATE_NUMBERS = 264
"""Numbers of a mixture gate: `adapter.mixture` names them."""

_MAX_KEY_WIDTH = 512  # as in C
_PADDING = -2  # stands for the tokens before the beginning of a text; no vocabulary holds it

Int32Array = NDArray[np.int32]
Float32Array = NDArray[np.float32]


def is_available() -> bool:
    """Whether the extension was built."""
    return _extension is not None


def extension() -> ModuleType:
    """The extension module. Raises RuntimeError if it was not built."""
    if _extension is None:
        raise RuntimeError("the kernel was not built at installation")
    return _extension


@dataclass(frozen=True)
class Int8Matrix:
    """A quantised matrix W ≈ s·Q in the kernel's memory layout, with an optional LoRA term.

    `weight` is Q int8 [⌈out / PANEL_ROWS⌉, in / ALIGNMENT, PANEL_ROWS, ALIGNMENT]. Rows that are multiplied together
    are interleaved and form one stream in memory (15 instead of 10 GB/s on one Zen 3 core). `scale` is s fp32 [out],
    `bias` fp32 [out] or None. `lora` holds A [r, in] and B [out, r], where r is a multiple of ALIGNMENT: y = x Wᵀ + b +
    B (A x).
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None = None
    lora: tuple[Int8Matrix, Int8Matrix] | None = None

    @classmethod
    def pack(cls, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Int8Matrix:
        """Pack Q int8 [out, in]. Raises ValueError if `in` is not a multiple of ALIGNMENT."""
        out, inside = weight.shape
        if inside % ALIGNMENT:
            raise ValueError(f"rows of {inside} elements are not a multiple of {ALIGNMENT}")
        padded = torch.nn.functional.pad(weight, (0, 0, 0, -out % PANEL_ROWS))
        panels = padded.view(-1, PANEL_ROWS, inside // ALIGNMENT, ALIGNMENT).transpose(1, 2)
        return cls(panels.contiguous(), scale.contiguous(), bias)

    @property
    def rank(self) -> int:
        """Rank of the LoRA term, 0 without one."""
        return 0 if self.lora is None else len(self.lora[0].scale)

    def descriptor(self, out: int, inside: int) -> list[int]:
        """The fields of the C struct `Matrix`. Raises ValueError unless the shape is [out, in]."""
        fields = [*self._addresses(out, inside), address(self.bias, out)]
        if self.lora is None:
            return [*fields, 0, 0, 0, 0, 0]
        A, B = self.lora
        return [*fields, *A._addresses(self.rank, inside), *B._addresses(out, self.rank), self.rank]

    def _addresses(self, out: int, inside: int) -> list[int]:
        if inside % ALIGNMENT:
            raise ValueError(f"rows of {inside} elements are not a multiple of {ALIGNMENT}")
        check_tensor(self.weight, torch.int8, (-(-out // PANEL_ROWS), inside // ALIGNMENT, PANEL_ROWS, ALIGNMENT))
        return [self.weight.data_ptr(), address(self.scale, out)]


def multiply(x: Tensor, matrix: Int8Matrix, threads: int = 1) -> Tensor:
    """x Wᵀ + b, fp32 [n, out], of x fp32 [n, in]. Raises ValueError for other dtypes or shapes."""
    (n, inside), out = x.shape, len(matrix.scale)
    check_tensor(x, torch.float32, (n, inside))
    y, scratch = x.new_empty(n, out), x.new_empty(n * scratch_size(inside, matrix.rank))
    struct = array("q", matrix.descriptor(out, inside))
    buffers = (x.data_ptr(), y.data_ptr(), n, scratch.data_ptr())
    extension().multiply(struct.buffer_info()[0], inside, out, *buffers, threads)
    return y


def scratch_size(inside: int, rank: int) -> int:
    """Scratch memory that a product needs for each row, in floats: quantised inputs, their scales, the LoRA term."""
    return inside // 2 + 2 + 2 * rank


@dataclass(frozen=True)
class KeyedPositions:
    """The positions with neural keys, sorted by token.

    `ids` int32 [all] are the tokens of the datastore. `last`, `places` int32 [n] and `keys` int8 [n, D] are the token,
    the index in `ids` and the key of every position. `basis` W is fp32 [D, d].
    """

    ids: Int32Array
    last: Int32Array
    places: Int32Array
    keys: NDArray[np.int8]
    basis: Tensor


class MemoryMixer:
    """Mixes the kNN memory of a folder (`adapter.knn_lm.KnnMemory`) into logits, in one call."""

    def __init__(self, keyed: KeyedPositions, ids: Int32Array, order: Int32Array, gate: NDArray[np.float64]) -> None:
        """Bind the arrays; the arithmetic is documented in `knn_lm`.

        `ids` and `order` are the arrays of a token index, `gate` the GATE_NUMBERS numbers of a mixture gate, then its
        strength. Raises ValueError for other dtypes or shapes, or widths that the kernel does not support.
        """
        n, (width, inner) = len(keyed.last), keyed.basis.shape
        for numbers, size in ((keyed.ids, len(keyed.ids)), (keyed.last, n), (keyed.places, n)):
            check_tensor(torch.from_numpy(numbers), torch.int32, (size,))
        check_tensor(torch.from_numpy(keyed.keys), torch.int8, (n, width))
        check_tensor(keyed.basis, torch.float32, (width, inner))
        if width % ALIGNMENT or inner % ALIGNMENT or width > _MAX_KEY_WIDTH:
            raise ValueError(f"keys of width {width} from hidden states of width {inner} are not supported")
        for numbers in (ids, order):
            _check_int32(numbers)
        if gate.dtype != np.float64 or gate.shape != (GATE_NUMBERS + 1,):
            raise ValueError(f"a mixture gate and its strength are {GATE_NUMBERS + 1} numbers, not {gate.shape}")
        self._alive, self._inner = (keyed, ids, order, gate), inner
        arrays = (keyed.ids, keyed.last, keyed.places, keyed.keys)
        addresses = [numbers.ctypes.data for numbers in arrays]
        tokens = (ids.ctypes.data, order.ctypes.data, len(order))
        self._memory = (*addresses, keyed.basis.data_ptr(), n, width, inner, *tokens)

    def mix(self, hidden: Tensor, logits: Tensor, before: Sequence[Sequence[int]]) -> None:
        """Mix into logits fp32 [n, V], in place, at hidden states fp32 [n, d]; before[i] are the tokens up to row i."""
        self._call(hidden, logits, before, 0, 0)

    def votes(
        self, hidden: Tensor, logits: Tensor, before: Sequence[Sequence[int]], targets: Sequence[int]
    ) -> NDArray[np.float64]:
        """(λ, the memory's probability of the target) [n, 2] at each position; logits stay as they are."""
        wanted = np.array(targets, np.int32)
        if len(wanted) != len(logits):
            raise ValueError(f"{len(wanted)} targets for {len(logits)} positions")
        out = np.zeros((len(wanted), 2))
        self._call(hidden, logits, before, wanted.ctypes.data, out.ctypes.data)
        return out

    def _call(self, hidden: Tensor, logits: Tensor, before: Sequence[Sequence[int]], targets: int, out: int) -> None:
        n, vocabulary = logits.shape
        check_tensor(hidden, torch.float32, (n, self._inner))
        check_tensor(logits, torch.float32, (n, vocabulary))
        if len(before) != n:
            raise ValueError(f"{len(before)} token sequences for {n} positions")
        tails = padded_tails(before, MAX_CONTEXT)
        buffers = (hidden.data_ptr(), tails.buffer_info()[0], logits.data_ptr(), n)
        gate = self._alive[3].ctypes.data
        extension().mix_memory(*self._memory, vocabulary, gate, *buffers, targets, out)


def sort_positions(ids: Int32Array, positions: Int32Array) -> Int32Array:
    """Sort positions (indices in `ids`) for a token index; see `adapter.token_index.sorted_positions`."""
    order = positions.copy()
    _check_positions(ids, order)
    extension().sort_positions(ids.ctypes.data, order.ctypes.data, len(order))
    return order


def merge_positions(ids: Int32Array, order: Int32Array, fresh: Int32Array) -> Int32Array:
    """Merge the sorted positions `fresh` into the sorted `order`."""
    for numbers in (order, fresh):
        _check_positions(ids, numbers)
    out = np.empty(len(order) + len(fresh), np.int32)
    sizes = (order.ctypes.data, len(order), fresh.ctypes.data, len(fresh))
    extension().merge_positions(ids.ctypes.data, *sizes, out.ctypes.data)
    return out


def find_token_candidates(
    ids: Int32Array, order: Int32Array, before: Sequence[int]
) -> tuple[Float32Array, Int32Array, int]:
    """Look up a token index: (match lengths, next tokens, positions that have the longest match)."""
    for numbers in (ids, order):
        _check_int32(numbers)
    lengths, next_tokens = np.empty(TOKEN_CANDIDATES, np.float32), np.empty(TOKEN_CANDIDATES, np.int32)
    tail = padded_tails([before], MAX_CONTEXT)
    count, positions = extension().find_token_candidates(
        ids.ctypes.data, order.ctypes.data, len(order), tail.buffer_info()[0], lengths.ctypes.data,
        next_tokens.ctypes.data,
    )  # fmt: skip
    return lengths[:count], next_tokens[:count], positions


def padded_tails(before: Sequence[Sequence[int]], width: int) -> array[int]:
    """The last `width` tokens of some sequences, one after another; _PADDING stands before shorter ones."""
    tails = array("i")
    for tail in before:
        tails.extend([*[_PADDING] * (width - len(tail)), *tail[-width:]])
    return tails


def _check_int32(numbers: Int32Array) -> None:
    """Raise ValueError unless an array is one-dimensional, int32 and contiguous."""
    if numbers.dtype != np.int32 or numbers.ndim != 1 or not numbers.flags.c_contiguous:
        raise ValueError(f"expected a contiguous int32 array, got {numbers.dtype} {numbers.shape}")


def _check_positions(ids: Int32Array, positions: Int32Array) -> None:
    """Raise ValueError unless all positions are indices in `ids` that have a next one."""
    _check_int32(ids)
    _check_int32(positions)
    if len(ids) and ids[0] >= 0:
        raise ValueError("the first id is no boundary")
    if len(positions) and (int(positions.min()) < 0 or int(positions.max()) >= len(ids) - 1):
        raise ValueError("a position is outside the text")


def apply_final_map(x: Tensor, final: Tensor) -> Tensor | None:
    """x + x Cᵀ of x fp32 [n, d], C fp32 [d, d]. None if the kernel does not support the input or n > ALIGNMENT."""
    n, d = x.shape
    fits = _extension is not None and n <= ALIGNMENT and d % ALIGNMENT == 0
    if not fits or not _is_cpu_float32(x) or not _is_cpu_float32(final) or final.shape != (d, d):
        return None
    out = torch.empty_like(x)
    extension().final_map(x.data_ptr(), final.data_ptr(), out.data_ptr(), d, n)
    return out


def argmax_and_logsumexp(logits: Tensor) -> tuple[list[int], list[float]] | None:
    """Argmax and log Σ e^logit of each row of logits fp32 [n, V]. None if the kernel does not support the input."""
    if _extension is None or not _is_cpu_float32(logits):
        return None
    n, count = logits.shape
    tokens, norms = array("i", bytes(4 * n)), array("d", bytes(8 * n))
    extension().argmax(logits.data_ptr(), count, tokens.buffer_info()[0], norms.buffer_info()[0], n)
    return tokens.tolist(), norms.tolist()


def _is_cpu_float32(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.is_contiguous()


def address(numbers: Tensor | None, count: int) -> int:
    """The address of `count` fp32 numbers, 0 for None. Raises ValueError for another dtype or shape."""
    if numbers is None:
        return 0
    check_tensor(numbers, torch.float32, (count,))
    return numbers.data_ptr()


def check_tensor(tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a tensor has this dtype and shape, is contiguous and is on the CPU."""
    if (
        tensor.dtype != dtype
        or tuple(tensor.shape) != shape
        or not tensor.is_contiguous()
        or tensor.device.type != "cpu"
    ):
        raise ValueError(f"expected a contiguous CPU tensor {dtype} {shape}, got {tensor.dtype} {tuple(tensor.shape)}")
