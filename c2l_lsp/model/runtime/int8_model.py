"""A bare model as our own kernel reads it: int8 weights throughout, one text after the other, no adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from c2l_lsp.model.runtime.cooperative import Slices
from c2l_lsp.model.runtime.kernel_layers import KernelLayers
from c2l_lsp.model.runtime.quantized_linear import (
    KernelInt8Linear,
    build_kernel_layers,
    int8_is_faster,
    kernel_supports,
)
from c2l_lsp.model.runtime.weights import RotaryTable, Weights, fuse_projections, is_small, unsupported_reason

KV_DTYPE = torch.float16
"""Of keys and values: half the memory that attention waits for."""

_ROOM = 256  # positions by which there is room


@dataclass(frozen=True)
class Int8Model:
    """The weights, and all layers for one compiled call."""

    weights: Weights
    layers: KernelLayers
    rotations: RotaryTable

    def hidden_states_in_slices(self, texts: Sequence[Sequence[int]]) -> Slices[list[Tensor]]:
        """Final normed states fp32 [n, d] of each text of n ids, a few of its tokens a slice.

        ValueError for ids that the model does not have.
        """
        capacity = -(-max(map(len, texts), default=0) // _ROOM) * _ROOM
        kv = torch.zeros(self.layers.kv_shape(capacity), dtype=KV_DTYPE)  # what a text does not see is multiplied by 0
        stepping, each = self.layers.bind(kv, self.rotations(capacity)), self.layers.slice_tokens
        out = []
        for ids in texts:
            parts = [torch.empty(0, self.layers.hidden_size)]
            for start in range(0, len(ids), each):
                parts.append(stepping(ids[start : start + each], start))
                yield
            out.append(torch.cat(parts))
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits fp32 [n, vocabulary] of states fp32 [n, d]."""
        return self.weights.head(hidden)


def runs_in_int8(lm: Any) -> bool:  # noqa: ANN401 - any transformers model
    """Whether a model is its int8 weights throughout: small, fp32, on a CPU where our own kernel is the quickest."""
    return (
        not unsupported_reason(lm)
        and lm.dtype == torch.float32
        and is_small(lm)
        and int8_is_faster(lm)
        and kernel_supports(lm)
    )


def build_int8_model(lm: Any) -> Int8Model | None:  # noqa: ANN401 - as above
    """The int8 form of a bare model; None where it is read in another way."""
    if not runs_in_int8(lm):
        return None
    weights = fuse_projections(lm).map_linears(KernelInt8Linear.quantize)
    layers = build_kernel_layers(weights, KV_DTYPE)
    return None if layers is None else Int8Model(weights, layers, RotaryTable(weights))
