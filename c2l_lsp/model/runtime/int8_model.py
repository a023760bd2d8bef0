"""A bare model as our own kernel reads it: int8 weights throughout, one text after the other, no adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from c2l_lsp.model.runtime.cooperative import Slices
from c2l_lsp.model.runtime.kernel_layers import Steps
from c2l_lsp.model.runtime.quantized_linear import Quick, compiles, quantises, steps_of
from c2l_lsp.model.runtime.weights import Rotations, Weights, fuse, small, why_not

KV = torch.float16
"""Of keys and values: half the memory that attention waits for."""

_ROOM = 256  # positions by which there is room


@dataclass(frozen=True)
class Int8Model:
    """The weights, and all layers for one compiled call."""

    weights: Weights
    steps: Steps
    rotations: Rotations

    def hidden_states_in_slices(self, texts: Sequence[Sequence[int]]) -> Slices[list[Tensor]]:
        """Final normed states fp32 [n, d] of each text of n ids, a few of its tokens a slice.

        ValueError for ids that the model does not have.
        """
        capacity = -(-max(map(len, texts), default=0) // _ROOM) * _ROOM
        kv = torch.zeros(self.steps.room(capacity), dtype=KV)  # what a text does not see is multiplied by 0
        stepping, each = self.steps.on(kv, self.rotations(capacity)), self.steps.portion
        out = []
        for ids in texts:
            parts = [torch.empty(0, self.steps.width)]
            for start in range(0, len(ids), each):
                parts.append(stepping(ids[start : start + each], start))
                yield
            out.append(torch.cat(parts))
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits fp32 [n, vocabulary] of states fp32 [n, d]."""
        return self.weights.head(hidden)


def suits(lm: Any) -> bool:  # noqa: ANN401 - any transformers model
    """Whether a model is its int8 weights throughout: small, fp32, on a CPU where our own kernel is the quickest."""
    return not why_not(lm) and lm.dtype == torch.float32 and small(lm) and quantises(lm) and compiles(lm)


def int8_model_of(lm: Any) -> Int8Model | None:  # noqa: ANN401 - as above
    """The int8 form of a bare model; None where it is read in another way."""
    if not suits(lm):
        return None
    weights = fuse(lm).each(Quick.of)
    steps = steps_of(weights, KV)
    return None if steps is None else Int8Model(weights, steps, Rotations(weights))
