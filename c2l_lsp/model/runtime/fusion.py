"""From a transformers model to fused weights: which models are supported, fusing their matrices, merging LoRA pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from c2l_lsp.model.runtime.lora_pair import LoraPair
from c2l_lsp.model.runtime.weights import DenseLinear, Layer, RMSNorm, Weights

_ARCHITECTURES = frozenset({"qwen2", "llama", "mistral"})
_ROPE_TYPES = frozenset({"default", "linear", "llama3"})  # their angles do not depend on the length of the text
PROJECTIONS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
"""Paths of a layer's matrices. The order matters: q, k, v and gate, up are fused in it."""

_SMALL_MODEL_BYTES = 2**30
"""Up to this size a model may be held twice: packed for oneDNN, quantised, or with an adapter merged into a copy. For a
larger one the memory and the pause for the copy cost more than the copy saves."""


def unsupported_reason(lm: Any) -> str:  # noqa: ANN401 - any transformers model
    """Why our forward pass does not support a model; "" if it does."""
    config = lm.config
    rope = getattr(config, "rope_parameters", None) or {}
    if config.model_type not in _ARCHITECTURES:
        return f"the architecture {config.model_type}"
    if lm.device.type not in ("cpu", "cuda"):
        return f"the device {lm.device.type}"
    if getattr(config, "hidden_act", "silu") != "silu":
        return f"the activation {config.hidden_act}"
    if rope.get("rope_type", "default") not in _ROPE_TYPES or rope.get("partial_rotary_factor", 1.0) != 1.0:
        return f"position scaling {rope}"
    if _has_sliding_window(config):
        return "sliding-window attention"
    if any(type(layer.get_submodule(name)) is not nn.Linear for layer in lm.base_model.layers for name in PROJECTIONS):
        return "projections that are not plain matrices"
    return ""


def _has_sliding_window(config: Any) -> bool:  # noqa: ANN401 - any transformers config
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return any(kind != "full_attention" for kind in kinds)
    window = getattr(config, "sliding_window", None)
    if config.model_type == "qwen2" and not getattr(config, "use_sliding_window", False):
        return False
    return window is not None and window < config.max_position_embeddings


def is_small(lm: Any) -> bool:  # noqa: ANN401 - any transformers model
    """Whether a model is small enough to be held in memory twice."""
    return sum(p.numel() * p.element_size() for p in lm.parameters()) <= _SMALL_MODEL_BYTES


def packing_is_faster(lm: Any) -> bool:  # noqa: ANN401 - any transformers model
    """Whether packing for oneDNN is faster: a small bf16 model on a CPU with native bf16 products."""
    return (
        lm.device.type == "cpu"
        and lm.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.cpu._is_avx512_bf16_supported()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and is_small(lm)
    )


def fuse_projections(lm: Any) -> Weights:  # noqa: ANN401 - any model `unsupported_reason` accepts
    """The fused weights, not quantised.

    qkv is a copy. gate_up is a copy too in a small model; in a large one the model's own gate and up become views of
    one fused matrix. All other matrices share the model's memory.
    """
    config, body = lm.config, lm.base_model
    attention = body.layers[0].self_attn
    if not is_small(lm):
        for layer in body.layers:
            _fuse_gate_up_in_place(layer.mlp)
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


def merge_lora(lm: Any, head_dim: int, pairs: Mapping[str, LoraPair]) -> dict[int, Layer]:  # noqa: ANN401 - as in `fuse_projections`
    """The layers that have pairs, by index, with W + s·B A in place of the model's W."""
    by_layer = pairs_by_layer(lm, pairs)
    return {index: _layer(lm.base_model.layers[index], head_dim, own) for index, own in by_layer.items()}


def pairs_by_layer(lm: Any, pairs: Mapping[str, LoraPair]) -> dict[int, dict[str, LoraPair]]:  # noqa: ANN401 - as in `fuse_projections`
    """The pairs by layer index and path inside the layer (one of PROJECTIONS)."""
    root = next(name for name, module in lm.named_modules() if module is lm.base_model)
    by_layer: dict[int, dict[str, LoraPair]] = {}
    for name, pair in pairs.items():
        index, _, projection = name.removeprefix(f"{root}.layers.").partition(".")
        by_layer.setdefault(int(index), {})[projection] = pair
    return by_layer


def can_merge(pairs: Mapping[str, LoraPair]) -> bool:
    """Whether every pair belongs to one of the layers' PROJECTIONS."""
    return all(".layers." in name and name.endswith(PROJECTIONS) for name in pairs)


def _fuse_gate_up_in_place(mlp: Any) -> None:  # noqa: ANN401 - a transformers module
    f = mlp.gate_proj.weight.shape[0]
    both = torch.cat((mlp.gate_proj.weight.detach(), mlp.up_proj.weight.detach()))
    mlp.gate_proj.weight.data, mlp.up_proj.weight.data = both[:f], both[f:]


def _layer(layer: Any, head_dim: int, pairs: Mapping[str, LoraPair]) -> Layer:  # noqa: ANN401 - as above
    q, k, v, output, gate, up, down = (_with_pair(layer, name, pairs) for name in PROJECTIONS)
    return Layer(
        attention_norm=RMSNorm.from_module(layer.input_layernorm),
        qkv=_stack(_interleaved(q, head_dim), _interleaved(k, head_dim), v),
        output=output,
        mlp_norm=RMSNorm.from_module(layer.post_attention_layernorm),
        gate_up=_stack(gate, up),
        down=down,
    )


def _with_pair(layer: Any, name: str, pairs: Mapping[str, LoraPair]) -> DenseLinear:  # noqa: ANN401 - a transformers module
    linear = layer.get_submodule(name)
    weight, bias = linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
    if (pair := pairs.get(name)) is not None:
        delta = pair.scale * (pair.B.float() @ pair.A.float())
        weight = (weight.float() + delta.to(weight.device)).to(weight.dtype)
    return DenseLinear(weight, bias)


def _interleaved(matrix: DenseLinear, head_dim: int) -> DenseLinear:
    bias = None if matrix.bias is None else interleave_halves(matrix.bias, head_dim)
    return DenseLinear(interleave_halves(matrix.weight, head_dim), bias)


def interleave_halves(rows: Tensor, head_dim: int) -> Tensor:
    """Reorder the rows 0 … h−1 of each head to 0, h/2, 1, h/2 + 1, …; any shape [heads · h, …]."""
    halves = rows.view(-1, 2, head_dim // 2, *rows.shape[1:])  # [heads, 2, h/2, …]
    return halves.transpose(1, 2).reshape(rows.shape)


def _stack(*parts: DenseLinear) -> DenseLinear:
    """The matrices stacked along the outputs, without a copy if they are adjacent views of one matrix already."""
    first = parts[0].weight
    rows = sum(part.weight.shape[0] for part in parts)
    begins = [part.weight.data_ptr() for part in parts[1:]]
    ends = [part.weight.data_ptr() + part.weight.numel() * first.element_size() for part in parts[:-1]]
    shared = all(part.weight.untyped_storage().data_ptr() == first.untyped_storage().data_ptr() for part in parts)
    if shared and begins == ends:
        weight = first.as_strided((rows, first.shape[1]), first.stride())
    else:
        weight = torch.cat([part.weight for part in parts])
    if all(part.bias is None for part in parts):
        return DenseLinear(weight)
    biases = [part.weight.new_zeros(part.weight.shape[0]) if part.bias is None else part.bias for part in parts]
    return DenseLinear(weight, torch.cat(biases))
