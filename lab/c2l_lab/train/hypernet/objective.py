"""The training loss: prediction of targets, and optional terms weighted by the recipe.

| term | purpose |
|---|---|
| contrast | the own adapter must predict better than those of other repositories (InfoNCE) |
| norm | keeps ‖ΔW‖² small |
| kl | distils from the base model with related code of the repository in its prompt |
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from c2l_lab.train.hypernet.batched_lora import (
    Pairs,
    apply_pairs,
    next_token_logits,
    select_rows,
    squared_norm,
    token_losses,
)
from c2l_lab.train.hypernet.recipe import Recipe
from c2l_lsp.model.lm.base import BaseModel


def loss(
    model: BaseModel, recipe: Recipe, pairs: Pairs, scale: float, layers: int, ids: Tensor, *,
    compare: bool, related: Tensor | None,
) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
    """The loss of a batch and its terms. Row n of ids [N, T + 1] is a target in the repository of pair n.
    Its first `recipe.prefix` positions are not scored.

    `compare` adds the contrast term. `related` [N, K] is code of the same repository, which the teacher of the kl term
    reads before each row; None leaves the term out.
    """
    with apply_pairs(model, pairs, scale):
        logits = next_token_logits(model, ids[:, :-1], recipe.prefix)
    tokens = token_losses(logits, ids[:, 1 + recipe.prefix :])
    own = tokens.mean(1)  # [N]
    total, parts = own.mean(), {"own": float(own.detach().mean())}
    if recipe.norm:
        norm = squared_norm(pairs, scale, layers).mean()
        total, parts["norm"] = total + recipe.norm * norm, float(norm.detach())
    if compare and recipe.contrast:
        contrast = contrast_loss(model, recipe, pairs, scale, ids, own)
        total, parts["contrast"] = total + recipe.contrast * contrast, float(contrast.detach())
    if recipe.kl and related is not None:
        kl = distillation_loss(model, ids, related, logits, tokens, recipe.prefix)
        total, parts["kl"] = total + recipe.kl * kl, float(kl.detach())
    return total, parts


def contrast_loss(model: BaseModel, recipe: Recipe, pairs: Pairs, scale: float, ids: Tensor, own: Tensor) -> Tensor:
    """InfoNCE over the mean loss of each row with its own adapter and with `others` adapters of other rows."""
    count = len(own)
    columns = [own]
    for shift in range(1, recipe.others + 1):
        others = (torch.arange(count, device=own.device) + shift) % count
        with apply_pairs(model, select_rows(pairs, others), scale):
            logits = next_token_logits(model, ids[:, :-1], recipe.prefix)
            columns.append(token_losses(logits, ids[:, 1 + recipe.prefix :]).mean(1))
    scores = -torch.stack(columns, dim=1) / recipe.temperature
    return cross_entropy(scores, torch.zeros(count, dtype=torch.long, device=own.device))


def distillation_loss(
    model: BaseModel, ids: Tensor, related: Tensor, logits: Tensor, tokens: Tensor, prefix: int = 0
) -> Tensor:
    """Mean KL(teacher ‖ student) over the tokens that the teacher, which reads `related` first, predicts better."""
    with torch.no_grad():
        informed = next_token_logits(model, torch.cat([related, ids[:, :-1]], dim=1), related.shape[1] + prefix)
        better = token_losses(informed, ids[:, 1 + prefix :]) < tokens
    kl = kl_div(log_softmax(logits, -1), softmax(informed, -1), reduction="none").sum(-1)
    return (kl * better).sum() / better.sum().clamp(min=1)
