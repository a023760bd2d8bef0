"""Block-wise attention for training on packed rows. Blocks of keys after a block of queries are never computed.

On a GPU this is FlexAttention, compiled with the model. On a CPU it is written in plain matrix products. PyTorch's
fused CPU kernel reaches a third of the rate of matrix products and computes the masked half too. These products,
compiled, take 0.4 of its time at 512 tokens (forward and backward, one core, bf16).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.attention import flex_attention as flex

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedModel

BLOCK = 128
"""Queries per block: small enough to skip most masked keys, large enough for fast matrix products."""

NAME, FLEX = "c2l_blocks", "c2l_flex"


def block_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor,
    scaling: float | None = None, **unused: object,
) -> tuple[Tensor, None]:  # fmt: skip
    """Return (attention output (B, T, H, D), None) on a CPU.

    `query` is (B, H, T, D), `key` and `value` are (B, K, T, D), and H is a multiple of K. `attention_mask`
    (B, 1, T, T) is true where a token may attend, and must be causal. The softmax is computed in fp32. The signature is
    that of transformers' attention functions. `module` is unused, and there is no dropout.
    """
    B, H, T, D = query.shape
    K = key.shape[1]
    query = query * (D**-0.5 if scaling is None else scaling)
    outputs = []
    for begin in range(0, T, BLOCK):
        end = min(T, begin + BLOCK)
        width = end - begin
        q = query[:, :, begin:end].reshape(B, K, (H // K) * width, D)
        scores = (q @ key[:, :, :end].transpose(2, 3)).view(B, K, H // K, width, end).float()
        scores = scores.masked_fill(~attention_mask[:, :, None, begin:end, :end], -1e30)
        weights = torch.softmax(scores, -1).to(value.dtype).view(B, K, (H // K) * width, end)
        outputs.append((weights @ value[:, :, :end]).view(B, H, width, D))
    return torch.cat(outputs, 2).transpose(1, 2).contiguous(), None


def flex_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: BlockMask,
    scaling: float | None = None, **unused: object,
) -> tuple[Tensor, None]:  # fmt: skip
    """As `block_attention`, on a GPU with a block mask. Meant to be compiled."""
    output = flex.flex_attention(query, key, value, block_mask=attention_mask, scale=scaling, enable_gqa=True)
    return output.transpose(1, 2).contiguous(), None


def block_mask(segments: Tensor) -> BlockMask:
    """Return the mask of causal attention within each file. `segments` (B, T) are file numbers."""
    B, T = segments.shape

    def may_attend(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (segments[b, q] == segments[b, k])

    return flex.create_block_mask(may_attend, B, None, T, T, device=segments.device)


@contextmanager
def default_attention(model: PreTrainedModel) -> Iterator[None]:
    """Use the model's default kernels in the context. For a single evaluation, compiling takes too long."""
    before = model.config._attn_implementation
    if before == FLEX:
        model.config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        model.config._attn_implementation = before


@contextmanager
def use_block_attention(model: PreTrainedModel, compiled: bool = True) -> Iterator[None]:
    """Use block-wise attention in the context; on a GPU only if the model is `compiled`."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    before = model.config._attn_implementation
    if next(model.parameters()).device.type == "cpu":
        ALL_ATTENTION_FUNCTIONS.register(NAME, block_attention)
        model.config._attn_implementation = NAME
    elif compiled:
        ALL_ATTENTION_FUNCTIONS.register(FLEX, flex_attention)
        model.config._attn_implementation = FLEX
    try:
        yield
    finally:
        model.config._attn_implementation = before
