"""A LoRA of some texts by gradient descent: the expensive way to an adapter, which the cheap ones are measured against.

y += (alpha / rank) · (x Aᵀ) Bᵀ on all seven projections of every layer, AdamW on A and B alone, the base frozen and
shared. Texts are joined (each begins with the start token) and cut into windows; the products run in the base's own
number format, A and B and their moments are fp32. The same texts and seed give the same adapter, bit for bit, on one
machine with one number of threads.
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
_WARM_UP = 0.1  # share of the steps in which the rate rises to its height; then it falls to nothing, straight
_CLIP = 1.0


@dataclass
class _Factors:
    """What is trained of one projection: A [r, in], B [out, r], fp32; ΔW = scale · B A. Without A, ΔW is B itself."""

    A: Tensor | None
    B: Tensor
    scale: float

    @property
    def trained(self) -> list[Tensor]:
        """The tensors that learn."""
        return [self.B] if self.A is None else [self.A, self.B]

    def pair(self) -> LoraPair:
        """As it stands in an adapter."""
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
    say: Callable[[str], None] = lambda line: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Adapter:
    """An adapter of kind "sgd" fitted to `texts`; `steps` of `batch` windows of `length` tokens, or `epochs` over them.

    `start` is an adapter of this base to go on from: its pairs keep their ranks and are trained, its final map stays in
    place as it is, and what it recalls stays with it. `rank` None trains whole ΔW instead: full fine-tuning of the
    projections. AdapterError if there is no text or the model has none of the projections; RequestCancelled if
    `cancelled` says so, at most one step later.
    The model must not be used for anything else meanwhile.
    """
    rows = windows(model, texts, length)
    factors = _whole(model) if rank is None else _initial(model, rank, alpha / rank, start, seed)
    dice = torch.Generator().manual_seed(seed)
    total = steps if steps is not None else max(1, math.ceil(epochs * len(rows) / batch))
    parameters = [tensor for one in factors.values() for tensor in one.trained]
    optimiser = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    final = None if start is None or start.final_map is None else start.final_map.to(model.device, model.dtype)
    order = _order(len(rows), dice)
    with _plugged(model, factors):
        for step in range(total):
            if cancelled():
                raise RequestCancelled("The training of the adapter was cancelled.")
            for group in optimiser.param_groups:
                group["lr"] = rate * _share(step, total)
            loss = _gradients(model, [rows[next(order)] for _ in range(min(batch, len(rows)))], final)
            norm = nn.utils.clip_grad_norm_(parameters, _CLIP)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if not math.isfinite(loss) or not math.isfinite(float(norm)):
                raise AdapterError(f"The adapter's training diverged at step {step + 1}; lower its rate.")
            say(f"step {step + 1}/{total}: {loss:.3f} nat/token")
    pairs = {name: one.pair() for name, one in factors.items()}
    return Adapter(model.digest, KIND, pairs=pairs) if start is None else replace(start, kind=KIND, pairs=pairs)


def windows(model: BaseModel, texts: Sequence[str], length: int) -> list[list[int]]:
    """The joined texts as rows of `length` tokens; the last one is shorter. AdapterError without any token to learn."""
    ids = [token for text in texts if text.strip() for token in (model.start_id, *model.encode(text))]
    rows = [ids[begin : begin + length] for begin in range(0, len(ids), length)]
    rows = [row for row in rows if len(row) > 1]
    if not rows:
        raise AdapterError("There is no text to train an adapter on.")
    return rows


def projections(model: BaseModel) -> dict[str, nn.Linear]:
    """The layers' projections by module name. AdapterError for a model that names them otherwise."""
    found = {
        name: module
        for name, module in model.lm.named_modules()
        if name.rpartition(".")[2] in PROJECTIONS and isinstance(module, nn.Linear)
    }
    if not found:
        raise AdapterError(
            f"{model.id} has none of the projections a LoRA is put on ({', '.join(sorted(PROJECTIONS))})."
        )
    return found


def _initial(model: BaseModel, rank: int, scale: float, start: Adapter | None, seed: int) -> dict[str, _Factors]:
    """A uniform as in peft, B zero, so that the first step starts from the bare model (or from `start`)."""
    if start is not None:
        start.check(model)
    dice = torch.Generator().manual_seed(seed)
    factors = {}
    for name, linear in sorted(projections(model).items()):
        wide, high = linear.in_features, linear.out_features
        given = None if start is None else start.pairs.get(name)
        A = (torch.rand(rank, wide, generator=dice) * 2 - 1) * wide**-0.5
        pair = given or LoraPair(A, torch.zeros(high, rank), scale)
        A, B = (tensor.detach().float().to(model.device).clone().requires_grad_() for tensor in (pair.A, pair.B))
        factors[name] = _Factors(A, B, pair.scale)
    return factors


def _whole(model: BaseModel) -> dict[str, _Factors]:
    return {
        name: _Factors(None, torch.zeros(linear.weight.shape, device=model.device, requires_grad=True), 1.0)
        for name, linear in sorted(projections(model).items())
    }


def _order(count: int, dice: torch.Generator) -> Iterator[int]:
    """Indices for ever: every row once, in a drawn order, then again in another one."""
    while True:
        yield from torch.randperm(count, generator=dice).tolist()


def _share(step: int, total: int) -> float:
    """Share of the full rate at a step."""
    warm = max(1, round(total * _WARM_UP))
    return (step + 1) / warm if step < warm else (total - step) / max(total - warm, 1)


def _gradients(model: BaseModel, rows: Sequence[Sequence[int]], final: Tensor | None) -> float:
    """Add up the gradients of the mean loss over the rows' tokens, row by row to hold one row's logits; the loss."""
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
def _plugged(model: BaseModel, factors: dict[str, _Factors]) -> Iterator[None]:
    """Have the projections add their factors' product while the block runs."""
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
