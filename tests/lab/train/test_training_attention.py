from __future__ import annotations

import pytest
import torch
from c2l_lab.train.base.attention import BLOCK, block_attention, block_mask, flex_attention
from c2l_lab.train.base.objective import attention_mask_of
from torch.nn.functional import scaled_dot_product_attention


def test_block_attention_and_its_gradients_equal_plain_attention() -> None:
    """Covers rows longer than a block and not a multiple of it, several files per row, and grouped query heads."""
    torch.manual_seed(0)
    T = 2 * BLOCK + 37
    q, k, v = (torch.randn(2, heads, T, 16, requires_grad=True) for heads in (4, 2, 2))
    segments = torch.tensor([[0] * 100 + [1] * (T - 140) + [2] * 40, [0] * T])
    mask = attention_mask_of(segments)
    ours, _ = block_attention(torch.nn.Identity(), q, k, v, mask)
    plain = scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-4)
    weight = torch.randn_like(plain)
    for mine, theirs in zip(
        torch.autograd.grad((ours * weight).sum(), (q, k, v)),
        torch.autograd.grad((plain * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@torch.no_grad()  # it has no gradient on a CPU
def test_flex_attention_equals_plain_attention() -> None:
    torch.manual_seed(0)
    T = 2 * BLOCK + 37
    q, k, v = (torch.randn(2, heads, T, 16) for heads in (4, 2, 2))
    segments = torch.tensor([[0] * 100 + [1] * (T - 140) + [2] * 40, [0] * T])
    ours, _ = flex_attention(torch.nn.Identity(), q, k, v, block_mask(segments))
    plain = scaled_dot_product_attention(q, k, v, attn_mask=attention_mask_of(segments), enable_gqa=True).transpose(
        1, 2
    )
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-4)
