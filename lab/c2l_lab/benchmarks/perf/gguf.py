"""Exports a base model to a GGUF file for llama.cpp: the same weights in BF16 or Q8_0, with token ids as tokens.

llama.cpp gets token ids, so the file needs the vocabulary but no real merges.
Needs the package `gguf` (extra `perf`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from c2l_lsp.errors import ModelError
from c2l_lsp.model.lm.base import BaseModel

_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
_KINDS = ("llama", "qwen2")


def export(model: BaseModel, path: Path, kind: str) -> None:
    """Write the model; `kind` is "BF16" or "Q8_0" (matrices; norms and biases stay fp32).

    ModelError for an unsupported architecture.
    """
    import gguf

    config = model.lm.config
    if config.model_type not in _KINDS:
        raise ModelError(f"GGUF export does not support the model type {config.model_type}.")
    writer = gguf.GGUFWriter(path, config.model_type)
    _about(writer, model, config)
    to = gguf.GGMLQuantizationType[kind]
    for name, tensor in _tensors(model, config):
        plain = tensor.detach().float().cpu().contiguous().numpy()
        if plain.ndim == 1:
            writer.add_tensor(name, plain)
        else:
            writer.add_tensor(name, gguf.quantize(plain, to), raw_dtype=to)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _about(writer: Any, model: BaseModel, config: Any) -> None:  # noqa: ANN401 - untyped libraries
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(model.vocabulary)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(_pieces(model))
    writer.add_token_types([1] * model.vocabulary)
    writer.add_token_merges(["a b"])  # llama.cpp requires one; it tokenises nothing here
    writer.add_bos_token_id(model.start_id)
    writer.add_eos_token_id(next(iter(sorted(model.stops)), 0))


def _pieces(model: BaseModel) -> list[str]:
    """The vocabulary by id; ids without a token string get a placeholder."""
    named = {index: text for text, index in model.tokenizer.get_vocab().items()}
    return [named.get(index, f"<unused{index}>") for index in range(model.vocabulary)]


def _tensors(model: BaseModel, config: Any) -> Iterator[tuple[str, Tensor]]:  # noqa: ANN401 - a transformers config
    body, head = model.body, model.head_weight
    yield "token_embd.weight", body.embed_tokens.weight
    yield "output_norm.weight", body.norm.weight
    if head.data_ptr() != body.embed_tokens.weight.data_ptr():
        yield "output.weight", head
    for number, layer in enumerate(body.layers):
        for ours, theirs in _NAMES.items():
            module = layer.get_submodule(ours)
            turned = config.model_type == "llama" and theirs in ("attn_q", "attn_k")
            heads = config.num_attention_heads if theirs == "attn_q" else config.num_key_value_heads
            yield f"blk.{number}.{theirs}.weight", _interleaved(module.weight, heads) if turned else module.weight
            if getattr(module, "bias", None) is not None:
                yield f"blk.{number}.{theirs}.bias", _interleaved(module.bias, heads) if turned else module.bias


def _interleaved(rows: Tensor, heads: int) -> Tensor:
    """Rows of each head in the order 0, h/2, 1, h/2 + 1, …: llama.cpp rotates neighbours in this family."""
    halves = rows.view(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return torch.swapaxes(halves, 1, 2).reshape(rows.shape)
