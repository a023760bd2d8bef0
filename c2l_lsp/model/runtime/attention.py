"""Causal attention of our own forward pass, by plain matrix products.

The order of every sum is independent of the number of rows, so a token gets the same bits in a prompt and in a step.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from c2l_lsp.model.runtime.weights import Weights

_JOINT_ROWS = 16  # rows up to which all key heads attend in one product
_JOINT_KV_HEADS = 4  # key heads up to which the zeros of that product cost less than one call per head
_TILE = 128  # rows of a prompt that attend together, to no position beyond the last of them
_BLOCK = 64  # the number of positions is rounded up to a multiple, which keeps the order of the sums


class Attention:
    """Attention for the shape, device and dtype of given weights."""

    def __init__(self, shape: Weights) -> None:
        like = shape.embedding
        self._shape = shape
        group = torch.arange(shape.heads, device=like.device) // (shape.heads // shape.kv_heads)
        # own[i, j] = 1 if query head i uses key head j: [H, K, 1]
        self._own = functional.one_hot(group, shape.kv_heads).to(like.dtype)[:, :, None]
        # −∞ where row i must not attend, counted from the first row's position: [rows, 1, rows + block]
        mask = torch.full((_TILE, _TILE + _BLOCK), float("-inf"), dtype=like.dtype, device=like.device)
        self._mask = mask.triu_(1)[:, None]

    def __call__(self, q: Tensor, kv: Tensor, start: int, end: int) -> Tensor:
        """Attention output [T, H·h] of queries q [T, H, h] at positions `start` to `end`, over kv [capacity, 2·K·h].

        kv may have another dtype than q.
        """
        kv = kv[: -(-end // _BLOCK) * _BLOCK].to(q.dtype)
        if len(q) <= _JOINT_ROWS and self._shape.kv_heads <= _JOINT_KV_HEADS:
            return self._joint(q, kv, start)
        if q.is_cuda:
            return self.fused(q, kv, start, end)
        parts = [self._by_key_head(rows, kv, start + i * _TILE) for i, rows in enumerate(torch.split(q, _TILE))]
        return torch.cat(parts)

    def _joint(self, q: Tensor, kv: Tensor, start: int) -> Tensor:
        """All heads at once: queries are zero outside their own key head, so two products suffice for any H and K."""
        w, own = self._shape, self._own
        T, width = len(q), w.kv_heads * w.head_dim
        spread = (q[:, :, None] * own).view(T * w.heads, width)
        out = self._attend(spread, T, kv, start, slice(0, width), slice(width, 2 * width))  # [T·H, K·h]
        return (out.view(T, w.heads, w.kv_heads, w.head_dim) * own).sum(2).view(T, -1)

    def _by_key_head(self, q: Tensor, kv: Tensor, start: int) -> Tensor:
        """One key head after the other, with the query heads that share it."""
        w = self._shape
        K, h, T = w.kv_heads, w.head_dim, len(q)
        out = q.new_empty(T, K, w.heads // K, h)
        for j, grouped in enumerate(q.view(T, K, -1, h).unbind(1)):
            columns = (slice(j * h, (j + 1) * h), slice((K + j) * h, (K + j + 1) * h))
            out[:, j] = self._attend(grouped.reshape(-1, h), T, kv, start, *columns).view(T, -1, h)
        return out.view(T, -1)

    def _attend(self, q: Tensor, T: int, kv: Tensor, start: int, keys: slice, values: slice) -> Tensor:
        """Causal attention of T rows of g queries each, [T·g, h] → [T·g, h]; `keys` and `values` are columns of kv."""
        L = -(-(start + T) // _BLOCK) * _BLOCK
        scores = functional.linear(q, kv[:L, keys]).view(T, -1, L)
        scores[..., start:] += self._mask[:T, :, : L - start]
        return torch.softmax(scores, -1).view(-1, L) @ kv[:L, values]

    def fused(self, q: Tensor, kv: Tensor, start: int, end: int) -> Tensor:
        """As `__call__`, by PyTorch's fused operator; for a GPU."""
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
