"""Weights of a Llama-shaped transformers model, fused for our own forward pass; and which models have that shape.

q, k and v become one matrix, gate and up another. Rows of q and k are reordered inside each head so that the two halves
RoPE rotates into one another stand side by side: a rotation is then one complex product, and scores do not change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from c2l_lsp.model.runtime.lora_pair import LoraPair

_FAMILIES = frozenset({"qwen2", "llama", "mistral"})
_ROPES = frozenset({"default", "linear", "llama3"})  # angles that do not depend on the length of the text
PROJECTIONS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


_SMALL_MODEL_BYTES = 2**30
"""Weights up to this size are kept a second time in oneDNN's own order, and adapters are merged into a copy of theirs;
beyond it the memory and the pause are worth more."""

Linear = Callable[[Tensor], Tensor]
"""[n, in] → [n, out]."""


@dataclass(frozen=True)
class DenseLinear:
    """x ↦ x Wᵀ + b; W [out, in], or in the order oneDNN multiplies by, which it else makes anew at every call."""

    weight: Tensor
    bias: Tensor | None = None
    packed: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """[n, in] → [n, out]; the same bits packed or not."""
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return functional.linear(x, self.weight, self.bias)

    def pack(self) -> DenseLinear:
        """The same map in oneDNN's order."""
        return replace(self, weight=torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous(), 1), packed=True)


@dataclass(frozen=True)
class RMSNorm:
    """RMSNorm. On the CPU as the LayerNorm of [x, −x], whose mean is 0 and variance mean(x²): one kernel, not seven."""

    weight: Tensor  # [d]
    doubled: Tensor  # [2d]: the weight, then zeros
    eps: float

    @classmethod
    def from_module(cls, module: Any) -> RMSNorm:  # noqa: ANN401 - any RMSNorm of transformers
        """The norm with the weight and ε of a transformers module."""
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
    """One block: attention norm, qkv [(H + 2K)·h, d], output; MLP norm, gate above up [2f, d], down."""

    attention_norm: RMSNorm
    qkv: Linear
    output: Linear
    mlp_norm: RMSNorm
    gate_up: Linear
    down: Linear

    def map_linears(self, change: Callable[[Any], Linear], kind: type = DenseLinear) -> Layer:
        """The layer with every matrix of a kind changed, the plain ones by default."""
        found = {name: getattr(self, name) for name in ("qkv", "output", "gate_up", "down")}
        return self.with_linears({name: change(m) for name, m in found.items() if isinstance(m, kind)})

    def with_linears(self, matrices: Mapping[str, Linear]) -> Layer:
        """The layer with some matrices in place of its own."""
        made: Layer = replace(self, **matrices)  # type: ignore[arg-type]
        return made


@dataclass(frozen=True)
class Weights:
    """Everything between token ids and final hidden states: H heads, K of keys and values, h numbers per head."""

    embedding: Tensor  # [vocabulary, d]
    layers: tuple[Layer, ...]
    norm: RMSNorm
    head: Linear  # [vocabulary, d]
    heads: int
    kv_heads: int
    head_dim: int
    frequencies: Tensor  # [h/2], fp32
    rope_scale: float  # factor of cos and sin

    def map_linears(self, change: Callable[[Any], Linear], kind: type = DenseLinear) -> Weights:
        """The weights with every matrix of a kind changed, the plain ones by default."""
        head = change(self.head) if isinstance(self.head, kind) else self.head
        return replace(self, layers=tuple(layer.map_linears(change, kind) for layer in self.layers), head=head)

    def with_layers(self, layers: Mapping[int, Layer]) -> Weights:
        """The weights with some layers in place of their own."""
        return replace(self, layers=tuple(layers.get(i, layer) for i, layer in enumerate(self.layers)))


class RotaryTable:
    """Rotations of q (with 1/√h in them), k and v (none) at every position, [n, 3, h/2] complex; made as needed."""

    def __init__(self, weights: Weights) -> None:
        self._scale, self._head_dim, self._frequencies = weights.rope_scale, weights.head_dim, weights.frequencies
        self._known = torch.empty(0)

    def __call__(self, end: int) -> Tensor:
        """Of all positions up to `end`, and further."""
        if end > len(self._known):
            n = max(2 * end, 1024)
            angles = torch.arange(n, device=self._frequencies.device).float()[:, None] * self._frequencies  # [n, h/2]
            turn = torch.polar(torch.full_like(angles, self._scale), angles)
            self._known = torch.stack((turn * self._head_dim**-0.5, turn, torch.ones_like(turn)), 1)
        return self._known


def unsupported_reason(lm: Any) -> str:  # noqa: ANN401 - any transformers model
    """Why our forward pass cannot stand in for this model's; "" if it can."""
    config = lm.config
    rope = getattr(config, "rope_parameters", None) or {}
    if config.model_type not in _FAMILIES:
        return f"the architecture {config.model_type}"
    if lm.device.type not in ("cpu", "cuda"):
        return f"the device {lm.device.type}"
    if getattr(config, "hidden_act", "silu") != "silu":
        return f"the activation {config.hidden_act}"
    if rope.get("rope_type", "default") not in _ROPES or rope.get("partial_rotary_factor", 1.0) != 1.0:
        return f"position scaling {rope}"
    if _windowed(config):
        return "sliding-window attention"
    if any(type(layer.get_submodule(name)) is not nn.Linear for layer in lm.base_model.layers for name in PROJECTIONS):
        return "projections that are not plain matrices"
    return ""


def _windowed(config: Any) -> bool:  # noqa: ANN401 - any transformers config
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return any(kind != "full_attention" for kind in kinds)
    window = getattr(config, "sliding_window", None)
    if config.model_type == "qwen2" and not getattr(config, "use_sliding_window", False):
        return False
    return window is not None and window < config.max_position_embeddings


