"""Models of known shapes with random weights: the cost of a step does not depend on the values."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from c2l_lsp.model.lm.base import BaseModel

Shape = Mapping[str, Any]

LARGE: Shape = {
    "vocab_size": 151_936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
    "num_attention_heads": 12, "num_key_value_heads": 2, "max_position_embeddings": 32_768,
    "tie_word_embeddings": True,
}  # fmt: skip
"""Qwen2.5-Coder-1.5B."""

MEDIUM: Shape = {**LARGE, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
                 "num_attention_heads": 14}  # fmt: skip
"""Qwen2.5-Coder-0.5B: the smallest model whose adapters are not merged into the weights."""

MINIATURE: Shape = {**LARGE, "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
                    "num_attention_heads": 4}  # fmt: skip


def random_model(shape: Shape, device: torch.device, dtype: torch.dtype) -> BaseModel:
    """A model without tokenizer."""
    torch.manual_seed(0)
    with torch.device(device):
        lm = Qwen2ForCausalLM(Qwen2Config(**shape, dtype=dtype))
    lm = lm.to(dtype).eval().requires_grad_(False)
    return BaseModel(
        id="random", digest="random", lm=lm, tokenizer=SimpleNamespace(), fim=None, device=device, dtype=dtype,
        max_context=4096, load_ms=0.0,
    )  # fmt: skip


def random_ids(count: int) -> list[int]:
    """Random token ids that every shape has."""
    return torch.randint(10, 500, (count,), generator=torch.Generator().manual_seed(1)).tolist()
