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
_WIDE_ROWS = 64  # tokens for which a wide head is read from memory together


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


def token_rows(model: BaseModel, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each text: the start token and at most MAX_TOKENS tokens."""
    return [[model.start_id, *model.encode(text)[:MAX_TOKENS]] for text in texts]


def output_gradients(model: BaseModel, texts: Sequence[str]) -> OutputGradients:
    """`output_gradients_in_slices` without pauses."""
    return drain(output_gradients_in_slices(model, texts))


def output_gradients_in_slices(model: BaseModel, texts: Sequence[str]) -> Slices[OutputGradients]:
    """e_i and h_i at every predicted token of some texts, in cooperative steps.

    Each text is a sequence of its own: the start token and at most MAX_TOKENS tokens.
    """
    rows = token_rows(model, texts)
    states = yield from model.hidden_states_in_slices(rows)
    h = torch.cat([state[:-1] for state in states])
    targets = torch.tensor([i for row in rows for i in row[1:]], dtype=torch.long, device=h.device)
    e = yield from _head_gradients(model, h, targets)
    counts = torch.tensor([len(row) - 1 for row in rows], device=h.device)
    return OutputGradients(e, h.float(), torch.arange(len(rows), device=h.device).repeat_interleave(counts), rows)


def _head_gradients(model: BaseModel, hidden: Tensor, targets: Tensor) -> Slices[Tensor]:
    """e = Eᵀ (onehot(y) − softmax(E h)) [N, d] fp32, of hidden states [N, d] and targets y [N]."""
    E = model.head_weight
    if hidden.device.type == "cpu" and E.numel() * _WIDE_ROWS > _STEP_WORK:
        return (yield from _wide_head_gradients(model, hidden, targets))
    out = torch.empty(hidden.shape, dtype=torch.float32, device=hidden.device)
    step = _MAX_ROWS if hidden.device.type != "cpu" else min(_MAX_ROWS, _STEP_WORK // E.numel())
    for start in range(0, len(hidden), step):
        rows = slice(start, start + step)
        p = torch.softmax(model.inference_logits(hidden[rows]).float(), dim=-1)
        out[rows] = E[targets[rows]].float() - (p.to(E.dtype) @ E).float()
        yield
    return out / model.logit_divisor


def _wide_head_gradients(model: BaseModel, hidden: Tensor, targets: Tensor) -> Slices[Tensor]:
    """As `_head_gradients`, for a head so large that few rows fill a step: the steps divide its vocabulary instead.

    Each product reads a part of the head from memory, and that takes as long for _WIDE_ROWS rows as for one.
    """
    E, out = model.head_weight, torch.empty(hidden.shape, dtype=torch.float32)
    parts = range(0, len(E), max(1, _STEP_WORK // (_WIDE_ROWS * E.shape[1])))
    for start in range(0, len(hidden), _WIDE_ROWS):
        rows = hidden[start : start + _WIDE_ROWS]
        p = torch.softmax((yield from _logits_by_parts(model, rows, parts)), dim=-1)
        e = E[targets[start : start + _WIDE_ROWS]].float()
        for low in parts:
            e -= (p[:, low : low + parts.step].to(E.dtype) @ E[low : low + parts.step]).float()
            yield
        out[start : start + _WIDE_ROWS] = e
    return out / model.logit_divisor


def _logits_by_parts(model: BaseModel, rows: Tensor, parts: range) -> Slices[Tensor]:
    """Logits [n, V] fp32 of hidden states [n, d]; a step computes those of a part of the vocabulary."""
    if model.int8_model is not None:
        return model.inference_logits(rows)
    logits = torch.empty(len(rows), model.vocabulary)
    for low in parts:
        logits[:, low : low + parts.step] = rows @ model.head_weight[low : low + parts.step].T
        yield
    return logits.div_(model.logit_divisor)
