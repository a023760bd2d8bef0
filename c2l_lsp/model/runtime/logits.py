"""Logits of a few positions: their log-sum-exp and likeliest tokens, and log-odds added to single ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from c2l_lsp.model.runtime.kernel import Int32Array

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class LogitSummary:
    """Of logits [n, V]: their log-sum-exp [n], the likeliest tokens [n] and the probabilities of these [n]."""

    log_sum_exp: Float32Array
    tokens: NDArray[np.int64]
    top_probabilities: Float32Array


def summarize(logits: Tensor) -> LogitSummary:
    """On a CPU by numpy: for the one row of a decode step its calls cost a third of torch's."""
    if logits.device.type != "cpu":
        best, token = logits.max(-1)
        norm = torch.logsumexp(logits, -1)
        return LogitSummary(norm.cpu().numpy(), token.cpu().numpy(), (best - norm).exp().cpu().numpy())
    plain = logits.numpy()
    tokens = plain.argmax(1)
    best = plain[np.arange(len(plain)), tokens]
    with np.errstate(invalid="ignore"):
        top_probabilities = 1 / np.exp(plain - best[:, None]).sum(1)
    return LogitSummary(best - np.log(top_probabilities), tokens, top_probabilities)


def logaddexp_at(out: Tensor, rows: list[int], tokens: Int32Array, raised: NDArray[np.float64]) -> None:
    """Add log-odds to logits [n, V] fp32, in place: out[row, token] = logaddexp(out[row, token], raised)."""
    if out.device.type == "cpu":
        plain = out.numpy()
        with np.errstate(invalid="ignore"):  # no numbers stay none: whoever uses them says so
            plain[rows, tokens] = np.logaddexp(plain[rows, tokens], raised)
        return
    at = torch.tensor(rows, device=out.device), torch.from_numpy(tokens).long().to(out.device)
    out[at] = torch.logaddexp(out[at], torch.from_numpy(raised).float().to(out.device))
