"""The likeliest tokens of rows of logits, among those that agree with what an answer owes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from c2l_lsp.model.lm.token_healing import TokenBytes
from c2l_lsp.model.runtime import kernel

_KEPT = 64  # debts whose tokens are known: a word that is typed owes one more letter at every key


@dataclass(frozen=True)
class DecodedToken:
    """One decoded token and its log-probability among the tokens that were possible."""

    token: int
    logprob: float


class GreedySelector:
    """Chooses among tokens whose bytes are `token_bytes`; without them nothing can be owed."""

    def __init__(self, token_bytes: TokenBytes | None) -> None:
        self._pieces = token_bytes
        self._known: OrderedDict[bytes, Tensor | None] = OrderedDict()

    def select(self, logits: Tensor, forced_prefix: bytes, first: int | None) -> list[DecodedToken]:
        """The likeliest token after each row of logits [n, vocabulary]; `first` replaces that of the first row."""
        possible = self._possible(forced_prefix)
        scores = logits.float() if possible is None else logits.float()[:, possible]
        tokens, norms = kernel.argmax_and_logsumexp(scores) or _best(scores)
        chosen = tokens if possible is None else possible[tokens].tolist()
        steps = [
            DecodedToken(token, float(scores[row, at]) - norm)
            for row, (token, at, norm) in enumerate(zip(chosen, tokens, norms, strict=True))
        ]
        if first is not None:
            among = possible is None or bool((possible == first).any())
            steps[0] = DecodedToken(first, float(logits[0, first]) - norms[0] if among else -torch.inf)
        return steps

    def top_tokens(self, logits: Tensor, forced_prefix: bytes, count: int) -> list[int]:
        """The likeliest tokens by logits [vocabulary], best first; fewer where not so many are possible."""
        possible = self._possible(forced_prefix)
        scores = logits.float() if possible is None else logits.float()[possible]
        best = torch.topk(scores, min(count, len(scores))).indices
        found: list[int] = (best if possible is None else possible[best]).tolist()
        return found

    def _possible(self, forced_prefix: bytes) -> Tensor | None:
        """Tokens [k] that agree with what is owed; None for all."""
        if not forced_prefix or self._pieces is None:
            return None
        if forced_prefix not in self._known:
            agreeing = self._pieces.compatible_tokens(forced_prefix)
            self._known[forced_prefix] = torch.tensor(agreeing) if agreeing else None
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(forced_prefix)
        return self._known[forced_prefix]


def _best(scores: Tensor) -> tuple[list[int], list[float]]:
    return scores.argmax(-1).tolist(), torch.logsumexp(scores, -1).tolist()
