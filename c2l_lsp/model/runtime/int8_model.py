"""The base model on int8 weights in the C kernel, without an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from c2l_lsp.cooperative import Slices
from c2l_lsp.model.runtime.fusion import fuse_projections, is_small, unsupported_reason
from c2l_lsp.model.runtime.kernel_layers import KernelLayers
from c2l_lsp.model.runtime.quantized_linear import (
    KernelInt8Linear,
    build_kernel_layers,
    int8_is_faster,
    kernel_supports,
)
from c2l_lsp.model.runtime.weights import RotaryTable, Weights

KV_DTYPE = torch.float16
"""Of keys and values: attention waits for memory, and this is half of it."""

_CAPACITY_STEP = 256  # the KV cache is sized in multiples of this many positions


@dataclass(frozen=True)
class Int8Model:
    """The quantised weights, also as kernel layers, and the rotary table."""

    weights: Weights
    layers: KernelLayers
    rotations: RotaryTable

    def hidden_states_in_slices(self, texts: Sequence[Sequence[int]]) -> Slices[list[Tensor]]:
        """Final normed hidden states fp32 [n, d] of every text of n ids, in cooperative steps.

        Raises ValueError for ids outside the vocabulary.
        """
        capacity = -(-max(map(len, texts), default=0) // _CAPACITY_STEP) * _CAPACITY_STEP
        kv = torch.zeros(self.layers.kv_shape(capacity), dtype=KV_DTYPE)  # zeros: masked positions are multiplied too
        sequence, tokens = self.layers.bind(kv, self.rotations(capacity)), self.layers.slice_tokens
        out = []
        for ids in texts:
            parts = [torch.empty(0, self.layers.hidden_size)]
            for start in range(0, len(ids), tokens):
                parts.append(sequence(ids[start : start + tokens], start))
                yield
            out.append(torch.cat(parts))
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits fp32 [n, vocabulary] of hidden states fp32 [n, d]."""
        return self.weights.head(hidden)


def runs_in_int8(lm: Any) -> bool:  # noqa: ANN401 - any transformers model
    """Whether a model runs entirely on int8 weights: small, fp32, on a CPU where the kernel is the fastest way."""
    if unsupported_reason(lm) or lm.dtype != torch.float32:
        return False
    return is_small(lm) and int8_is_faster(lm) and kernel_supports(lm)


def build_int8_model(lm: Any) -> Int8Model | None:  # noqa: ANN401 - any transformers model
    """The int8 form of a base model; None if `runs_in_int8` is false or the kernel does not support its shapes."""
    if not runs_in_int8(lm):
        return None
    weights = fuse_projections(lm).map_linears(KernelInt8Linear.quantize)
    layers = build_kernel_layers(weights, KV_DTYPE)
    return None if layers is None else Int8Model(weights, layers, RotaryTable(weights))
