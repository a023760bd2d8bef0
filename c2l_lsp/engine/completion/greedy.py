"""Greedy choice of tokens from logits, limited to the tokens that agree with a forced prefix (token healing)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from c2l_lsp.model.lm.token_healing import TokenBytes
from c2l_lsp.model.runtime import kernel

_CACHED_PREFIXES = 64  # while a word is typed, every key gives a forced prefix that is one letter longer


@dataclass(frozen=True)
class DecodedToken:
    """A token id and its log-probability (nat) among the allowed tokens."""

    token: int
    logprob: float


class GreedySelector:
    """Selects tokens of one vocabulary. Without `token_bytes` a forced prefix is ignored."""

    def __init__(self, token_bytes: TokenBytes | None) -> None:
        self._token_bytes = token_bytes
        self._allowed: OrderedDict[bytes, Tensor | None] = OrderedDict()

    def select(self, logits: Tensor, forced_prefix: bytes, first: int | None) -> list[DecodedToken]:
        """Return the most likely token of each row of logits [n, vocabulary]. `first` replaces the first row's."""
        allowed = self._allowed_tokens(forced_prefix)
        scores = logits.float() if allowed is None else logits.float()[:, allowed]
        best, norms = kernel.argmax_and_logsumexp(scores) or _best(scores)
        tokens = best if allowed is None else allowed[best].tolist()
        selected = [
            DecodedToken(token, float(scores[row, column]) - norm)
            for row, (token, column, norm) in enumerate(zip(tokens, best, norms, strict=True))
        ]
        if first is not None:
            is_allowed = allowed is None or bool((allowed == first).any())
            selected[0] = DecodedToken(first, float(logits[0, first]) - norms[0] if is_allowed else -torch.inf)
        return selected

    def top_tokens(self, logits: Tensor, forced_prefix: bytes, count: int) -> list[int]:
        """Return the most likely tokens by logits [vocabulary], best first; fewer if fewer are allowed."""
        allowed = self._allowed_tokens(forced_prefix)
        scores = logits.float() if allowed is None else logits.float()[allowed]
        best = torch.topk(scores, min(count, len(scores))).indices
        tokens: list[int] = (best if allowed is None else allowed[best]).tolist()
        return tokens

    def _allowed_tokens(self, forced_prefix: bytes) -> Tensor | None:
        """Token ids [k] that agree with a forced prefix; None for all tokens."""
        if not forced_prefix or self._token_bytes is None:
            return None
        if forced_prefix not in self._allowed:
            compatible = self._token_bytes.compatible_tokens(forced_prefix)
            self._allowed[forced_prefix] = torch.tensor(compatible) if compatible else None
            if len(self._allowed) > _CACHED_PREFIXES:
                self._allowed.popitem(last=False)
        self._allowed.move_to_end(forced_prefix)
        return self._allowed[forced_prefix]


def _best(scores: Tensor) -> tuple[list[int], list[float]]:
    """The index of the largest score and the log-sum-exp of each row of scores [n, k], without the kernel."""
    return scores.argmax(-1).tolist(), torch.logsumexp(scores, -1).tolist()
