"""Model sizes and newly initialised models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM


@dataclass(frozen=True)
class Shape:
    """The dimensions of a Qwen2 architecture."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    positions: int = 2048


SHAPES = {
    "pico": Shape(hidden=128, layers=4, heads=2, kv_heads=1, ffn=384),  # for the scaling law
    "nano": Shape(hidden=256, layers=6, heads=4, kv_heads=2, ffn=768),
    "small": Shape(hidden=512, layers=8, heads=8, kv_heads=4, ffn=1536),
    "tiny": Shape(hidden=32, layers=2, heads=2, kv_heads=1, ffn=64),  # for tests
}


def make_model(shape: Shape, vocabulary: int, seed: int) -> Qwen2ForCausalLM:
    """Return a newly initialised model.

    Matrices are drawn from N(0, 0.02); those that write to the residual stream are divided by √(2·layers).
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.ffn,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=4,
        attn_implementation="sdpa",
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.div_((2 * shape.layers) ** 0.5)
    return model


def flop_per_token(model: torch.nn.Module, shape: Shape, length: int) -> float:
    """Return the FLOP of training on one token: six per weight, plus causal attention over a full row."""
    return 6.0 * sum(p.numel() for p in model.parameters()) + 6.0 * shape.layers * shape.hidden * length
