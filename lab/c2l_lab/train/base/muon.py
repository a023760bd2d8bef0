"""Muon as PyTorch has it, with its Newton–Schulz iteration in fp32 where the CPU does not multiply bf16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import _muon

from c2l_lab.train.base.objective import multiplies_bf16

_ITERATION = "_zeropower_via_newtonschulz"


class Muon(torch.optim.Muon):
    """`torch.optim.Muon`. On a CPU that emulates bf16 its iteration takes thirty times as long as in fp32, and was nine
    tenths of a training step."""

    def step(self, closure: Callable[[], float] | None = None) -> Any:  # noqa: ANN401
        """One step."""
        device = self.param_groups[0]["params"][0].device
        if multiplies_bf16(device) or not hasattr(_muon, _ITERATION):
            return super().step(closure)  # type: ignore[no-untyped-call]
        theirs = getattr(_muon, _ITERATION)
        setattr(_muon, _ITERATION, orthogonalised)  # it has no other seam
        try:
            return super().step(closure)  # type: ignore[no-untyped-call]
        finally:
            setattr(_muon, _ITERATION, theirs)


def orthogonalised(grad: Tensor, ns_coefficients: tuple[float, float, float], ns_steps: int, eps: float) -> Tensor:
    """UVᵀ of a gradient [m, n], about, by `ns_steps` quintic Newton–Schulz steps in fp32 (Jordan et al. 2024)."""
    a, b, c = ns_coefficients
    tall = grad.size(0) > grad.size(1)
    X = (grad.T if tall else grad).float()
    X = X / X.norm().clamp(min=eps)
    for _ in range(ns_steps):
        gram = X @ X.T
        X = torch.addmm(X, torch.addmm(gram, gram, gram, beta=b, alpha=c), X, beta=a)
    return X.T if tall else X
