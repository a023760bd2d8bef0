"""Adapters merged into the weights for scoring, and linear combinations of adapters.

A combination is dense: it stores ΔW itself, because the ranks of many pairs add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime.lora_pair import LoraPair


@contextmanager
def merged(model: BaseModel, adapter: Adapter | None) -> Iterator[None]:
    """Within the block, every W that has a pair is W + s·B A, rounded as in the engine."""
    original: dict[str, Tensor] = {}
    try:
        for name, pair in (adapter.pairs if adapter else {}).items():
            linear = model.lm.get_submodule(name)
            original[name] = linear.weight.data
            delta = (pair.scale * (pair.B.float() @ pair.A.float())).to(model.device)
            linear.weight.data = (original[name].float() + delta).to(original[name].dtype)
        yield
    finally:
        for name, weight in original.items():
            model.lm.get_submodule(name).weight.data = weight


def dense(adapter: Adapter) -> dict[str, Tensor]:
    """ΔW of every projection by name, and the final map under ""."""
    found = {name: pair.scale * (pair.B.float() @ pair.A.float()) for name, pair in adapter.pairs.items()}
    if adapter.final_map is not None:
        found[""] = adapter.final_map.float()
    return found


def total(adapters: Sequence[Adapter]) -> dict[str, Tensor]:
    """The sum of the adapters' ΔW, added in order."""
    sums: dict[str, Tensor] = {}
    for adapter in adapters:
        for name, delta in dense(adapter).items():
            sums[name] = sums[name] + delta if name in sums else delta.clone()
    return sums


def combine(parts: Sequence[tuple[float, dict[str, Tensor]]], base: str, kind: str) -> Adapter:
    """The adapter Σ weight · ΔW."""
    sums: dict[str, Tensor] = {}
    for weight, deltas in parts:
        for name, delta in deltas.items():
            sums[name] = sums[name] + weight * delta if name in sums else weight * delta
    final = sums.pop("", None)
    return Adapter(base, kind, final, {name: LoraPair(torch.eye(d.shape[1]), d) for name, d in sums.items()})


def cosine(a: Adapter, b: Adapter) -> float:
    """The cosine of two adapters' ΔW, the final map included; 0 if one of them is zero."""
    product = 0.0
    if a.final_map is not None and b.final_map is not None:
        product += float((a.final_map.float() * b.final_map.float()).sum())
    for name in a.pairs.keys() & b.pairs.keys():  # ⟨B₁A₁, B₂A₂⟩ = tr((B₁ᵀB₂)(A₂A₁ᵀ)), without forming either
        p, q = a.pairs[name], b.pairs[name]
        product += p.scale * q.scale * float(((p.B.T @ q.B) * (q.A @ p.A.T).T).sum())
    size = a.norm * b.norm
    return product / size if size else 0.0
