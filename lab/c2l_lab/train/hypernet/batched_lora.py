"""Runs a frozen base model with a different LoRA for every row of a batch, and computes the loss of each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from c2l_lsp.model.hypernet.lora_head import PARENT_MODULE
from c2l_lsp.model.lm.base import BaseModel

Pairs = Mapping[str, tuple[Tensor, Tensor]]
"""{projection type: (A [N, r, in], B [N, out, r] or [N, layers, out, r])}: one adapter per row."""


def select_rows(pairs: Pairs, rows: Tensor) -> Pairs:
    """The pairs of some rows, by index [M]; an index may occur more than once."""
    return {t: (A[rows], B[rows]) for t, (A, B) in pairs.items()}


def mean_adapter(pairs: Pairs) -> Pairs:
    """The adapter, as one row of rank N·r, whose ΔW is the mean of all rows' ΔW: their pairs side by side."""
    pairs_of_mean = {}
    for t, (A, B) in pairs.items():
        stacked = B.movedim(0, -2)  # [(layers,) out, N, r]
        pairs_of_mean[t] = (A.flatten(0, 1)[None], stacked.flatten(-2)[None] / len(A))
    return pairs_of_mean


def squared_norm(pairs: Pairs, scale: float, layers: int) -> Tensor:
    """‖ΔW‖² [N] of each row over all layers, as tr((BᵀB)(AAᵀ)) without forming ΔW."""
    total: Tensor | None = None
    for A, B in pairs.values():
        inner = A @ A.transpose(-1, -2)  # [N, r, r]
        if B.dim() == 3:
            part = layers * ((B.transpose(-1, -2) @ B) * inner).sum((-1, -2))
        else:
            part = ((B.transpose(-1, -2) @ B) * inner[:, None]).sum((-1, -2, -3))
        total = part if total is None else total + part
    assert total is not None  # noqa: S101 - a head has at least one type
    return scale**2 * total


@contextmanager
def apply_pairs(model: BaseModel, pairs: Pairs, scale: float) -> Iterator[None]:
    """Inside the block, row n of a batch runs with pair n. Products are in the dtype of the base model."""
    handles = []
    for i, layer in enumerate(model.lm.base_model.layers):
        for t, (A, B) in pairs.items():
            module = layer.get_submodule(f"{PARENT_MODULE[t]}.{t}")
            scaled = scale * (B if B.dim() == 3 else B[:, i])
            handles.append(module.register_forward_hook(_hook(A, scaled)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(A: Tensor, B: Tensor) -> Any:  # noqa: ANN401 - torch's hook signature
    def add_delta(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0]
        return output + (x @ A.to(x.dtype).transpose(-1, -2)) @ B.to(x.dtype).transpose(-1, -2)

    return add_delta


def next_token_logits(model: BaseModel, ids: Tensor, prefix: int = 0) -> Tensor:
    """Logits fp32 [N, T − prefix, V] for the token after each of ids [N, T] but the first `prefix`."""
    hidden: Tensor = model.body(input_ids=ids, use_cache=False).last_hidden_state
    return model.logits(hidden[:, prefix:]).float()


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Loss [N, T] in nat, of logits [N, T, V] at targets [N, T]."""
    return cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)


@torch.inference_mode()
def row_losses(
    model: BaseModel, ids: Tensor, pairs: Pairs | None, scale: float, *, prefix: int = 0, batch: int = 8
) -> Tensor:
    """Mean loss [N] of each row of ids [N, T + 1] with its own pair, with a single pair for all rows, or without.

    The first `prefix` positions are not scored.
    """
    losses = []
    for start in range(0, len(ids), batch):
        rows = ids[start : start + batch].long().to(model.device)
        if pairs is None:
            logits = next_token_logits(model, rows[:, :-1], prefix)
        else:
            single = len(next(iter(pairs.values()))[0]) == 1
            chosen = torch.arange(start, start + len(rows), device=model.device)
            with apply_pairs(model, pairs if single else select_rows(pairs, chosen), scale):
                logits = next_token_logits(model, rows[:, :-1], prefix)
        losses.append(token_losses(logits, rows[:, 1 + prefix :]).mean(1).cpu())
    return torch.cat(losses)
