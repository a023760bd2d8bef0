"""Validation of an adapter before it goes live: finite, bounded, and no worse than the base model on held-out files.

A few whole files are held out of the state: their chunk embeddings are subtracted, which is exact. The adapter of the
remaining state is scored on them at several strengths, and the best strength is used; strength 0 rejects the adapter.
A final map is scored on hidden states computed once. LoRA pairs change the hidden states, so each strength costs a
forward pass. The kNN memory is validated last, on top of the weights, and gets a strength of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from c2l_lsp.cooperative import Slices, drain
from c2l_lsp.model.adapter.knn_lm import KnnMemory, suffixes
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.adapter.mixture import MAX_MEMORY_WEIGHT
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.redaction import longest_piece

RULE = "2"
"""Version of the rules by which strengths are chosen. Results of the laboratory name it."""

STRENGTHS = (1.0, 0.7, 0.4, 0.2)
KNN_STRENGTHS = (1.5, *STRENGTHS)
"""Factors of λ, above 1 too: some repositories repeat themselves more than those λ was fitted on."""

MAX_TOKENS = 3000
"""Most held-out positions that are scored: enough to tell a difference of 0.01 nat from noise."""

_TEXT_CHARS, _TEXT_TOKENS = 4000, 768
_ROWS = 128  # positions of one slice of kNN validation: about 30 ms

_HEAD = 256
"""First positions of a text on which the kNN memory is not scored; of a shorter text the first half. The head of a file
(licence, imports) repeats from file to file: there the memory gains more than where code is written."""

MAX_SHARE = 0.25
"""Largest share of files that is held out; a folder with fewer than 4 files is not validated."""

_MAX_FILES = 8


@dataclass(frozen=True)
class ValidationResult:
    """Strengths to use, and the evidence for them.

    `strength` of the weights (final map or LoRA pairs; 0: do not use them), `delta` the change of the held-out loss in
    nat per token, `tokens` the number of scored positions, `reason` why the weights are not used, `knn_strength` the
    strength of the kNN memory.
    """

    strength: float
    delta: float
    tokens: int
    reason: str = ""
    knn_strength: float = 1.0

    @property
    def rejection(self) -> str:
        """Why nothing of the adapter may go live; "" if a part of it may."""
        return self.reason if self.knn_strength <= 0 else ""


def held_out(candidates: Mapping[str, bytes]) -> list[str]:
    """Return the files to hold out of some (path → digest), those with the smallest digest: a pure function of them."""
    ordered = sorted(candidates, key=lambda path: (candidates[path], path))
    return ordered[: min(_MAX_FILES, int(len(ordered) * MAX_SHARE))]


def rejection(adapter: Adapter, limit: float) -> str:
    """Return why an adapter must not go live however it scores, "" if it may: NaN, or a norm above `limit`."""
    norm = adapter.norm
    if not torch.isfinite(torch.tensor(norm)):
        return "it holds numbers that are not finite"
    if norm > limit:
        return f"its norm {norm:.1f} is above the limit {limit:.1f}"
    return ""


class Validator:
    """Scores adapters on held-out texts. The base model's hidden states of a text are computed once.

    `slot` is the engine's adapter slot (None: a new one). An adapter is in it during a slice only, never between two.
    """

    def __init__(self, model: BaseModel, slot: AdapterSlot | None = None) -> None:
        self._model, self._slot = model, slot or AdapterSlot(model)
        self._hidden: dict[bytes, tuple[Tensor, Tensor]] = {}
        self._ids: dict[bytes, Tensor] = {}

    def add(self, digest: bytes, text: str) -> None:
        """As `add_in_slices`, at once."""
        drain(self.add_in_slices(digest, text))

    @torch.inference_mode()
    def add_in_slices(self, digest: bytes, text: str) -> Slices[None]:
        """Compute the final hidden states [T − 1, d] and next tokens [T − 1] of the beginning of a text."""
        ids = [self._model.start_id, *self._model.encode(longest_piece(text[:_TEXT_CHARS]))][:_TEXT_TOKENS]
        if digest in self._hidden or len(ids) < 2:
            return
        self._slot.activate(None)
        (hidden,) = yield from self._model.hidden_states_in_slices([ids])
        rows = torch.tensor([ids], device=self._model.device)
        self._hidden[digest], self._ids[digest] = (hidden[:-1], rows[0, 1:]), rows

    def validate(self, adapter: Adapter, digests: Sequence[bytes]) -> ValidationResult:
        """As `validate_in_slices`, at once."""
        return drain(self.validate_in_slices(adapter, digests))

    def validate_in_slices(self, adapter: Adapter, digests: Sequence[bytes]) -> Slices[ValidationResult]:
        """Return the best strengths of an adapter on the texts with these digests; other texts are dropped."""
        self._hidden = {digest: self._hidden[digest] for digest in digests if digest in self._hidden}
        self._ids = {digest: self._ids[digest] for digest in self._hidden}
        if not self._hidden or adapter.empty:
            return ValidationResult(1.0, 0.0, 0)
        result = yield from self._validate_weights(adapter.without_knn())
        if adapter.knn is None:
            return replace(result, knn_strength=0.0)
        return (yield from self._validate_knn(adapter, adapter.knn, result))

    def _validate_weights(self, adapter: Adapter) -> Slices[ValidationResult]:
        if adapter.pairs:
            return (yield from self._validate_pairs(adapter))
        if adapter.final_map is None:
            return ValidationResult(0.0, 0.0, 0)
        hidden, targets = (torch.cat([pair[side] for pair in self._hidden.values()])[:MAX_TOKENS] for side in (0, 1))
        return (yield from validate_final_map_in_slices(self._model, adapter.final_map, hidden, targets))

    def _validate_knn(self, adapter: Adapter, knn: KnnMemory, result: ValidationResult) -> Slices[ValidationResult]:
        """Add the best strength of the kNN memory on top of the weights at theirs."""
        plain = adapter.scaled(result.strength, knn_strength=0.0)
        losses, base_loss, tokens = yield from self._knn_losses(plain, knn)
        best = _best(losses, base_loss, tokens)
        weights_delta = result.delta if result.strength > 0 else 0.0
        if best.strength > 0:
            return replace(result, delta=weights_delta + best.delta, tokens=tokens, knn_strength=best.strength)
        return replace(result, knn_strength=0.0)

    def best_knn_strength(self, adapter: Adapter) -> Slices[float]:
        """Return the best strength of an adapter's kNN memory on all texts added; 0: none."""
        if adapter.knn is None:
            return 0.0
        return _best(*(yield from self._knn_losses(adapter.without_knn(), adapter.knn.scaled(1.0)))).strength

    def _knn_losses(self, plain: Adapter, knn: KnnMemory) -> Slices[tuple[dict[float, float], float, int]]:
        """(loss at each strength of the kNN memory, loss without it, positions), `_ROWS` positions a slice."""
        base_loss, tokens = 0.0, 0
        losses = dict.fromkeys(KNN_STRENGTHS, 0.0)
        for digest, rows in self._knn_places()[: MAX_TOKENS // _ROWS]:
            base, parts = self._knn_parts(plain, knn, digest, rows)
            base_loss -= float(base.log().sum())
            for strength in losses:
                losses[strength] -= float(mixture(base, parts, strength).log().sum())
            tokens += len(base)
            yield
        return {s: total / max(tokens, 1) for s, total in losses.items()}, base_loss / max(tokens, 1), tokens

    def _knn_places(self) -> list[tuple[bytes, slice]]:
        """(text, positions) of each slice: behind the head of every text, the texts in turn."""
        places = [
            (start, digest, slice(start, min(start + _ROWS, len(targets))))
            for digest, (_, targets) in self._hidden.items()
            for start in range(min(_HEAD, len(targets) // 2), len(targets), _ROWS)
        ]
        return [(digest, rows) for _, digest, rows in sorted(places, key=lambda place: place[0])]

    @torch.inference_mode()
    def _knn_parts(self, plain: Adapter, knn: KnnMemory, digest: bytes, rows: slice) -> tuple[Tensor, Tensor]:
        """The probability of each next token without the kNN memory [n], and (λ, the memory's probability) [2, n]."""
        ids, (hidden, targets) = self._ids[digest], self._hidden[digest]
        self._slot.activate(plain)
        if plain.pairs:
            hidden = self._model.hidden(ids)[0, :-1]
        logits, wanted = self._slot.logits(hidden[rows]).float(), targets[rows]
        self._slot.activate(None)
        base = (logits.gather(1, wanted[:, None])[:, 0] - torch.logsumexp(logits, -1)).exp().clamp(min=1e-30)
        before = suffixes(ids[0].tolist(), rows.start, rows.start + len(wanted))
        votes = knn.target_votes(hidden[rows], logits, before, wanted.tolist())
        return base, torch.tensor(votes, device=base.device).T

    def _validate_pairs(self, adapter: Adapter) -> Slices[ValidationResult]:
        base_loss = yield from self.loss(None, list(self._hidden), recompute=True)
        losses = {}
        for strength in STRENGTHS:
            losses[strength] = yield from self.loss(adapter.scaled(strength), list(self._hidden))
        tokens = sum(len(targets) for _, targets in self._hidden.values())
        return _best(losses, base_loss, tokens)

    def loss(self, adapter: Adapter | None, digests: Sequence[bytes], recompute: bool = False) -> Slices[float]:
        """Return the mean loss in nat per token under an adapter (None: base model), one text a slice.

        `recompute`: use hidden states of the forward pass that pairs need, not the stored ones, which may be int8's.
        """
        total, tokens = 0.0, 0
        for digest in digests:
            if digest not in self._hidden or tokens >= MAX_TOKENS:
                continue
            hidden, targets = self._hidden[digest]
            if recompute or (adapter is not None and adapter.pairs):
                hidden = self._hidden_under(adapter, self._ids[digest])
            total += self._text_loss(adapter, self._ids[digest], hidden, targets)
            tokens += len(targets)
            yield
        return total / max(tokens, 1)

    def _hidden_under(self, adapter: Adapter | None, ids: Tensor) -> Tensor:
        """Hidden states [T − 1, d] of a text under an adapter."""
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
            found = drain(_loss_in_slices(self._model, self._slot.apply_final_map(hidden), targets)) * len(targets)
        self._slot.activate(None)
        return found


def mixture(base: Tensor, parts: Tensor, strength: float) -> Tensor:
    """Return (1 − λ) p + λ r of next tokens: `base` p [N] > 0, `parts` (λ, r) [2, N], λ multiplied by `strength`."""
    share = (parts[0] * strength).clamp(max=MAX_MEMORY_WEIGHT)
    return (1 - share) * base + share * parts[1]


@torch.inference_mode()
def validate_final_map_in_slices(
    model: BaseModel, C: Tensor, hidden: Tensor, targets: Tensor
) -> Slices[ValidationResult]:
    """Return the best strength of a final map C [d, d] on held-out hidden states [N, d] and next tokens [N]."""
    base_loss = yield from _loss_in_slices(model, hidden, targets)
    step = (hidden.float() @ C.to(model.device).T).to(hidden.dtype)
    losses = {}
    for strength in STRENGTHS:
        losses[strength] = yield from _loss_in_slices(model, hidden + strength * step, targets)
    return _best(losses, base_loss, len(hidden))


def _best(losses: Mapping[float, float], base_loss: float, tokens: int) -> ValidationResult:
    """The strength with the lowest loss, or 0 if none is below `base_loss`; NaN never is."""
    best = min(losses, key=lambda strength: losses[strength] if losses[strength] == losses[strength] else float("inf"))
    delta = losses[best] - base_loss
    if not delta < 0:
        reason = f"on held-out files it is {delta:+.3f} nat/token worse than the base model"
        return ValidationResult(0.0, delta, tokens, reason)
    return ValidationResult(best, delta, tokens)


def _loss_in_slices(model: BaseModel, hidden: Tensor, targets: Tensor) -> Slices[float]:
    """The mean loss of next tokens in nat, 2 · `_ROWS` positions a slice."""
    total = 0.0
    for start in range(0, len(hidden), 2 * _ROWS):
        rows = slice(start, start + 2 * _ROWS)
        logits = model.inference_logits(hidden[rows]).float()
        total += float(torch.nn.functional.cross_entropy(logits, targets[rows], reduction="sum"))
        yield
    return total / max(len(hidden), 1)
