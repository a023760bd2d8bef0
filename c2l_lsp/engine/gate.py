"""The gate every adapter passes before it goes live: finite, bounded, and no worse than no adapter on held-out text.

A few whole files are left out of the state for the test only (their readings are subtracted, an exact operation), the
adapter of what remains is scored on them at several strengths, and the best strength is used; 0 keeps it back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from c2l_lsp.model.base import BaseModel
from c2l_lsp.model.lora import Adapter

STRENGTHS = (1.0, 0.7, 0.4, 0.2)
MAX_TOKENS = 3000
"""Held-out positions that are scored: enough to tell a loss of 0.01 nat from noise of the same text."""

MAX_SHARE = 0.25
"""At most this share of the folder's files is held out; a folder of fewer than 4 files is not tested."""


@dataclass(frozen=True)
class Verdict:
    """`strength` to use (0: kept back), the held-out loss change at it in nat/token, positions scored, and a reason."""

    strength: float
    delta: float
    tokens: int
    reason: str = ""


def held_out(files: Mapping[str, Sequence[bytes]], digests: Mapping[str, bytes]) -> list[str]:
    """The files to hold out: those of the smallest content hash, a pure function of the snapshot."""
    candidates = sorted((path for path in files if files[path]), key=lambda path: (digests[path], path))
    return candidates[: min(8, int(len(candidates) * MAX_SHARE))]


def refuse(adapter: Adapter, limit: float) -> str:
    """Why an adapter must not go live whatever it scores; "" if it may."""
    norm = adapter.norm
    if not torch.isfinite(torch.tensor(norm)):
        return "it holds numbers that are not finite"
    if norm > limit:
        return f"its norm {norm:.1f} is above the limit {limit:.1f}"
    return ""


@torch.inference_mode()
def judge_final_map(model: BaseModel, C: Tensor | None, hidden: Tensor, targets: Tensor) -> Verdict:
    """Best strength of a final map C [d, d] on held-out hidden states [N, d] and next tokens [N]."""
    if C is None or len(hidden) == 0:
        return Verdict(1.0, 0.0, 0)
    hidden = hidden[:MAX_TOKENS].to(model.device)
    targets = targets[:MAX_TOKENS].to(model.device)
    bare = _loss(model, hidden, targets)
    step = (hidden.float() @ C.to(model.device).T).to(hidden.dtype)
    losses = {strength: _loss(model, hidden + strength * step, targets) for strength in STRENGTHS}
    best = min(losses, key=lambda strength: losses[strength])
    delta = losses[best] - bare
    if delta >= 0:
        return Verdict(0.0, delta, len(hidden), f"it is {delta:+.3f} nat/token worse than none on held-out files")
    return Verdict(best, delta, len(hidden))


def _loss(model: BaseModel, hidden: Tensor, targets: Tensor) -> float:
    total = 0.0
    for start in range(0, len(hidden), 1024):
        rows = slice(start, start + 1024)
        logits = model.logits(hidden[rows]).float()
        total += float(torch.nn.functional.cross_entropy(logits, targets[rows], reduction="sum"))
    return total / max(len(hidden), 1)
