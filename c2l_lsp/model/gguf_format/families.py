"""GGUF architectures as transformers' configurations and tensor names.

To add an architecture, add a row to FAMILIES: the names of its class and kind in transformers, the tensors whose names
differ, and the configuration that metadata of its own decides. `test_conversion.py` compares every row's logits.
Sources: the converter of llama.cpp (convert_hf_to_gguf.py) and the model definitions of transformers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from c2l_lsp.errors import ModelError
from c2l_lsp.model.gguf_format.header import Header

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_IGNORED = {"rope_freqs"}
"""Tensors that a configuration replaces."""
_BLOCK = re.compile(r"blk\.(\d{1,5})\.(\w+)\.(weight|bias)")
_LLAMA3_BAND = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_GEMMA_LOCAL_THETA = 10_000.0
_GEMMA_27B_LAYERS = 62


def _no_extras(_header: Header) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Family:
    """One architecture. `rotated`: its queries and keys are stored with rotary pairs side by side, as Meta's are.

    `norm_offset` is what the converter added to norm weights. `extras` returns the fields that only this family has.
    """

    model_type: str
    model_class: str
    rotated: bool = False
    norm_offset: float = 0.0
    layer: Mapping[str, str] = field(default_factory=lambda: _LAYER)
    extras: Callable[[Header], dict[str, Any]] = _no_extras

    def parameter_name(self, tensor: str) -> str | None:
        """The name of a tensor in transformers; None if it has none there."""
        if found := _BLOCK.fullmatch(tensor):
            inner = self.layer.get(found[2])
            return f"model.layers.{found[1]}.{inner}.{found[3]}" if inner else None
        stem, _, kind = tensor.rpartition(".")
        return f"{_TOP[stem]}.{kind}" if stem in _TOP and kind in ("weight", "bias") else None


def _with_biases(header: Header) -> dict[str, Any]:
    return {
        "attention_bias": "blk.0.attn_q.bias" in header.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in header.tensors,
    }


def _starcoder2(header: Header) -> dict[str, Any]:
    return {
        "use_bias": True,
        "norm_epsilon": header.of_architecture("attention.layer_norm_epsilon", 1e-5),
        "hidden_act": "gelu_pytorch_tanh",
    }


def _granite(header: Header) -> dict[str, Any]:
    return {
        **_with_biases(header),
        "embedding_multiplier": header.of_architecture("embedding_scale", 1.0),
        "residual_multiplier": header.of_architecture("residual_scale", 1.0),
        "attention_multiplier": header.of_architecture("attention.scale", 1.0),
        "logits_scaling": header.of_architecture("logit_scale", 1.0),
    }


def _gemma3(header: Header) -> dict[str, Any]:
    layers, rope = header.of_architecture("block_count"), rope_of(header)
    width, heads = header.of_architecture("embedding_length"), header.of_architecture("attention.head_count")
    largest = layers == _GEMMA_27B_LAYERS  # the only size whose queries are not scaled by the width of a head
    return {
        "query_pre_attn_scalar": width // heads if largest else header.of_architecture("attention.key_length"),
        "sliding_window": header.of_architecture("attention.sliding_window"),
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_parameters": {
            "full_attention": rope,
            "sliding_attention": {"rope_type": "default", "rope_theta": _GEMMA_LOCAL_THETA},
        },
    }


FAMILIES: dict[str, Family] = {
    "llama": Family("llama", "LlamaForCausalLM", rotated=True, extras=_with_biases),
    "qwen2": Family("qwen2", "Qwen2ForCausalLM"),
    "qwen3": Family("qwen3", "Qwen3ForCausalLM"),
    "granite": Family("granite", "GraniteForCausalLM", rotated=True, extras=_granite),
    "starcoder2": Family(
        "starcoder2",
        "Starcoder2ForCausalLM",
        layer={**_LAYER, "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
        extras=_starcoder2,
    ),
    "gemma3": Family(
        "gemma3_text",
        "Gemma3ForCausalLM",
        norm_offset=1.0,
        layer={
            **_LAYER,
            "post_attention_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        },
        extras=_gemma3,
    ),
}
"""By `general.architecture`. Mistral, Codestral, DeepSeek-Coder, Code Llama and SmolLM are llama."""


def family_of(header: Header) -> Family:
    """The family of a file. Raises ModelError if its architecture is unknown."""
    if header.architecture not in FAMILIES:
        raise ModelError(
            f"{header.path} has the architecture {header.architecture or 'none'}; from GGUF, c2l-lsp loads "
            f"{', '.join(sorted(FAMILIES))}."
        )
    return FAMILIES[header.architecture]


def configuration(header: Header, vocabulary: int) -> dict[str, Any]:
    """The content of config.json. Raises ModelError if the metadata lacks a size or asks for what is not supported."""
    family = family_of(header)
    heads = _size(header, "attention.head_count")
    width = _size(header, "embedding_length")
    head_width = header.of_architecture("attention.key_length", width // heads)
    if header.of_architecture("rope.dimension_count", head_width) != head_width:
        raise ModelError(f"{header.path} rotates a part of each head only, which c2l-lsp cannot convert.")
    context = _size(header, "context_length")
    window = header.of_architecture("attention.sliding_window")
    if isinstance(window, int) and window > 0 and header.architecture != "gemma3":
        context = min(context, window)  # within the window, full attention is the same
    return {
        "model_type": family.model_type,
        "architectures": [family.model_class],
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": _size(header, "feed_forward_length"),
        "num_hidden_layers": _size(header, "block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": header.of_architecture("attention.head_count_kv", heads),
        "head_dim": head_width,
        "max_position_embeddings": context,
        "rms_norm_eps": header.of_architecture("attention.layer_norm_rms_epsilon", 1e-6),
        "rope_parameters": rope_of(header),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "bos_token_id": header.metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": header.metadata.get("tokenizer.ggml.eos_token_id"),
        **family.extras(header),
    }


def _size(header: Header, key: str) -> int:
    value = header.of_architecture(key)
    if not isinstance(value, int) or not 0 < value < 1 << 24:
        raise ModelError(f"{header.path} is damaged: its {key} is {value!r:.40}.")
    return value


def rope_of(header: Header) -> dict[str, Any]:
    """The rotary positions as transformers' `rope_parameters`. Raises ModelError for a scaling that is not known."""
    theta = float(header.of_architecture("rope.freq_base", 10_000.0))
    kind = header.of_architecture("rope.scaling.type", "none")
    factor = header.of_architecture("rope.scaling.factor", header.of_architecture("rope.scale_linear", 1.0))
    if "rope_freqs.weight" in header.tensors:
        return {"rope_type": "llama3", "rope_theta": theta, "factor": None, **_LLAMA3_BAND}  # from the tensor
    if kind == "none" or factor == 1.0:
        return {"rope_type": "default", "rope_theta": theta}
    if kind == "linear":
        return {"rope_type": "linear", "rope_theta": theta, "factor": float(factor)}
    if kind == "yarn":
        trained = header.of_architecture("rope.scaling.original_context_length")
        return {
            "rope_type": "yarn",
            "rope_theta": theta,
            "factor": float(factor),
            "original_max_position_embeddings": trained,
        }
    raise ModelError(f"{header.path} scales positions by {kind!s:.40}, which c2l-lsp does not know.")


def is_ignored(tensor: str) -> bool:
    """Whether a tensor without a name in transformers may be left out."""
    return tensor.split(".")[0] in _IGNORED
