"""Muon's iteration in fp32 makes the step that PyTorch's in bf16 makes, to the rounding of bf16."""

from __future__ import annotations

import pytest
import torch
from c2l_lab.train.base import muon
from torch import Tensor
from torch.optim import _muon


def stepped(kind: type[torch.optim.Muon], shape: tuple[int, int]) -> Tensor:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(shape))
    optimiser = kind([weight], lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        weight.grad = torch.randn(shape)
        optimiser.step()
    return weight.detach()


@pytest.mark.parametrize("shape", [(24, 64), (64, 24), (32, 32)])
def test_it_is_the_step_of_pytorch(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = stepped(torch.optim.Muon, shape)
    theirs = _muon._zeropower_via_newtonschulz
    monkeypatch.setattr(muon, "multiplies_bf16", lambda device: False)
    got = stepped(muon.Muon, shape)
    assert _muon._zeropower_via_newtonschulz is theirs, "put back"
    assert not torch.equal(got, expected), "another number format was used"
    assert float((got - expected).norm() / expected.norm()) < 0.05
    singular = torch.linalg.svdvals(muon.orthogonalised(torch.randn(shape), (3.4445, -4.775, 2.0315), 5, 1e-7))
    assert float(singular.min()) > 0.3 and float(singular.max()) < 1.4


def test_where_bf16_is_multiplied_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "multiplies_bf16", lambda device: True)
    assert torch.equal(stepped(muon.Muon, (24, 64)), stepped(torch.optim.Muon, (24, 64)))
