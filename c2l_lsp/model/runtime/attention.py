"""Causal attention of our own forward pass: plain products, whose sums keep their order however many rows there are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from c2l_lsp.model.runtime.weights import Weights

FEW = 16
"""Rows up to which attention is computed for all heads of keys at once."""

_WIDE = 4  # heads of keys up to which that costs less than dispatching them singly
_ROWS = 128  # rows of a prompt that attend together; they look no further than the last of them
_BLOCK = 64  # attention looks at a multiple of this many positions, so that its sums keep their order


class Attention:
    """Attention for the shape of some weights, on their device and in their dtype."""

    def __init__(self, shape: Weights) -> None:
        like = shape.embedding
        self._shape = shape
        group = torch.arange(shape.heads, device=like.device) // (shape.heads // shape.kv_heads)
        # own[i, j] = 1 where query head i looks at key head j: [H, K, 1]
        self._own = functional.one_hot(group, shape.kv_heads).to(like.dtype)[:, :, None]
        # −∞ where row i may not look, counted from the first row's position on: [rows, 1, rows + block]
        beyond = torch.full((_ROWS, _ROWS + _BLOCK), float("-inf"), dtype=like.dtype, device=like.device)
        self._beyond = beyond.triu_(1)[:, None]

    def __call__(self, q: Tensor, kv: Tensor, start: int, end: int) -> Tensor:
        """[T, H, h] → [T, H·h] of the queries of tokens that stand from `start` to `end`, over kv [capacity, 2·K·h].

        kv may be kept in another dtype than q's.
        """
        kv = kv[: -(-end // _BLOCK) * _BLOCK].to(q.dtype)
        few = len(q) <= FEW and self._shape.kv_heads <= _WIDE
        if few:
            return self._together(q, kv, start)
        if q.is_cuda:
            return self.fused(q, kv, start, end)
        parts = [self._singly(rows, kv, start + i * _ROWS) for i, rows in enumerate(torch.split(q, _ROWS))]
        return torch.cat(parts)

    def _together(self, q: Tensor, kv: Tensor, start: int) -> Tensor:
        """Every query against all heads of keys, zero outside its own: two products whatever H and K are."""
        w, own = self._shape, self._own
        T, width = len(q), w.kv_heads * w.head_dim
        spread = (q[:, :, None] * own).view(T * w.heads, width)
        seen = self._look(spread, T, kv, start, slice(0, width), slice(width, 2 * width))  # [T·H, K·h]
        return (seen.view(T, w.heads, w.kv_heads, w.head_dim) * own).sum(2).view(T, -1)

    def _singly(self, q: Tensor, kv: Tensor, start: int) -> Tensor:
        """One head of keys after the other, with the queries that share it."""
        w = self._shape
        K, h, T = w.kv_heads, w.head_dim, len(q)
        out = q.new_empty(T, K, w.heads // K, h)
        for j, grouped in enumerate(q.view(T, K, -1, h).unbind(1)):
            columns = (slice(j * h, (j + 1) * h), slice((K + j) * h, (K + j + 1) * h))
            out[:, j] = self._look(grouped.reshape(-1, h), T, kv, start, *columns).view(T, -1, h)
        return out.view(T, -1)

    def _look(self, q: Tensor, T: int, kv: Tensor, start: int, keys: slice, values: slice) -> Tensor:
        """Causal attention of T rows of one or more queries each: [T·g, h] → [T·g, h]."""
        L = -(-(start + T) // _BLOCK) * _BLOCK
        scores = functional.linear(q, kv[:L, keys]).view(T, -1, L)
        scores[..., start:] += self._beyond[:T, :, : L - start]
        return torch.softmax(scores, -1).view(-1, L) @ kv[:L, values]

    def fused(self, q: Tensor, kv: Tensor, start: int, end: int) -> Tensor:
        """PyTorch's kernel, for a GPU."""
        w = self._shape
        shape = (w.kv_heads, w.heads // w.kv_heads, end, w.head_dim)
        both = kv[:end].view(end, 2, w.kv_heads, 1, w.head_dim).permute(1, 2, 3, 0, 4)
        k, v = (part.expand(shape).reshape(1, w.heads, end, w.head_dim) for part in both)
        mask = None
        if start and len(q) > 1:
            mask = torch.ones(len(q), end, dtype=torch.bool, device=q.device).tril_(start)
        out = functional.scaled_dot_product_attention(
            q.transpose(0, 1)[None], k, v, attn_mask=mask, is_causal=not start, scale=1.0
        )
        return out[0].transpose(0, 1).flatten(1)
