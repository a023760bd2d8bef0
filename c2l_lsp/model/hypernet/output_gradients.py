"""Negative gradients of the base model's loss with respect to its final hidden states, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from c2l_lsp.cooperative import Slices, drain
from c2l_lsp.model.hypernet.prior import MAX_TOKENS
from c2l_lsp.model.lm.base import BaseModel

_MAX_ROWS = 512  # tokens whose logits are held at once; 2048 took 200 MB with their softmax
_STEP_WORK = 1 << 28  # multiplications with head weights per cooperative step on a CPU: about 10 ms


@dataclass(frozen=True)
class OutputGradients:
    """Gradients e and hidden states h [N, d] fp32 of the N predicted tokens of a batch of texts.

    `chunk` [N] is the index of the text that a token belongs to; `ids` are the token ids of each text, start token
    first.
    """

    e: Tensor
    h: Tensor
    chunk: Tensor
    ids: list[list[int]]


def output_gradients(model: BaseModel, texts: Sequence[str]) -> OutputGradients:
    """`output_gradients_in_slices` without pauses."""
    return drain(output_gradients_in_slices(model, texts))


def output_gradients_in_slices(model: BaseModel, texts: Sequence[str]) -> Slices[OutputGradients]:
    """e_i and h_i at every predicted token of some texts, in cooperative steps.

    Each text is a sequence of its own: the start token and at most MAX_TOKENS tokens.
    """
    rows = [[model.start_id, *model.encode(text)[:MAX_TOKENS]] for text in texts]
    states = yield from model.hidden_states_in_slices(rows)
    h = torch.cat([state[:-1] for state in states])
    targets = torch.tensor([i for row in rows for i in row[1:]], dtype=torch.long, device=h.device)
    e = yield from _head_gradients(model, h, targets)
    counts = torch.tensor([len(row) - 1 for row in rows], device=h.device)
    return OutputGradients(e, h.float(), torch.arange(len(rows), device=h.device).repeat_interleave(counts), rows)


def _head_gradients(model: BaseModel, hidden: Tensor, targets: Tensor) -> Slices[Tensor]:
    """e = Eᵀ (onehot(y) − softmax(E h)) [N, d] fp32, of hidden states [N, d] and targets y [N]."""
    E = model.head_weight
    out = torch.empty(hidden.shape, dtype=torch.float32, device=hidden.device)
    step = _MAX_ROWS if hidden.device.type != "cpu" else min(_MAX_ROWS, max(8, _STEP_WORK // E.numel()))
    for start in range(0, len(hidden), step):
        rows = slice(start, start + step)
        p = torch.softmax(model.inference_logits(hidden[rows]).float(), dim=-1)
        out[rows] = E[targets[rows]].float() - (p.to(E.dtype) @ E).float()
        yield
    return out / model.logit_divisor
