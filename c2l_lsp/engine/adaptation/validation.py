"""The gate every adapter passes before it goes live: finite, bounded, and no worse than no adapter on held-out text.

A few whole files are left out of the state for the test only (their readings are subtracted, an exact operation), the
adapter of what remains is scored on them at several strengths, and the best strength is used; 0 keeps it back. A final
map is scored on hidden states computed once; pairs change the hidden states, so each strength is a forward pass. What
is recalled is judged after the matrices, on top of them, and has a strength of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from c2l_lsp.model.adapter.knn_lm import MAX_KNN_WEIGHT, KnnMemory, suffixes
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime.cooperative import Slices, drain
from c2l_lsp.repo.history.snapshot import Entry

STRENGTHS = (1.0, 0.7, 0.4, 0.2)
RECALL_STRENGTHS = (1.5, *STRENGTHS)
"""Of λ: some repositories repeat themselves more than the average that λ was fitted to."""

MAX_TOKENS = 3000
"""Held-out positions that are scored: enough to tell a loss of 0.01 nat from noise of the same text."""

_TEXT_CHARS, _TEXT_TOKENS = 4000, 768
_ROWS = 128  # positions of a slice in which what is recalled is judged: about 30 ms

MAX_SHARE = 0.25
"""At most this share of the folder's files is held out; a folder of fewer than 4 files is not tested."""


@dataclass(frozen=True)
class ValidationResult:
    """`strength` of the matrices to use (0: kept back), the held-out loss change at it in nat/token, positions scored,
    a reason, and the strength of what is recalled."""

    strength: float
    delta: float
    tokens: int
    reason: str = ""
    knn_strength: float = 1.0

    @property
    def closed(self) -> str:
        """Why nothing of the adapter goes live; "" if some of it does."""
        return self.reason if self.knn_strength <= 0 else ""


class _Folded(Protocol):
    @property
    def entry(self) -> Entry: ...

    @property
    def keys(self) -> Sequence[bytes]: ...


def held_out(records: Mapping[str, _Folded]) -> list[str]:
    """The files to hold out: those of the smallest content hash, a pure function of the snapshot."""
    candidates = sorted((path for path in records if records[path].keys), key=lambda p: (records[p].entry.digest, p))
    return candidates[: min(8, int(len(candidates) * MAX_SHARE))]


def refuse(adapter: Adapter, limit: float) -> str:
    """Why an adapter must not go live whatever it scores; "" if it may."""
    norm = adapter.norm
    if not torch.isfinite(torch.tensor(norm)):
        return "it holds numbers that are not finite"
    if norm > limit:
        return f"its norm {norm:.1f} is above the limit {limit:.1f}"
    return ""


