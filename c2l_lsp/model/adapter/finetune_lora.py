"""Fits a LoRA to texts by gradient descent: finetuning on request, and the reference for hypernetworks.

y += (alpha / rank) · (x Aᵀ) Bᵀ on all seven projections of every layer; AdamW trains A and B, the base model is frozen.
Texts are joined (each begins with the start token) and cut into windows. Products run in the dtype of the base model;
A, B and the moments of AdamW are fp32. On one machine with one number of threads, equal texts and seeds give the same
adapter bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from c2l_lsp.errors import AdapterError, RequestCancelled
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime.lora_pair import LoraPair

PROJECTIONS = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})
KIND = "sgd"
"""Name of these adapters in state files and results."""

_WARM_UP = 0.1  # share of the steps in which the learning rate rises linearly; then it falls linearly to 0
_CLIP = 1.0  # norm to which gradients are clipped


@dataclass
class _Factors:
    """The trained factors of one projection, fp32: ΔW = scale · B A with A [r, in], B [out, r]; ΔW = B if A is None."""

    A: Tensor | None
    B: Tensor
    scale: float

    @property
    def parameters(self) -> list[Tensor]:
        """The tensors that are trained."""
        return [self.B] if self.A is None else [self.A, self.B]

    def pair(self) -> LoraPair:
        """The factors as a LoRA pair of an adapter, on the CPU."""
        A = torch.eye(self.B.shape[1]) if self.A is None else self.A.detach().cpu()
        return LoraPair(A, self.B.detach().cpu(), self.scale)


def fit_lora(
    model: BaseModel,
    texts: Sequence[str],
    *,
    rate: float,
    rank: int | None = 16,
    alpha: float = 32.0,
    epochs: float = 3.0,
    steps: int | None = None,
    length: int = 512,
    batch: int = 4,
    start: Adapter | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Adapter:
    """Train an adapter of kind "sgd" on `texts`.

    Args:
        rate: peak learning rate.
        rank: rank of the pairs; None trains whole ΔW instead, that is, fine-tunes the projections fully.
        epochs: passes over the texts; ignored if `steps` is given.
        steps: optimiser steps.
        length: tokens per window.
        batch: windows per step.
        start: adapter to continue from. Its pairs are trained at their own ranks; its final map is applied during
            training and, like its kNN memory, stays unchanged.
        progress: called with a line after every step.
        cancelled: checked before every step.

    Raises AdapterError if there is no text, if the model has none of the projections, or if training diverges, and
    RequestCancelled if `cancelled` returns True. The model must not run anything else during the call.
    """
    rows = windows(model, texts, length)
    factors = _full_factors(model) if rank is None else _low_rank_factors(model, rank, alpha / rank, start, seed)
    rng = torch.Generator().manual_seed(seed)
    total = steps if steps is not None else max(1, math.ceil(epochs * len(rows) / batch))
    parameters = [tensor for one in factors.values() for tensor in one.parameters]
    optimiser = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    final = None if start is None or start.final_map is None else start.final_map.to(model.device, model.dtype)
    order = _shuffled(len(rows), rng)
    with _applied(model, factors):
        for step in range(total):
            if cancelled():
                raise RequestCancelled("The training of the adapter was cancelled.")
            for group in optimiser.param_groups:
                group["lr"] = rate * _rate_factor(step, total)
            loss = _accumulate_gradients(model, [rows[next(order)] for _ in range(min(batch, len(rows)))], final)
            norm = nn.utils.clip_grad_norm_(parameters, _CLIP)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if not math.isfinite(loss) or not math.isfinite(float(norm)):
                raise AdapterError(
                    f"The training of the adapter diverged at step {step + 1}; use a lower learning rate."
                )
            progress(f"step {step + 1}/{total}: {loss:.3f} nat/token")
    pairs = {name: one.pair() for name, one in factors.items()}
    return Adapter(model.digest, KIND, pairs=pairs) if start is None else replace(start, kind=KIND, pairs=pairs)


def windows(model: BaseModel, texts: Sequence[str], length: int) -> list[list[int]]:
    """The joined texts in windows of `length` tokens, the last one shorter. Raises AdapterError if there are none."""
    ids = [token for text in texts if text.strip() for token in (model.start_id, *model.encode(text))]
    rows = [ids[begin : begin + length] for begin in range(0, len(ids), length)]
    rows = [row for row in rows if len(row) > 1]
    if not rows:
        raise AdapterError("There is no text to train an adapter on.")
    return rows


def projections(model: BaseModel) -> dict[str, nn.Linear]:
    """The projections of all layers by module name. Raises AdapterError if no module has one of these names."""
    found = {
        name: module
        for name, module in model.lm.named_modules()
        if name.rpartition(".")[2] in PROJECTIONS and isinstance(module, nn.Linear)
    }
    if not found:
        raise AdapterError(
            f"{model.id} has none of the projections that a LoRA needs ({', '.join(sorted(PROJECTIONS))})."
        )
    return found


def _low_rank_factors(
    model: BaseModel, rank: int, scale: float, start: Adapter | None, seed: int
) -> dict[str, _Factors]:
    """A uniform as in PEFT and B zero, so ΔW = 0 before the first step; or the factors of `start`."""
    if start is not None:
        start.check(model)
    rng = torch.Generator().manual_seed(seed)
    factors = {}
    for name, linear in sorted(projections(model).items()):
        inputs, outputs = linear.in_features, linear.out_features
        given = None if start is None else start.pairs.get(name)
        A = (torch.rand(rank, inputs, generator=rng) * 2 - 1) * inputs**-0.5
        pair = given or LoraPair(A, torch.zeros(outputs, rank), scale)
        A, B = (tensor.detach().float().to(model.device).clone().requires_grad_() for tensor in (pair.A, pair.B))
        factors[name] = _Factors(A, B, pair.scale)
    return factors


def _full_factors(model: BaseModel) -> dict[str, _Factors]:
    return {
        name: _Factors(None, torch.zeros(linear.weight.shape, device=model.device, requires_grad=True), 1.0)
        for name, linear in sorted(projections(model).items())
    }


def _shuffled(count: int, rng: torch.Generator) -> Iterator[int]:
    """Endless row indices: every row once in random order, then all again in another order."""
    while True:
        yield from torch.randperm(count, generator=rng).tolist()


def _rate_factor(step: int, total: int) -> float:
    """Learning rate at a step, as a share of the peak: a linear warm-up, then a linear decay to 0."""
    warm = max(1, round(total * _WARM_UP))
    return (step + 1) / warm if step < warm else (total - step) / max(total - warm, 1)


def _accumulate_gradients(model: BaseModel, rows: Sequence[Sequence[int]], final: Tensor | None) -> float:
    """Backpropagate the mean loss of all tokens, one row at a time so that one row of logits is in memory; the loss."""
    tokens = sum(len(row) - 1 for row in rows)
    total = 0.0
    for row in rows:
        ids = torch.tensor([row], device=model.device)
        hidden: Tensor = model.body(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[0]
        if final is not None:
            hidden = hidden + hidden @ final.T
        loss = F.cross_entropy(model.logits(hidden).float(), ids[0, 1:], reduction="sum") / tokens
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


@contextmanager
def _applied(model: BaseModel, factors: dict[str, _Factors]) -> Iterator[None]:
    """Add the products of the factors to the projections inside the block."""
    named = projections(model)
    handles = [named[name].register_forward_hook(_hook(one)) for name, one in factors.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(one: _Factors) -> Any:  # noqa: ANN401 - torch's hook signature
    def add_delta(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0]
        inner = x if one.A is None else F.linear(x, one.A.to(x.dtype))
        return output + F.linear(inner, (one.scale * one.B).to(x.dtype))

    return add_delta
