"""All layers of a model as the kernel takes them, for decode steps and prompts in one call each."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from c2l_lsp.model.runtime.kernel import ALIGNMENT, Int8Matrix, address, check_tensor, extension, scratch_size

_KINDS = {torch.bfloat16: 0, torch.float32: 1, torch.float16: 2}  # as in the kernel
_TILE, _MOST_THREADS = 8, 8  # rows that attend together, threads that do; as in the kernel

_WORK = 1 << 30  # weights times tokens

MULTITHREAD_TOKENS = 8
"""Tokens from which several threads read them, whatever the model."""

MAX_CALL_TOKENS = 64
"""Tokens of one call: what a layer makes of them stays in the second cache."""


@dataclass(frozen=True)
class KernelLayer:
    """A layer: norms fp32 [d]; qkv [(H + 2K)·h, d], output [d, H·h], gate above up [2f, d], down [d, f]."""

    attention_norm: Tensor
    qkv: Int8Matrix
    output: Int8Matrix
    mlp_norm: Tensor
    gate_up: Int8Matrix
    down: Int8Matrix

    @property
    def weight_count(self) -> int:
        """Weights of its matrices."""
        return sum(rows.weight.numel() for rows in (self.qkv, self.output, self.gate_up, self.down))

    @property
    def rank(self) -> int:
        """The highest of what stands beside them."""
        return max(rows.rank for rows in (self.qkv, self.output, self.gate_up, self.down))


class KernelLayers:
    """All layers of a model, for steps on any text of it. ValueError where the kernel does not fit their shapes."""

    def __init__(
        self,
        embedding: Tensor,
        blocks: Sequence[KernelLayer],
        norm: Tensor,
        heads: int,
        kv_heads: int,
        head_dim: int,
        eps: float,
        kv: torch.dtype,
        threads: int = 1,
        team: int = 1,
    ) -> None:
        """The embedding is [V, d], fp32 or bf16; keys and values may also be fp16. `threads` of a step, `team` of MANY
        tokens and more."""
        d, inner = len(norm), blocks[0].down.weight.shape[1] * ALIGNMENT
        if head_dim % ALIGNMENT or d % ALIGNMENT or inner % ALIGNMENT or heads % kv_heads:
            raise ValueError(f"heads {heads}/{kv_heads} of {head_dim}, rows of {d} and {inner}")
        if embedding.dtype not in (torch.float32, torch.bfloat16) or kv not in _KINDS:
            raise ValueError(f"an embedding of {embedding.dtype}, keys and values of {kv}")
        check_tensor(embedding, embedding.dtype, (len(embedding), d))
        self._d, self._kv_width, self._group = d, 2 * kv_heads * head_dim, heads // kv_heads
        rank = max(block.rank for block in blocks)
        wide, seen = max((heads + 2 * kv_heads) * head_dim, 2 * inner), heads * head_dim
        self._head_dim, self._row = head_dim, d + wide + seen + scratch_size(max(d, seen, inner), rank)
        shapes = {
            "qkv": ((heads + 2 * kv_heads) * head_dim, d), "output": (d, heads * head_dim),
            "gate_up": (2 * inner, d), "down": (d, inner),
        }  # fmt: skip
        self._embedding, self._kv, self._threads = embedding, kv, (threads, team)
        self._held = (tuple(blocks), norm)  # whose addresses are in `layers`
        self._layers = torch.tensor([_addresses(block, shapes, d) for block in blocks], dtype=torch.int64)
        self._norm = address(norm, d)
        kinds = (_KINDS[embedding.dtype], _KINDS[kv])
        sizes = torch.tensor([d, heads, kv_heads, head_dim, inner, len(blocks), *kinds, rank], dtype=torch.int64)
        self._shape = torch.cat((sizes, torch.tensor([eps], dtype=torch.float64).view(torch.int64)))

    @property
    def weight_count(self) -> int:
        """Weights of all matrices."""
        return sum(block.weight_count for block in self._held[0])

    @property
    def slice_tokens(self) -> int:
        """Tokens that one AVX2 core reads in some 20 ms: as long as anybody should have to wait."""
        return max(ALIGNMENT, _WORK // self.weight_count // ALIGNMENT * ALIGNMENT)

    @property
    def hidden_size(self) -> int:
        """Of the final states."""
        return self._d

    def kv_shape(self, capacity: int) -> tuple[int, int, int]:
        """Shape of the keys and values of a text of so many positions."""
        return len(self._layers), capacity, self._kv_width

    def bind(self, kv: Tensor, rotations: Tensor) -> KernelSequence:
        """Steps on one text: kv [layers, capacity, 2·K·h], rotations complex64 [≥ capacity, 3, h/2].

        ValueError for tensors of other shapes or types.
        """
        capacity = kv.shape[1]
        check_tensor(kv, self._kv, self.kv_shape(capacity))
        check_tensor(rotations, torch.complex64, (len(rotations), 3, self._head_dim // 2))
        if capacity % ALIGNMENT or capacity > len(rotations):
            raise ValueError(f"{capacity} positions, {len(rotations)} of them expected to be turned, by {ALIGNMENT}")
        model = (self._shape.data_ptr(), self._layers.data_ptr(), self._norm, self._embedding.data_ptr())
        fixed = (*model, rotations.data_ptr(), kv.data_ptr(), capacity)
        sizes = (len(self._embedding), self._d, self._row, self._group * capacity, capacity)
        return KernelSequence(fixed, sizes, self._threads, (self, kv, rotations))


class KernelSequence:
    """Decode steps on one text, by addresses that were looked at once."""

    def __init__(
        self,
        fixed: tuple[int, ...],
        sizes: tuple[int, int, int, int, int],
        threads: tuple[int, int],
        held: tuple[object, ...],
    ) -> None:
        """`held` is whatever the addresses point into."""
        self._fixed, self._threads, self._held = fixed, threads, held
        self._vocabulary, self._d, self._row, self._scores, self._capacity = sizes

    def __call__(self, ids: Sequence[int], start: int, every: bool = True) -> Tensor:
        """Final normed states fp32 [n, d] of ids that stand from `start` on, or [1, d] of the last; their keys and
        values are written.

        The text before must be there. ValueError for ids that the model does not have, or without room.
        """
        n = len(ids)
        if not n or min(ids) < 0 or max(ids) >= self._vocabulary or not 0 <= start <= start + n <= self._capacity:
            raise ValueError(
                f"{n} ids from {start} on do not fit {self._capacity} positions of {self._vocabulary} tokens"
            )
        parts = [self._some(ids[i : i + MAX_CALL_TOKENS], start + i, every) for i in range(0, n, MAX_CALL_TOKENS)]
        out = parts[0] if len(parts) == 1 else torch.cat(parts)
        return out if every else out[-1:]

    def _some(self, ids: Sequence[int], start: int, every: bool) -> Tensor:
        n, threads = len(ids), self._threads[len(ids) >= MULTITHREAD_TOKENS]
        given, wanted = array("i", ids), n if every else 1
        out = torch.empty(n, self._d)
        # a helper that was lent for the call before may still come in: room for all that there can be
        workers = 1 if threads == 1 else _MOST_THREADS
        room = torch.empty(n * self._row + workers * min(n, _TILE) * self._scores)
        address = given.buffer_info()[0]
        extension().step(*self._fixed, address, out.data_ptr(), start, n, wanted, room.data_ptr(), threads)
        return out[n - wanted :]


def _addresses(block: KernelLayer, shapes: dict[str, tuple[int, int]], d: int) -> list[int]:
    found = {name: getattr(block, name).descriptor(*shape) for name, shape in shapes.items()}
    attention, mlp = address(block.attention_norm, d), address(block.mlp_norm, d)
    return [attention, *found["qkv"], *found["output"], mlp, *found["gate_up"], *found["down"]]
