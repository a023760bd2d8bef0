"""Attention of packed rows for training: block by block of queries, what lies in the future never computed.

On a GPU this is FlexAttention, compiled with the model. PyTorch's fused CPU kernel reaches a third of the matrix
products' rate and computes the masked half too; these plain products, compiled, take 0.4 of its time at 512 tokens
(forward and backward, one core, bf16).
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
"""Queries of one product: small enough to skip most of the future, large enough for the matrix kernels."""

NAME, FLEX = "c2l_blocks", "c2l_flex"


def block_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor,
    scaling: float | None = None, **unused: object,
) -> tuple[Tensor, None]:  # fmt: skip
    """(B, H, T, D) queries over (B, K, T, D) keys and values → ((B, T, H, D), None), H a multiple of K.

    `attention_mask` (B, 1, T, T), true where a token may look, is taken to be causal. Softmax in fp32. The signature is
    that of transformers' attention functions; `module` is not looked at, and there is no dropout.
    """
    B, H, T, D = query.shape
    K = key.shape[1]
    query = query * (D**-0.5 if scaling is None else scaling)
    made = []
    for begin in range(0, T, BLOCK):
        end = min(T, begin + BLOCK)
        width = end - begin
        q = query[:, :, begin:end].reshape(B, K, (H // K) * width, D)
        scores = (q @ key[:, :, :end].transpose(2, 3)).view(B, K, H // K, width, end).float()
        scores = scores.masked_fill(~attention_mask[:, :, None, begin:end, :end], -1e30)
        weights = torch.softmax(scores, -1).to(value.dtype).view(B, K, (H // K) * width, end)
        made.append((weights @ value[:, :, :end]).view(B, H, width, D))
    return torch.cat(made, 2).transpose(1, 2).contiguous(), None


def flex_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: BlockMask,
    scaling: float | None = None, **unused: object,
) -> tuple[Tensor, None]:  # fmt: skip
    """The same shapes as `block_attention`, with the blocks that `attention_mask` names; to be compiled."""
    made = flex.flex_attention(query, key, value, block_mask=attention_mask, scale=scaling, enable_gqa=True)
    return made.transpose(1, 2).contiguous(), None


def block_mask(segments: Tensor) -> BlockMask:
    """(B, T) file numbers → which blocks of keys each block of queries needs: causal and within one file."""
    B, T = segments.shape

    def may(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (segments[b, q] == segments[b, k])

    return flex.create_block_mask(may, B, None, T, T, device=segments.device)


@contextmanager
def plainly(model: PreTrainedModel) -> Iterator[None]:
    """Let `model` attend by its ordinary kernels for a while: what is measured once is not compiled."""
    before = model.config._attn_implementation
    if before == FLEX:
        model.config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        model.config._attn_implementation = before


@contextmanager
def by_blocks(model: PreTrainedModel, compiled: bool = True) -> Iterator[None]:
    """Let `model` (of transformers) attend this way for a while; on a GPU only where it is `compiled`."""
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
