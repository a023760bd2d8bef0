"""The base model's own error on a text: at every position the descent direction of the loss at the head's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from c2l_lsp.model.hypernet.prior import MAX_TOKENS
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime.cooperative import Slices, drain

_ROWS = 512  # positions whose logits are held at once: 2048 of them took 200 MB with their softmax
_WORK = 1 << 28  # elements of the head that a slice on a CPU multiplies: some 10 ms


@dataclass(frozen=True)
class OutputGradients:
    """Per-position quantities of a batch: e and h [N, d] fp32, and the piece each position belongs to [N]; the token
    ids of each piece, start token first."""

    e: Tensor
    h: Tensor
    chunk: Tensor
    ids: list[list[int]]


def output_gradients(model: BaseModel, texts: Sequence[str], skip: int = 0) -> OutputGradients:
    """As `erring`, in one go."""
    return drain(output_gradients_in_slices(model, texts, skip))


def output_gradients_in_slices(model: BaseModel, texts: Sequence[str], skip: int = 0) -> Slices[OutputGradients]:
    """e_i and h_i of every predicted position of some texts (each on its own, ≤ MAX_TOKENS tokens, start token first).

    `skip` leaves out the first positions of each text.
    """
    rows = [[model.start_id, *model.encode(text)[:MAX_TOKENS]] for text in texts]
    states = yield from model.hidden_states_in_slices(rows)
    h = torch.cat([state[skip:-1] for state in states])
    targets = torch.tensor([i for row in rows for i in row[skip + 1 :]], dtype=torch.long, device=h.device)
    e = yield from _head_errors(model, h, targets)
    counts = torch.tensor([max(0, len(row) - 1 - skip) for row in rows], device=h.device)
    return OutputGradients(e, h.float(), torch.arange(len(rows), device=h.device).repeat_interleave(counts), rows)


def _head_errors(model: BaseModel, hidden: Tensor, targets: Tensor) -> Slices[Tensor]:
    """e = Eᵀ(onehot(y) − softmax(E h)) for hidden [N, d] and targets [N]; [N, d] fp32."""
    E = model.head_weight
    out = torch.empty(hidden.shape, dtype=torch.float32, device=hidden.device)
    step = _ROWS if hidden.device.type != "cpu" else min(_ROWS, max(8, _WORK // E.numel()))
    for start in range(0, len(hidden), step):
        rows = slice(start, start + step)
        p = torch.softmax(model.inference_logits(hidden[rows]).float(), dim=-1)
        out[rows] = E[targets[rows]].float() - (p.to(E.dtype) @ E).float()
        yield
    return out / model.logit_divisor
