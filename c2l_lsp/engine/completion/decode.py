"""Decoding: token by token from the adapted base LM, with the KV of earlier prompts reused.

A stream is a generator, so whoever consumes it decides after every token whether to go on: that is where cancellation,
latency budgets and stop rules live. No policy here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from c2l_lsp.engine.completion.draft import Draft, DraftBudgets, DraftLookup, DraftSource
from c2l_lsp.engine.completion.greedy import DecodedToken, GreedySelector
from c2l_lsp.errors import RequestCancelled
from c2l_lsp.model.adapter.knn_lm import tails
from c2l_lsp.model.adapter.kv_sequence import KVSequence, SequenceReader, sequence_reader
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime.kernel import MAX_MATCH

SLOTS = 4
"""Prompts whose KV is kept: about as many documents as a person edits at a time."""

DRAFT = 4
"""Tokens guessed ahead of a decode step."""


@dataclass
class _Slot:
    """A token sequence that was read: `ids[i]` stands at position i of `text`. The first `kept` have a prompt's KV."""

    text: KVSequence
    ids: list[int] = field(default_factory=list)
    kept: int = 0

    def crop(self, length: int) -> None:
        """Forget what stands at `length` and after."""
        if length < len(self.ids):
            self.text.crop(length)
            del self.ids[length:]
            self.kept = min(self.kept, length)


@dataclass
class Prefilled:
    """A prompt that was read: logits of what comes next [vocabulary], and how many of its tokens were reused.

    `forced_prefix` are bytes that the answer has to begin with, `slot` is what its decoder keeps of it.
    """

    slot: object
    logits: Tensor
    length: int
    reused: int
    forced_prefix: bytes = b""


