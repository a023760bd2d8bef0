"""Muon's fp32 iteration gives the same step as PyTorch's bf16 iteration, up to bf16 rounding."""

from __future__ import annotations

import pytest
import torch
from c2l_lab.train.base import muon
from torch import Tensor
from torch.optim import _muon


def weight_after_steps(kind: type[torch.optim.Muon], shape: tuple[int, int]) -> Tensor:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(shape))
    optimiser = kind([weight], lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        weight.grad = torch.randn(shape)
        optimiser.step()
    return weight.detach()


@pytest.mark.parametrize("shape", [(24, 64), (64, 24), (32, 32)])
def test_step_equals_pytorch_up_to_bf16_rounding(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = weight_after_steps(torch.optim.Muon, shape)
    original = _muon._zeropower_via_newtonschulz
    monkeypatch.setattr(muon, "supports_bf16", lambda device: False)
    got = weight_after_steps(muon.Muon, shape)
    assert _muon._zeropower_via_newtonschulz is original, "PyTorch's function is restored"
    assert not torch.equal(got, expected), "the fp32 iteration was used"
    assert float((got - expected).norm() / expected.norm()) < 0.05
    singular = torch.linalg.svdvals(muon.newton_schulz(torch.randn(shape), (3.4445, -4.775, 2.0315), 5, 1e-7))
    assert float(singular.min()) > 0.3 and float(singular.max()) < 1.4


def test_bf16_is_used_where_it_is_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "supports_bf16", lambda device: True)
    assert torch.equal(weight_after_steps(muon.Muon, (24, 64)), weight_after_steps(torch.optim.Muon, (24, 64)))
