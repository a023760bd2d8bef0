"""The fused weights of a Llama-shaped model, as our own forward pass uses them. `fusion` makes them.

q, k and v are one matrix, gate and up another. Inside each head the rows of q and k are ordered so that the two
elements that RoPE rotates into each other are adjacent: a rotation is then one complex product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Linear = Callable[[Tensor], Tensor]
"""[n, in] → [n, out]."""


@dataclass(frozen=True)
class DenseLinear:
    """x ↦ x Wᵀ + b; W [out, in], or packed in oneDNN's own order, which it otherwise computes at every call."""

    weight: Tensor
    bias: Tensor | None = None
    packed: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """[n, in] → [n, out]; the same bits packed or not."""
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return functional.linear(x, self.weight, self.bias)

    def pack(self) -> DenseLinear:
        """The same map with W in oneDNN's order."""
        return replace(self, weight=torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous(), 1), packed=True)


@dataclass(frozen=True)
class RMSNorm:
    """RMSNorm. The CPU path is the LayerNorm of [x, −x], with mean 0 and variance mean(x²): one operator, not seven."""

    weight: Tensor  # [d]
    doubled: Tensor  # [2d]: the weight, then zeros
    eps: float

    @classmethod
    def from_module(cls, module: Any) -> RMSNorm:  # noqa: ANN401 - any RMSNorm of transformers
        """The norm with a module's weight and ε."""
        weight = module.weight.detach()
        return cls(weight, torch.cat((weight, torch.zeros_like(weight))), float(module.variance_epsilon))

    def __call__(self, x: Tensor) -> Tensor:
        """[n, d] → [n, d]."""
        d = self.weight.shape[0]
        if x.is_cuda:
            return functional.rms_norm(x, (d,), self.weight, self.eps)
        return functional.layer_norm(torch.cat((x, -x), -1), (2 * d,), self.doubled, None, self.eps)[:, :d]


@dataclass(frozen=True)
class Layer:
    """One layer: attention norm, qkv [(H + 2K)·h, d], output [d, H·h]; MLP norm, gate_up [2f, d], down [d, f]."""

    attention_norm: RMSNorm
    qkv: Linear
    output: Linear
    mlp_norm: RMSNorm
    gate_up: Linear
    down: Linear

    def mlp(self, x: Tensor) -> Tensor:
        """x + down(silu(gate) ∘ up), with gate and up from the normed x [n, d]."""
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, -1)
        return x + self.down(functional.silu(gate) * up)

    def map_linears(self, change: Callable[[DenseLinear], Linear]) -> Layer:
        """The layer with `change` applied to every `DenseLinear`."""
        linears = {name: getattr(self, name) for name in ("qkv", "output", "gate_up", "down")}
        return self.with_linears({name: change(m) for name, m in linears.items() if isinstance(m, DenseLinear)})

    def with_linears(self, linears: Mapping[str, Linear]) -> Layer:
        """The layer with the named matrices replaced."""
        layer: Layer = replace(self, **linears)  # type: ignore[arg-type]
        return layer


@dataclass(frozen=True)
class Weights:
    """A model from token ids to logits: H query heads, K key and value heads, h elements per head."""

    embedding: Tensor  # [vocabulary, d]
    layers: tuple[Layer, ...]
    norm: RMSNorm
    head: Linear  # [vocabulary, d]
    heads: int
    kv_heads: int
    head_dim: int
    frequencies: Tensor  # [h/2], fp32
    rope_scale: float  # factor of cos and sin

    def expand_rotations(self, factors: Tensor) -> Tensor:
        """RoPE factors of every head, complex64 [n, H + 2K, h/2], from those of q, k and v [n, 3, h/2]."""
        counts = (self.heads, self.kv_heads, self.kv_heads)
        return torch.cat([factors[:, i : i + 1].expand(-1, count, -1) for i, count in enumerate(counts)], 1)

    def rotated_heads(self, layer: Layer, x: Tensor, rotation: Tensor) -> Tensor:
        """Queries, keys and values of x [n, d], rotated, fp32 [n, H + 2K, h]."""
        projected = layer.qkv(layer.attention_norm(x)).float()
        rotated = torch.view_as_complex(projected.view(len(x), -1, self.head_dim // 2, 2)) * rotation
        return torch.view_as_real(rotated).flatten(2)

    def map_linears(self, change: Callable[[DenseLinear], Linear]) -> Weights:
        """The weights with `change` applied to every `DenseLinear`, the head included."""
        head = change(self.head) if isinstance(self.head, DenseLinear) else self.head
        return replace(self, layers=tuple(layer.map_linears(change) for layer in self.layers), head=head)

    def with_layers(self, layers: Mapping[int, Layer]) -> Weights:
        """The weights with some layers replaced, by index."""
        return replace(self, layers=tuple(layers.get(i, layer) for i, layer in enumerate(self.layers)))


class RotaryTable:
    """RoPE factors of q, k and v by position, complex64 [n, 3, h/2]; computed as needed.

    Those of q contain 1/√h; those of v are 1.
    """

    def __init__(self, weights: Weights) -> None:
        self._scale, self._head_dim, self._frequencies = weights.rope_scale, weights.head_dim, weights.frequencies
        self._table = torch.empty(0)

    def __call__(self, end: int) -> Tensor:
        """The factors of at least `end` positions."""
        if end > len(self._table):
            n = max(2 * end, 1024)
            angles = torch.arange(n, device=self._frequencies.device).float()[:, None] * self._frequencies  # [n, h/2]
            turn = torch.polar(torch.full_like(angles, self._scale), angles)
            self._table = torch.stack((turn * self._head_dim**-0.5, turn, torch.ones_like(turn)), 1)
        return self._table