class Decoder:
    """Greedy decoding on one model. Not thread-safe: one request at a time, which is what the scheduler gives it.

    `draft` is how many tokens may be guessed ahead of a step as long as guessing pays. Guesses are checked: they change
    how long an answer takes, not what it is. With a `clock` what they cost is measured, else it is taken as known.
    """

    def __init__(
        self,
        model: BaseModel,
        adapters: AdapterSlot,
        reader: SequenceReader | None = None,
        draft: int = DRAFT,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._model, self._adapters, self._draft, self._clock = model, adapters, draft, clock
        self._reader, self._greedy = reader or sequence_reader(model, adapters), GreedySelector(model.token_bytes)
        self._slots: OrderedDict[int, tuple[str, _Slot]] = OrderedDict()
        self._next = 0
        self._credits = DraftBudgets()
        self.tokens_computed = 0
        self.forward_passes = 0
        self.drafted = 0
        self.accepted = 0

    @torch.inference_mode()
    def prefill(
        self, ids: list[int], kv_key: str = "", forced_prefix: str = "", cancelled: Callable[[], bool] = lambda: False
    ) -> Prefilled:
        """Read a prompt. `kv_key` names whatever the KV depends on besides the ids (an adapter with inner pairs).

        RequestCancelled between two portions, once `cancelled` says so; what was read until then stays read.
        """
        slot, reused = self._best(ids, kv_key)
        reused = min(reused, len(ids) - 1)  # the last token is always fed: its logits are needed
        slot.crop(reused)
        portion = self._reader.portion
        for start in range(reused, len(ids), portion):
            if start > reused and cancelled():
                raise RequestCancelled("The completion was cancelled while its prompt was read.")
            part = ids[start : start + portion]
            hidden = slot.text.read(part)
            self._count(slot, part)
            slot.kept = len(slot.ids)
        logits = self._adapters.recalled(hidden, self._reader.logits(hidden), tails(ids, len(ids) - 1, len(ids)))
        return Prefilled(slot, logits[0], len(ids), reused, forced_prefix.encode())

    @torch.inference_mode()
    def top_tokens(self, start: Prefilled, count: int) -> list[int]:
        """The likeliest first tokens of an answer, best first."""
        return self._greedy.top_tokens(start.logits, start.forced_prefix, count)

    @torch.inference_mode()
    def stream(
        self, start: Prefilled, first: int | None = None, draft_source: DraftSource | None = None
    ) -> Iterator[DecodedToken]:
        """Greedy tokens after a prompt, without end: the consumer stops. `first` forces the first token.

        May be called again for the same prompt; the KV of the last answer is dropped then. Drafts are looked up in the
        prompt and in what is known `draft_source`.
        """
        slot, seen, forced_prefix = cast(_Slot, start.slot), start.length, start.forced_prefix
        slot.crop(seen)
        lookup = DraftLookup(slot.ids, self._cursor(slot.ids), draft_source) if self._draft else None
        logits, guess = start.logits[None], Draft()
        while True:
            written: list[int] = []
            for step, hoped in zip(self._greedy.select(logits, forced_prefix, first), [*guess.ids, None], strict=True):
                yield step
                written.append(step.token)
                if step.token != hoped:
                    break
            first = None
            forced_prefix = forced_prefix[len(self._paid(written[-1])) :] if forced_prefix else b""
            seen += len(written)
            self.accepted += len(written) - 1
            self._credits.book(guess, len(written) - 1)
            slot.crop(seen - 1)  # guesses that were wrong
            guess = self._guess(lookup, written, wanted=not forced_prefix)
            logits = self._step(slot, [written[-1], *guess.ids])

    def prepare(self) -> None:
        """Make ready what reading under the current adapter needs, so that the first prompt does not wait for it."""
        self._reader.prepare()

    def clear_cache(self) -> None:
        """Drop all kept KV."""
        self._slots.clear()

    def _guess(self, lookup: DraftLookup | None, written: list[int], wanted: bool) -> Draft:
        if lookup is None:
            return Draft()
        lookup.extend(written)
        guess = lookup.propose(self._draft, self._credits.good) if wanted else Draft()
        self.drafted += len(guess.ids)
        return guess

    def _paid(self, token: int) -> bytes:
        return self._model.token_bytes[token] if self._model.token_bytes is not None else b""

    def _cursor(self, ids: list[int]) -> int:
        """Where in a prompt writing goes on."""
        fim = self._model.fim
        if fim is None or fim.order != "psm" or fim.suffix not in ids:
            return len(ids)
        return ids.index(fim.suffix)

    def _step(self, slot: _Slot, ids: list[int]) -> Tensor:
        """Logits [n, vocabulary] after each of the ids of a decode step."""
        began = self._clock() if self._clock is not None else 0.0
        hidden = slot.text.step(ids)
        logits = self._reader.logits(hidden, step=True)
        recent = [*slot.ids[-MAX_MATCH:], *ids]
        logits = self._adapters.recalled(hidden, logits, tails(recent, len(recent) - len(ids), len(recent)))
        if self._clock is not None:
            self._credits.timed(len(ids) - 1, self._clock() - began)
        self._count(slot, ids)
        if self._reader.exact:
            slot.kept = len(slot.ids)
        return logits

    def _count(self, slot: _Slot, ids: list[int]) -> None:
        slot.ids += ids
        self.tokens_computed += len(ids)
        self.forward_passes += 1

    def _best(self, ids: list[int], kv_key: str) -> tuple[_Slot, int]:
        """The slot that shares the longest prefix, or a fresh one in place of the oldest."""
        best, shared = None, 0
        for number, (key, slot) in self._slots.items():
            if key == kv_key and (common := min(_common(slot.ids, ids), slot.kept)) > shared:
                best, shared = number, common
        # a slot is taken over only if most of it agrees; otherwise another document's KV would be thrown away
        if best is not None and (shared * 2 >= self._slots[best][1].kept or len(self._slots) >= SLOTS):
            self._slots.move_to_end(best)
            return self._slots[best][1], shared
        if len(self._slots) >= SLOTS:
            self._slots.popitem(last=False)
        self._next += 1
        slot = _Slot(self._reader.open())
        self._slots[self._next] = (kv_key, slot)
        return slot, 0


def _common(a: list[int], b: list[int]) -> int:
    """Length of the common prefix."""
    size = min(len(a), len(b))
    if a[:size] == b[:size]:
        return size
    low, high = 0, size  # a[:low] agrees, a[:high] does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle)
    return low
