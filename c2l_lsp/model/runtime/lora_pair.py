"""The LoRA factors of one projection (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LoraPair:
    """A fp32 [r, in] and B fp32 [out, r] of one projection W [out, in]: ΔW = scale · B A."""

    A: Tensor
    B: Tensor
    scale: float = 1.0
