"""All layers of a model in the kernel's format: a decode step or a part of a prompt is one compiled call."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from c2l_lsp.model.runtime.kernel import ALIGNMENT, Int8Matrix, address, check_tensor, extension, scratch_size

_DTYPES = {torch.bfloat16: 0, torch.float32: 1, torch.float16: 2}  # as in C
_QUERY_TILE, _MAX_THREADS = 8, 8  # as in C: rows that attend together; threads, the caller included

_SLICE_WORK = 1 << 30  # weights times tokens: about 20 ms on one AVX2 core

MULTITHREAD_TOKENS = 8
"""Tokens from which on a call uses several threads, whatever the size of the model."""

MAX_CALL_TOKENS = 64
"""Tokens of one call at most: the activations of a layer then stay in the L2 cache."""


@dataclass(frozen=True)
class KernelLayer:
    """One layer: norms fp32 [d]; qkv [(H + 2K)·h, d], output [d, H·h], gate_up [2f, d] (gate first), down [d, f]."""

    attention_norm: Tensor
    qkv: Int8Matrix
    output: Int8Matrix
    mlp_norm: Tensor
    gate_up: Int8Matrix
    down: Int8Matrix

    @property
    def weight_count(self) -> int:
        """Weights of all matrices, without LoRA terms."""
        return sum(matrix.weight.numel() for matrix in (self.qkv, self.output, self.gate_up, self.down))

    @property
    def rank(self) -> int:
        """The highest rank of any LoRA term."""
        return max(matrix.rank for matrix in (self.qkv, self.output, self.gate_up, self.down))


class KernelLayers:
    """All layers of a model, for any number of texts."""

    def __init__(
        self,
        embedding: Tensor,
        layers: Sequence[KernelLayer],
        norm: Tensor,
        heads: int,
        kv_heads: int,
        head_dim: int,
        eps: float,
        kv_dtype: torch.dtype,
        threads: int = 1,
        batch_threads: int = 1,
    ) -> None:
        """Check and describe the layers. Raises ValueError if the kernel does not support their shapes or dtypes.

        `embedding` is fp32 or bf16 [V, d]; `kv_dtype` is fp32, bf16 or fp16. A call of at least MULTITHREAD_TOKENS
        tokens uses `batch_threads`, a shorter one `threads`.
        """
        d, inner = len(norm), layers[0].down.weight.shape[1] * ALIGNMENT
        if head_dim % ALIGNMENT or d % ALIGNMENT or inner % ALIGNMENT or heads % kv_heads:
            raise ValueError(f"{heads}/{kv_heads} heads of {head_dim}, widths {d} and {inner} are not supported")
        if embedding.dtype not in (torch.float32, torch.bfloat16) or kv_dtype not in _DTYPES:
            raise ValueError(f"an embedding of {embedding.dtype} with keys and values of {kv_dtype} is not supported")
        check_tensor(embedding, embedding.dtype, (len(embedding), d))
        attended, projected = heads * head_dim, (heads + 2 * kv_heads) * head_dim
        shapes = {
            "qkv": (projected, d), "output": (d, attended), "gate_up": (2 * inner, d), "down": (d, inner),
        }  # fmt: skip
        rank = max(layer.rank for layer in layers)
        self._d, self._kv_width, self._group, self._head_dim = d, 2 * kv_heads * head_dim, heads // kv_heads, head_dim
        self._row_scratch = d + max(projected, 2 * inner) + attended + scratch_size(max(d, attended, inner), rank)
        self._embedding, self._kv_dtype, self._threads = embedding, kv_dtype, (threads, batch_threads)
        self._alive = (tuple(layers), norm)  # `_structs` and `_norm` hold their addresses
        self._structs = torch.tensor([_struct(layer, shapes, d) for layer in layers], dtype=torch.int64)
        self._norm = address(norm, d)
        dtypes = (_DTYPES[embedding.dtype], _DTYPES[kv_dtype])
        sizes = torch.tensor([d, heads, kv_heads, head_dim, inner, len(layers), *dtypes, rank], dtype=torch.int64)
        self._shape = torch.cat((sizes, torch.tensor([eps], dtype=torch.float64).view(torch.int64)))

    @property
    def weight_count(self) -> int:
        """Weights of all matrices, without LoRA terms."""
        return sum(layer.weight_count for layer in self._alive[0])

    @property
    def slice_tokens(self) -> int:
        """Tokens of a prompt that one AVX2 core reads in about 20 ms: a cooperative step."""
        return max(ALIGNMENT, _SLICE_WORK // self.weight_count // ALIGNMENT * ALIGNMENT)

    @property
    def hidden_size(self) -> int:
        """Width d of the hidden states."""
        return self._d

    def kv_shape(self, capacity: int) -> tuple[int, int, int]:
        """Shape of a KV cache for `capacity` positions."""
        return len(self._structs), capacity, self._kv_width

    def bind(self, kv: Tensor, rotations: Tensor) -> KernelSequence:
        """A sequence with the KV cache kv [layers, capacity, 2·K·h] and rotations complex64 [≥ capacity, 3, h/2].

        Raises ValueError for other shapes or dtypes, or if the capacity is not a multiple of ALIGNMENT.
        """
        capacity = kv.shape[1]
        check_tensor(kv, self._kv_dtype, self.kv_shape(capacity))
        check_tensor(rotations, torch.complex64, (len(rotations), 3, self._head_dim // 2))
        if capacity % ALIGNMENT or capacity > len(rotations):
            raise ValueError(
                f"expected a capacity that is a multiple of {ALIGNMENT} and at most {len(rotations)}, got {capacity}"
            )
        model = (self._shape.data_ptr(), self._structs.data_ptr(), self._norm, self._embedding.data_ptr())
        addresses = (*model, rotations.data_ptr(), kv.data_ptr(), capacity)
        sizes = (len(self._embedding), self._d, self._row_scratch, self._group * capacity, capacity)
        return KernelSequence(addresses, sizes, self._threads, (self, kv, rotations))


class KernelSequence:
    """One token sequence with its KV cache; calling it appends tokens. Made by `KernelLayers.bind`."""

    def __init__(
        self,
        addresses: tuple[int, ...],
        sizes: tuple[int, int, int, int, int],
        threads: tuple[int, int],
        alive: tuple[object, ...],
    ) -> None:
        """`alive` owns the memory behind `addresses`."""
        self._addresses, self._threads, self._alive = addresses, threads, alive
        self._vocabulary, self._d, self._row_scratch, self._score_scratch, self._capacity = sizes

    def __call__(self, ids: Sequence[int], start: int, all_positions: bool = True) -> Tensor:
        """Final normed hidden states fp32 [n, d] of ids at positions from `start` on, or [1, d] of the last one.

        Writes their keys and values into the KV cache, which must hold those of all positions before `start`. Raises
        ValueError for ids outside the vocabulary or positions outside the cache.
        """
        n = len(ids)
        if not n or min(ids) < 0 or max(ids) >= self._vocabulary or not 0 <= start <= start + n <= self._capacity:
            raise ValueError(
                f"{n} ids from position {start} on do not fit {self._capacity} positions of {self._vocabulary} tokens"
            )
        parts = [
            self._append(ids[i : i + MAX_CALL_TOKENS], start + i, all_positions) for i in range(0, n, MAX_CALL_TOKENS)
        ]
        out = parts[0] if len(parts) == 1 else torch.cat(parts)
        return out if all_positions else out[-1:]

    def _append(self, ids: Sequence[int], start: int, all_positions: bool) -> Tensor:
        n, threads = len(ids), self._threads[len(ids) >= MULTITHREAD_TOKENS]
        tokens, wanted = array("i", ids), n if all_positions else 1
        out = torch.empty(n, self._d)
        # A worker that the previous call acquired may still join this one: scratch memory for all that can exist.
        workers = 1 if threads == 1 else _MAX_THREADS
        scratch = torch.empty(n * self._row_scratch + workers * min(n, _QUERY_TILE) * self._score_scratch)
        buffers = (tokens.buffer_info()[0], out.data_ptr(), start, n, wanted, scratch.data_ptr())
        extension().step(*self._addresses, *buffers, threads)
        return out[n - wanted :]


def _struct(layer: KernelLayer, shapes: dict[str, tuple[int, int]], d: int) -> list[int]:
    """The fields of the C struct `Layer`."""
    fields = {name: getattr(layer, name).descriptor(*shape) for name, shape in shapes.items()}
    attention, mlp = address(layer.attention_norm, d), address(layer.mlp_norm, d)
    return [attention, *fields["qkv"], *fields["output"], mlp, *fields["gate_up"], *fields["down"]]
