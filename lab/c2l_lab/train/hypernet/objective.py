"""What is lowered: loss of own targets, own against others' adapters, the adapters' size, a better-informed base."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from c2l_lab.train.hypernet.batched_lora import Pairs, logits_of, plugged, rows_of, squared_norm, token_losses
from c2l_lab.train.hypernet.recipe import Recipe
from c2l_lsp.model.lm.base import BaseModel


def loss(
    model: BaseModel, recipe: Recipe, pairs: Pairs, scale: float, layers: int, ids: Tensor, *,
    compare: bool, related: Tensor | None,
) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
    """The loss of a batch and its parts. Row n of ids [N, T + 1] is a target of the repository of pair n.

    `compare`: also run each row under other rows' adapters. `related` [N, K]: code of the same repository to put before
    each row for the teacher, or None.
    """
    with plugged(model, pairs, scale):
        logits = logits_of(model, ids[:, :-1])
    tokens = token_losses(logits, ids[:, 1:])
    own = tokens.mean(1)  # [N]
    total, parts = own.mean(), {"own": float(own.detach().mean())}
    if recipe.norm:
        norm = squared_norm(pairs, scale, layers).mean()
        total, parts["norm"] = total + recipe.norm * norm, float(norm.detach())
    if compare and recipe.contrast:
        against = own_against_others(model, recipe, pairs, scale, ids, own)
        total, parts["contrast"] = total + recipe.contrast * against, float(against.detach())
    if recipe.kl and related is not None:
        far = divergence(model, ids, related, logits, tokens)
        total, parts["kl"] = total + recipe.kl * far, float(far.detach())
    return total, parts


def own_against_others(
    model: BaseModel, recipe: Recipe, pairs: Pairs, scale: float, ids: Tensor, own: Tensor
) -> Tensor:
    """InfoNCE over each row's mean loss under its own and under `others` other rows' adapters."""
    count = len(own)
    columns = [own]
    for shift in range(1, recipe.others + 1):
        others = (torch.arange(count, device=own.device) + shift) % count
        with plugged(model, rows_of(pairs, others), scale):
            columns.append(token_losses(logits_of(model, ids[:, :-1]), ids[:, 1:]).mean(1))
    scores = -torch.stack(columns, dim=1) / recipe.temperature
    return cross_entropy(scores, torch.zeros(count, dtype=torch.long, device=own.device))


def divergence(model: BaseModel, ids: Tensor, related: Tensor, logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean KL(teacher ‖ student) over the tokens at which the teacher, which sees related code, does better."""
    with torch.no_grad():
        informed = logits_of(model, torch.cat([related, ids[:, :-1]], dim=1))[:, related.shape[1] :]
        better = token_losses(informed, ids[:, 1:]) < tokens
    far = kl_div(log_softmax(logits, -1), softmax(informed, -1), reduction="none").sum(-1)
    return (far * better).sum() / better.sum().clamp(min=1)
