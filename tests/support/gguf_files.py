"""Writes tiny GGUF files with random weights, as llama.cpp's converter would write a model of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from c2l_lsp.model.gguf_format import families

SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.2,
    "head_dim": 16,
}  # fmt: skip
EXTRA: dict[str, dict[str, Any]] = {
    "llama": {}, "qwen2": {}, "qwen3": {}, "starcoder2": {"use_bias": True, "sliding_window": None},
    "granite": {
        "embedding_multiplier": 6.0, "residual_multiplier": 0.3, "attention_multiplier": 0.1, "logits_scaling": 4.0,
    },
    "gemma3": {
        "query_pre_attn_scalar": 16, "sliding_window": 16, "num_hidden_layers": 6,
    },
}  # fmt: skip
"""Fields of a tiny configuration, by GGUF architecture."""


def random_model(architecture: str, vocabulary: int, **changes: Any) -> Any:
    """A model of transformers whose norms and biases are random too."""
    torch.manual_seed(0)
    family = families.FAMILIES[architecture]
    fields = {**SIZES, **EXTRA[architecture], "vocab_size": vocabulary, "tie_word_embeddings": False, **changes}
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(family.model_type, **fields)).eval()
    for name, weight in lm.named_parameters():
        if name.endswith("bias") or "norm" in name:
            weight.data += 0.2 * torch.randn_like(weight)
    return lm


def write(
    path: Path, architecture: str, lm: Any, tokenizer_folder: Path, kind: str = "F32", **metadata: Any
) -> dict[str, np.ndarray]:
    """Write the model as GGUF; returns the weights that its reader must find, by their names in transformers.

    `kind` is the type of the matrices. `metadata` replaces values of the architecture ("a__b" is a.b); None omits one.
    """
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in {**_metadata(architecture, lm.config), **metadata}.items():
        if value is not None:
            add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
            (writer.add_string if isinstance(value, str) else add)(f"{architecture}.{key.replace('__', '.')}", value)
    add_tokenizer(writer, tokenizer_folder)
    expected = _add_tensors(writer, architecture, lm, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def _metadata(architecture: str, config: Any) -> dict[str, Any]:
    values = {
        "context_length": config.max_position_embeddings, "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers, "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads, "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": SIZES["head_dim"],
    }  # fmt: skip
    if architecture == "starcoder2":
        return {**values, "attention.layer_norm_epsilon": config.norm_epsilon, "rope.freq_base": 10_000.0}
    values["attention.layer_norm_rms_epsilon"] = config.rms_norm_eps
    if architecture == "granite":
        values |= {
            "embedding_scale": config.embedding_multiplier, "residual_scale": config.residual_multiplier,
            "attention.scale": config.attention_multiplier, "logit_scale": config.logits_scaling,
        }  # fmt: skip
    if architecture == "gemma3":
        return {**values, "attention.sliding_window": config.sliding_window, "rope.freq_base": 1_000_000.0}
    return {**values, "rope.freq_base": float(config.rope_parameters["rope_theta"])}


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    """Add the byte-level tokenizer of a model folder."""
    about = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids = about["model"]["vocab"] | {token["content"]: token["id"] for token in about["added_tokens"]}
    special = {token["content"] for token in about["added_tokens"]}
    tokens = sorted(ids, key=ids.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in about["model"]["merges"]])
    writer.add_eos_token_id(ids["<|endoftext|>"])


def _add_tensors(writer: gguf.GGUFWriter, architecture: str, lm: Any, kind: str) -> dict[str, np.ndarray]:
    family, expected = families.FAMILIES[architecture], {}
    tensors = {f"{stem}.{part}": "" for stem in ("token_embd", "output_norm", "output") for part in ("weight", "bias")}
    for layer in range(lm.config.num_hidden_layers):
        tensors |= {f"blk.{layer}.{stem}.{part}": "" for stem in family.layer for part in ("weight", "bias")}
    state = {name: tensor.detach().float().numpy() for name, tensor in lm.state_dict().items()}
    for tensor in tensors:
        name = family.parameter_name(tensor)
        if name not in state or (name == "lm_head.weight" and lm.config.tie_word_embeddings):
            continue
        stored = _as_stored(tensor, state[name], family, lm.config)
        found = _add(writer, tensor, stored, kind if stored.ndim == 2 else "F32")
        expected[name] = _as_stored(tensor, found, family, lm.config, back=True)
    return expected


def _add(writer: gguf.GGUFWriter, tensor: str, values: np.ndarray, kind: str) -> np.ndarray:
    """Add a tensor; returns its values as read back, in the precision that a conversion keeps."""
    number = gguf.GGMLQuantizationType[kind]
    if kind in ("F32", "F16"):
        values = values.astype(kind.replace("F", "float"))
        writer.add_tensor(tensor, values)
        return values.astype(np.float32)
    if kind == "Q4_K" and values.shape[1] % 256:
        return _add(writer, tensor, values, "Q8_0")
    data = _random_q4_k(values.shape) if kind == "Q4_K" else gguf.quants.quantize(values, number)  # llama.cpp's C only
    writer.add_tensor(tensor, data, raw_dtype=number)
    plain = gguf.quants.dequantize(data, number)
    return plain if kind == "BF16" else plain.astype(np.float16).astype(np.float32)


def _random_q4_k(shape: tuple[int, ...]) -> np.ndarray:
    """Blocks of 256 weights: two fp16 scales, 12 bytes of 6-bit scales, 128 bytes of 4-bit numbers."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (shape[0], shape[1] // 256, 144), dtype=np.uint8)
    blocks[..., :4] = np.array([1e-3, 8e-3], np.float16).view(np.uint8)
    return blocks.reshape(shape[0], -1)


def _as_stored(tensor: str, values: np.ndarray, family: Any, config: Any, *, back: bool = False) -> np.ndarray:
    """The changes of llama.cpp's converter, or with `back` the reverse, written independently of the product."""
    if family.rotated and (".attn_q." in tensor or ".attn_k." in tensor):
        heads = config.num_attention_heads if ".attn_q." in tensor else config.num_key_value_heads
        half = values.shape[0] // heads // 2
        rows = np.arange(values.shape[0]).reshape(heads, 2, half).transpose(0, 2, 1).reshape(-1)
        return values[np.argsort(rows) if back else rows]
    if family.norm_offset and tensor.endswith("norm.weight"):
        return values - 1 if back else values + 1
    return values
