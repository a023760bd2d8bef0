"""Our own forward pass for Llama-shaped models, one text at a time, with its keys and values in place.

Small models are bound by the number of operations PyTorch dispatches, not by arithmetic; so the projections are fused,
RoPE and the split into queries, keys and values are one complex product, and the KV is written where it stays. A few
rows (a decode step, a checked draft) go through kernels that give each row the same bits however many rows there are,
on the CPUs where PyTorch's bf16 products do; many rows (a prompt) go through the fused attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from c2l_lsp.model.lora import AdapterSlot, Pair
from c2l_lsp.model.native_weights import Layer, Weights, fuse, merge

FEW = 32
"""Rows up to which attention is computed row by row, all heads of keys at once."""

_GROW = 256  # positions by which the KV of a text grows
_BLOCK = 64  # the few-row attention looks at a multiple of this many positions, so that its sums keep their order
_WIDE = 4  # heads of keys up to which computing all of them for every query is cheaper than dispatching them singly


@dataclass(frozen=True)
class _Pass:
    """What all layers of one forward pass share: T tokens that stand at `start`."""

    start: int
    end: int
    rotation: Tensor  # [T, H + 2K, h/2] complex
    mask: Tensor | None  # 0 where a row may look, −∞ elsewhere: [T, 1, L] (few) or [T, end] (many, unless causal)


class NativeReader:
    """Opens texts on one model; inner pairs of the current adapter are merged into a private copy of their layers.

    A text must be read under the adapter it was begun with (the decoder's `kv_key` sees to that).
    """

    def __init__(self, lm: Any, adapters: AdapterSlot) -> None:  # noqa: ANN401 - a model `why_not` accepts
        self._lm, self._adapters = lm, adapters
        self._bare = fuse(lm)
        self._merged: tuple[Mapping[str, Pair], Weights] = ({}, self._bare)
        self._rotations = torch.empty(0)
        bare = self._bare
        group = torch.arange(bare.heads, device=lm.device) // (bare.heads // bare.kv_heads)
        # own[i, j] = 1 where query head i looks at key head j: [H, K, 1]
        self.own = functional.one_hot(group, bare.kv_heads).to(lm.dtype)[:, :, None]
        self._one_row = torch.empty(0)

    @property
    def weights(self) -> Weights:
        """The fused weights under the current adapter."""
        pairs = self._adapters.pairs
        if not pairs:
            return self._bare
        if pairs is not self._merged[0]:
            self._merged = (pairs, merge(self._lm, self._bare, pairs))
        return self._merged[1]

    def open(self) -> NativeText:
        """An empty text."""
        return NativeText(self)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [n, vocabulary] of final hidden states [n, d] under the current adapter."""
        return self._bare.head(self._adapters.mapped(hidden))

    def plan(self, start: int, T: int) -> _Pass:
        """The rotation and the mask of T tokens at `start`."""
        end = start + T
        if end + _BLOCK > len(self._rotations):
            self._tabulate(end)
        w = self._bare
        turn = self._rotations[start:end]  # [T, 3, h/2]
        counts = (w.heads, w.kv_heads, w.kv_heads)
        parts = [turn[:, i : i + 1].expand(-1, count, -1) for i, count in enumerate(counts)]
        return _Pass(start, end, torch.cat(parts, 1), self._mask(start, T))

    def few(self, T: int) -> bool:
        """Whether T rows take the row-by-row attention."""
        return T <= FEW and self._bare.kv_heads <= _WIDE

    def _mask(self, start: int, T: int) -> Tensor | None:
        end = start + T
        if not self.few(T):
            return None if start == 0 or T == 1 else self._looks(start, T, end)
        L = -(-end // _BLOCK) * _BLOCK
        if T == 1:
            beyond = len(self._one_row) // 2 - end
            return self._one_row[beyond : beyond + L].view(1, 1, L)
        return self._looks(start, T, L)[:, None]

    def _looks(self, start: int, T: int, L: int) -> Tensor:
        """[T, L]: 0 where position j ≤ start + i, −∞ elsewhere."""
        mask = torch.full((T, L), float("-inf"), dtype=self._lm.dtype, device=self._lm.device)
        return mask.triu_(start + 1)

    def _tabulate(self, end: int) -> None:
        """Rotations for q (with 1/√h in them), k and v (none): [n, 3, h/2]; and n zeros before n times −∞."""
        n, w = max(2 * end, 1024), self._bare
        angles = torch.arange(n, device=w.frequencies.device).float()[:, None] * w.frequencies  # [n, h/2]
        turn = torch.polar(torch.full_like(angles, w.rope_scale), angles)
        self._rotations = torch.stack((turn * w.head_dim**-0.5, turn, torch.ones_like(turn)), 1)
        self._one_row = torch.zeros(2 * n, dtype=self._lm.dtype, device=self._lm.device)
        self._one_row[n:] = float("-inf")


class NativeText:
    """The KV of one text: per layer [capacity, 2·K·h], keys beside values."""

    def __init__(self, reader: NativeReader) -> None:
        self._reader = reader
        self.length = 0
        self._kv: list[Tensor] = []

    @torch.inference_mode()
    def read(self, ids: list[int], every: bool = False) -> Tensor:
        """Append ids; final normed hidden states [n, d] of all of them, or [1, d] of the last."""
        reader, w = self._reader, self._reader.weights
        step = reader.plan(self.length, len(ids))
        self._reserve(step.end)
        x = functional.embedding(torch.tensor(ids, device=w.embedding.device), w.embedding)  # [T, d]
        for layer, kv in zip(w.layers[:-1], self._kv, strict=False):
            q = self._write(x, layer, kv, step)
            x = _mlp(x + layer.output(self._attend(q, kv, step)), layer)
        layer, kv = w.layers[-1], self._kv[-1]
        q = self._write(x, layer, kv, step)
        if not every and len(ids) > 1:  # of the last layer only the last row is asked for
            q, x, step = q[-1:], x[-1:], reader.plan(step.end - 1, 1)
        x = _mlp(x + layer.output(self._attend(q, kv, step)), layer)
        self.length += len(ids)
        return w.norm(x)

    def crop(self, length: int) -> None:
        """Forget everything from position `length` on."""
        self.length = min(self.length, length)

    def _write(self, x: Tensor, layer: Layer, kv: Tensor, step: _Pass) -> Tensor:
        """Queries [T, H, h] of x [T, d]; its keys and values go into the KV."""
        w = self._reader.weights
        projected = layer.qkv(layer.attention_norm(x)).float()
        turned = torch.view_as_complex(projected.view(len(x), -1, w.head_dim // 2, 2)) * step.rotation
        heads = torch.view_as_real(turned).flatten(2)  # [T, H + 2K, h]
        kv[step.start : step.end] = heads[:, w.heads :].flatten(1)
        return heads[:, : w.heads].to(x.dtype)

    def _attend(self, q: Tensor, kv: Tensor, step: _Pass) -> Tensor:
        """[T, H, h] → [T, H·h]."""
        if self._reader.few(len(q)):
            return self._attend_few(q, kv, step)
        w = self._reader.weights
        keys, values = kv[: step.end].view(step.end, 2, w.kv_heads, 1, w.head_dim).permute(1, 2, 3, 0, 4)
        group = (w.kv_heads, w.heads // w.kv_heads, step.end, w.head_dim)
        k, v = (part.expand(group).reshape(1, w.heads, step.end, w.head_dim) for part in (keys, values))
        out = functional.scaled_dot_product_attention(
            q.transpose(0, 1)[None], k, v, attn_mask=step.mask, is_causal=step.mask is None and len(q) > 1, scale=1.0
        )
        return out[0].transpose(0, 1).flatten(1)

    def _attend_few(self, q: Tensor, kv: Tensor, step: _Pass) -> Tensor:
        """Every query against all heads of keys, zero outside its own: two plain products whatever H and K are."""
        w, own, mask = self._reader.weights, self._reader.own, step.mask
        assert mask is not None  # noqa: S101 - `plan` makes one for few rows
        T, L, width = len(q), mask.shape[-1], w.kv_heads * w.head_dim
        spread = (q[:, :, None] * own).view(T * w.heads, width)
        scores = functional.linear(spread, kv[:L, :width]).view(T, w.heads, L) + mask
        seen = torch.softmax(scores, -1).view(T * w.heads, L) @ kv[:L, width:]  # [T·H, K·h]
        return (seen.view(T, w.heads, w.kv_heads, w.head_dim) * own).sum(2).view(T, -1)

    def _reserve(self, end: int) -> None:
        """Room for `end` positions, in whole blocks; zeroed, since masked positions are multiplied too."""
        if self._kv and end <= len(self._kv[0]):
            return
        w = self._reader.weights
        capacity = (end // _GROW + 1) * _GROW
        grown = w.embedding.new_zeros(len(w.layers), capacity, 2 * w.kv_heads * w.head_dim)
        for new, old in zip(grown, self._kv, strict=False):
            new[: self.length] = old[: self.length]
        self._kv = list(grown)


def _mlp(x: Tensor, layer: Layer) -> Tensor:
    gate, up = layer.gate_up(layer.mlp_norm(x)).chunk(2, -1)
    return x + layer.down(functional.silu(gate) * up)
