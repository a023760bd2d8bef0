"""The factors of one projection of an adapter."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LoraPair:
    """LoRA factors of one projection: A [r, in], B [out, r], fp32; ΔW = scale · B A."""

    A: Tensor
    B: Tensor
    scale: float = 1.0