def is_small(lm: Any) -> bool:  # noqa: ANN401 - any transformers model
    """Whether a model fits the memory twice."""
    return sum(p.numel() * p.element_size() for p in lm.parameters()) <= _SMALL_MODEL_BYTES


def packing_is_faster(lm: Any) -> bool:  # noqa: ANN401 - any transformers model
    """Whether packing pays: bf16 on a CPU that multiplies it, and a small model."""
    return (
        lm.device.type == "cpu"
        and lm.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.cpu._is_avx512_bf16_supported()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and is_small(lm)
    )


def fuse_projections(lm: Any) -> Weights:  # noqa: ANN401 - any model `unsupported_reason` accepts
    """Plain weights: qkv copied, of a large model the gate and up made views of one matrix, the rest its own."""
    config, body = lm.config, lm.base_model
    attention = body.layers[0].self_attn
    if not is_small(lm):
        for layer in body.layers:
            _share_gate_up(layer.mlp)
    return Weights(
        embedding=body.embed_tokens.weight.detach(),
        layers=tuple(_layer(layer, attention.head_dim, {}) for layer in body.layers),
        norm=RMSNorm.from_module(body.norm),
        head=DenseLinear(lm.get_output_embeddings().weight.detach()),
        heads=int(config.num_attention_heads),
        kv_heads=int(config.num_key_value_heads),
        head_dim=int(attention.head_dim),
        frequencies=body.rotary_emb.inv_freq.detach().float(),
        rope_scale=float(body.rotary_emb.attention_scaling),
    )


def merge_lora(lm: Any, head_dim: int, pairs: Mapping[str, LoraPair]) -> dict[int, Layer]:  # noqa: ANN401 - as in `fuse`
    """The layers that have pairs, with W + s·B A in place of W, from the model's own W."""
    inside = pairs_by_layer(lm, pairs)
    return {index: _layer(lm.base_model.layers[index], head_dim, own) for index, own in inside.items()}


def pairs_by_layer(lm: Any, pairs: Mapping[str, LoraPair]) -> dict[int, dict[str, LoraPair]]:  # noqa: ANN401 - as in `fuse`
    """The pairs of each layer by projection."""
    root = next(name for name, module in lm.named_modules() if module is lm.base_model)
    found: dict[int, dict[str, LoraPair]] = {}
    for name, pair in pairs.items():
        number, _, projection = name.removeprefix(f"{root}.layers.").partition(".")
        found.setdefault(int(number), {})[projection] = pair
    return found


def can_merge(pairs: Mapping[str, LoraPair]) -> bool:
    """Whether every pair belongs to a projection inside the layers."""
    return all(".layers." in name and name.endswith(PROJECTIONS) for name in pairs)


def _share_gate_up(mlp: Any) -> None:  # noqa: ANN401 - a transformers module
    f = mlp.gate_proj.weight.shape[0]
    both = torch.cat((mlp.gate_proj.weight.detach(), mlp.up_proj.weight.detach()))
    mlp.gate_proj.weight.data, mlp.up_proj.weight.data = both[:f], both[f:]


def _layer(layer: Any, head_dim: int, pairs: Mapping[str, LoraPair]) -> Layer:  # noqa: ANN401 - as above
    q, k, v, o, gate, up, down = (_merged(layer, name, pairs) for name in PROJECTIONS)
    norms = (RMSNorm.from_module(layer.input_layernorm), RMSNorm.from_module(layer.post_attention_layernorm))
    qkv = _stack(_paired(q, head_dim), _paired(k, head_dim), v)
    return Layer(norms[0], qkv, o, norms[1], _stack(gate, up), down)


def _merged(layer: Any, name: str, pairs: Mapping[str, LoraPair]) -> DenseLinear:  # noqa: ANN401 - a transformers module
    linear = layer.get_submodule(name)
    weight, bias = linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
    if (pair := pairs.get(name)) is not None:
        delta = pair.scale * (pair.B.float() @ pair.A.float())
        weight = (weight.float() + delta.to(weight.device)).to(weight.dtype)
    return DenseLinear(weight, bias)


def _paired(matrix: DenseLinear, head_dim: int) -> DenseLinear:
    bias = None if matrix.bias is None else interleave_halves(matrix.bias, head_dim)
    return DenseLinear(interleave_halves(matrix.weight, head_dim), bias)


def interleave_halves(rows: Tensor, head_dim: int) -> Tensor:
    """Rows 0 … h−1 of each head in the order 0, h/2, 1, h/2 + 1, …"""
    halves = rows.view(-1, 2, head_dim // 2, *rows.shape[1:])  # [heads, 2, h/2, …]
    return halves.transpose(1, 2).reshape(rows.shape)


def _stack(*parts: DenseLinear) -> DenseLinear:
    """The matrices above one another; without copying where they are views of one already."""
    first = parts[0].weight
    rows = sum(part.weight.shape[0] for part in parts)
    adjacent = [part.weight.data_ptr() for part in parts[1:]]
    ends = [part.weight.data_ptr() + part.weight.numel() * first.element_size() for part in parts[:-1]]
    shared = all(part.weight.untyped_storage().data_ptr() == first.untyped_storage().data_ptr() for part in parts)
    if shared and adjacent == ends:
        weight = first.as_strided((rows, first.shape[1]), first.stride())
    else:
        weight = torch.cat([part.weight for part in parts])
    if all(part.bias is None for part in parts):
        return DenseLinear(weight)
    biases = [part.weight.new_zeros(part.weight.shape[0]) if part.bias is None else part.bias for part in parts]
    return DenseLinear(weight, torch.cat(biases))