class Validator:
    """Scores an adapter on held-out texts; what the base model sees of a text is computed once per content.

    `slot` is the engine's (None: one of its own): pairs are plugged in for one slice and taken out before it ends.
    """

    def __init__(self, model: BaseModel, slot: AdapterSlot | None = None) -> None:
        self._model, self._slot = model, slot or AdapterSlot(model)
        self._seen: dict[bytes, tuple[Tensor, Tensor]] = {}
        self._ids: dict[bytes, Tensor] = {}

    def see(self, digest: bytes, text: str) -> None:
        """As `seeing`, in one go."""
        drain(self.seeing(digest, text))

    @torch.inference_mode()
    def seeing(self, digest: bytes, text: str) -> Slices[None]:
        """Final hidden states and next tokens of the beginning of a text."""
        ids = [self._model.start_id, *self._model.encode(text[:_TEXT_CHARS])][:_TEXT_TOKENS]
        if digest in self._seen or len(ids) < 2:
            return
        self._slot.activate(None)
        (hidden,) = yield from self._model.hidden_states_in_slices([ids])
        rows = torch.tensor([ids], device=self._model.device)
        self._seen[digest], self._ids[digest] = (hidden[:-1], rows[0, 1:]), rows

    def judge(self, adapter: Adapter, digests: Sequence[bytes]) -> ValidationResult:
        """As `judging`, in one go."""
        return drain(self.validate_in_slices(adapter, digests))

    def validate_in_slices(self, adapter: Adapter, digests: Sequence[bytes]) -> Slices[ValidationResult]:
        """Best strength of an adapter on these texts, in slices; texts not asked for are forgotten."""
        self._seen = {digest: self._seen[digest] for digest in digests if digest in self._seen}
        self._ids = {digest: self._ids[digest] for digest in self._seen}
        if not self._seen or adapter.empty:
            return ValidationResult(1.0, 0.0, 0)
        verdict = yield from self._judge_matrices(adapter.without_knn())
        if adapter.knn is None:
            return replace(verdict, knn_strength=0.0)
        return (yield from self._judge_recall(adapter, adapter.knn, verdict))

    def _judge_matrices(self, adapter: Adapter) -> Slices[ValidationResult]:
        if adapter.pairs:
            return (yield from self._judge_pairs(adapter))
        if adapter.final_map is None:
            return ValidationResult(0.0, 0.0, 0)
        hidden, targets = (torch.cat([pair[side] for pair in self._seen.values()])[:MAX_TOKENS] for side in (0, 1))
        return (yield from validate_final_map_in_slices(self._model, adapter.final_map, hidden, targets))

    def _judge_recall(self, adapter: Adapter, recall: KnnMemory, verdict: ValidationResult) -> Slices[ValidationResult]:
        """The strength of what is recalled, mixed into what the matrices give at theirs."""
        losses, bare, tokens = yield from self._by_recall(adapter.scaled(verdict.strength, knn_strength=0.0), recall)
        best = _verdict(losses, bare, tokens)
        both = verdict.delta if verdict.strength > 0 else 0.0
        if best.strength > 0:
            return replace(verdict, delta=both + best.delta, tokens=tokens, knn_strength=best.strength)
        return replace(verdict, knn_strength=0.0)

    def best_knn_strength(self, adapter: Adapter) -> Slices[tuple[float, float]]:
        """The best strength of what an adapter recalls (0: none) on all texts seen, and the loss at it."""
        if adapter.knn is None:
            return 0.0, (yield from self.loss(adapter, list(self._seen)))
        losses, bare, tokens = yield from self._by_recall(adapter.without_knn(), adapter.knn.scaled(1.0))
        best = _verdict(losses, bare, tokens)
        return best.strength, losses.get(best.strength, bare)

    def _by_recall(self, plain: Adapter, recall: KnnMemory) -> Slices[tuple[dict[float, float], float, int]]:
        """(loss at each strength of what is recalled, loss without, positions), _ROWS positions a slice."""
        bare, tokens = 0.0, 0
        losses = dict.fromkeys(RECALL_STRENGTHS, 0.0)
        places = [
            (digest, slice(start, start + _ROWS))
            for digest, (_, targets) in self._seen.items()
            for start in range(0, len(targets), _ROWS)
        ]
        for digest, rows in places[: MAX_TOKENS // _ROWS]:
            base, parts = self._recalled(plain, recall, digest, rows)
            bare -= float(base.log().sum())
            for strength in losses:
                losses[strength] -= float(mixture(base, parts, strength).log().sum())
            tokens += len(base)
            yield
        return {s: total / max(tokens, 1) for s, total in losses.items()}, bare / max(tokens, 1), tokens

    @torch.inference_mode()
    def _recalled(self, plain: Adapter, recall: KnnMemory, digest: bytes, rows: slice) -> tuple[Tensor, Tensor]:
        """The base's probability of each next token [n], and (λ at full strength, r of the next token) [2, n]."""
        ids, (hidden, targets) = self._ids[digest], self._seen[digest]
        self._slot.activate(plain)
        if plain.pairs:
            hidden = self._model.hidden(ids)[0, :-1]
        logits, wanted = self._slot.logits(hidden[rows]).float(), targets[rows]
        self._slot.activate(None)
        base = (logits.gather(1, wanted[:, None])[:, 0] - torch.logsumexp(logits, -1)).exp().clamp(min=1e-30)
        before = suffixes(ids[0].tolist(), rows.start, rows.start + len(wanted))
        found = recall.neighbour_votes(hidden[rows], logits, before)
        pairs = [
            (0.0, 0.0) if vote is None else (vote[0], vote[1].probability(token))
            for vote, token in zip(found, wanted.tolist(), strict=True)
        ]
        return base, torch.tensor(pairs, device=base.device).T

    def _judge_pairs(self, adapter: Adapter) -> Slices[ValidationResult]:
        bare = yield from self.loss(None, list(self._seen), afresh=True)
        losses = {}
        for strength in STRENGTHS:
            losses[strength] = yield from self.loss(adapter.scaled(strength), list(self._seen))
        tokens = sum(len(targets) for _, targets in self._seen.values())
        return _verdict(losses, bare, tokens)

    def loss(self, adapter: Adapter | None, digests: Sequence[bytes], afresh: bool = False) -> Slices[float]:
        """Mean loss in nat/token under an adapter (None: bare) on texts that were seen, one text a slice. `afresh`: not
        on the states that were seen, which may be int8's, but on those that pairs change."""
        total, tokens = 0.0, 0
        for digest in digests:
            if digest not in self._seen or tokens >= MAX_TOKENS:
                continue
            hidden, targets = self._seen[digest]
            if afresh or (adapter is not None and adapter.pairs):
                hidden = self._under(adapter, self._ids[digest])
            total += self._text_loss(adapter, self._ids[digest], hidden, targets)
            tokens += len(targets)
            yield
        return total / max(tokens, 1)

    def _under(self, adapter: Adapter | None, ids: Tensor) -> Tensor:
        """States [T − 1, d] of a text under an adapter."""
        self._slot.activate(adapter)
        hidden = self._model.hidden(ids)[0, :-1]
        self._slot.activate(None)
        return hidden

    @torch.inference_mode()
    def _text_loss(self, adapter: Adapter | None, ids: Tensor, hidden: Tensor, targets: Tensor) -> float:
        self._slot.activate(adapter)
        if adapter is not None and adapter.knn is not None:
            before = suffixes(ids[0].tolist(), 0, len(targets))
            logits = self._slot.mix_knn(hidden, self._slot.logits(hidden), before)
            found = float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
        else:
            found = drain(_losing(self._model, self._slot.apply_final_map(hidden), targets)) * len(targets)
        self._slot.activate(None)
        return found


def mixture(base: Tensor, parts: Tensor, strength: float) -> Tensor:
    """(1 − λ) p + λ r of next tokens: p [N] > 0, (λ, r) [2, N], λ times `strength`."""
    share = (parts[0] * strength).clamp(max=MAX_KNN_WEIGHT)
    return (1 - share) * base + share * parts[1]


@torch.inference_mode()
def validate_final_map_in_slices(
    model: BaseModel, C: Tensor, hidden: Tensor, targets: Tensor
) -> Slices[ValidationResult]:
    """Best strength of a final map C [d, d] on held-out hidden states [N, d] and next tokens [N]."""
    bare = yield from _losing(model, hidden, targets)
    step = (hidden.float() @ C.to(model.device).T).to(hidden.dtype)
    losses = {}
    for strength in STRENGTHS:
        losses[strength] = yield from _losing(model, hidden + strength * step, targets)
    return _verdict(losses, bare, len(hidden))


def _verdict(losses: Mapping[float, float], bare: float, tokens: int) -> ValidationResult:
    """The best strength, or 0 if none is better than the bare model (a loss that is no number never is)."""
    best = min(losses, key=lambda strength: losses[strength] if losses[strength] == losses[strength] else float("inf"))
    delta = losses[best] - bare
    if not delta < 0:
        return ValidationResult(0.0, delta, tokens, f"it is {delta:+.3f} nat/token worse than none on held-out files")
    return ValidationResult(best, delta, tokens)


def _losing(model: BaseModel, hidden: Tensor, targets: Tensor) -> Slices[float]:
    """Mean loss of next tokens in nat, a few positions a slice."""
    total = 0.0
    for start in range(0, len(hidden), 2 * _ROWS):
        rows = slice(start, start + 2 * _ROWS)
        logits = model.inference_logits(hidden[rows]).float()
        total += float(torch.nn.functional.cross_entropy(logits, targets[rows], reduction="sum"))
        yield
    return total / max(len(hidden), 1)
