"""PyTorch's Muon optimiser with the Newton–Schulz iteration in fp32 on CPUs without bf16 instructions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import _muon

from c2l_lab.train.base.objective import supports_bf16

_ITERATION = "_zeropower_via_newtonschulz"


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` that avoids emulated bf16.

    On a CPU that emulates bf16, PyTorch's iteration takes thirty times as long as in fp32 and 90 % of a training step.
    """

    def step(self, closure: Callable[[], float] | None = None) -> Any:  # noqa: ANN401
        """Perform one optimisation step."""
        device = self.param_groups[0]["params"][0].device
        if supports_bf16(device) or not hasattr(_muon, _ITERATION):
            return super().step(closure)  # type: ignore[no-untyped-call]
        original = getattr(_muon, _ITERATION)
        setattr(_muon, _ITERATION, newton_schulz)  # PyTorch offers no other way to replace it
        try:
            return super().step(closure)  # type: ignore[no-untyped-call]
        finally:
            setattr(_muon, _ITERATION, original)


def newton_schulz(grad: Tensor, ns_coefficients: tuple[float, float, float], ns_steps: int, eps: float) -> Tensor:
    """Return approximately UVᵀ of a gradient [m, n] = UΣVᵀ.

    Uses `ns_steps` quintic Newton–Schulz steps in fp32 (Jordan et al. 2024, "Muon").
    """
    a, b, c = ns_coefficients
    tall = grad.size(0) > grad.size(1)
    X = (grad.T if tall else grad).float()
    X = X / X.norm().clamp(min=eps)
    for _ in range(ns_steps):
        gram = X @ X.T
        X = torch.addmm(X, torch.addmm(gram, gram, gram, beta=b, alpha=c), X, beta=a)
    return X.T if tall else X
