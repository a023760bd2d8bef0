"""The decoder: prefill with reuse of earlier prompts' KV cache, and greedy decoding with drafts.

Decoding is a generator of tokens. The consumer decides after each token whether to continue, so cancellation, time
limits and stop rules are not part of this module.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast
from weakref import ReferenceType

import torch
from torch import Tensor

from c2l_lsp.engine.completion.draft import Draft, DraftBudgets, DraftLookup, DraftSource
from c2l_lsp.engine.completion.greedy import DecodedToken, GreedySelector
from c2l_lsp.errors import RequestCancelled
from c2l_lsp.model.adapter.knn_lm import suffixes
from c2l_lsp.model.adapter.kv_sequence import KVSequence, SequenceReader, sequence_reader
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime.kernel import MAX_CONTEXT

SLOTS = 4
"""Prompts whose KV cache is kept: about the number of documents that a user edits at the same time."""

DRAFT = 4
"""Tokens of a draft, at most."""


@dataclass
class _Slot:
    """A token sequence with its KV cache: `ids[i]` is at position i of `sequence`.

    The first `reusable` positions have the KV that a prefill computes. KV of later positions comes from decode steps in
    another precision and must be computed again for a prompt. `logits[i]` [vocabulary] are those after `ids[i]`, for
    the end of the last prompt and for its answer, under `adapter`.
    """

    sequence: KVSequence
    ids: list[int] = field(default_factory=list)
    reusable: int = 0
    logits: dict[int, Tensor] = field(default_factory=dict)
    adapter: ReferenceType[Adapter] | None = None

    def crop(self, length: int) -> None:
        """Remove the tokens from position `length` on."""
        if length < len(self.ids):
            self.sequence.crop(length)
            del self.ids[length:]
            self.reusable = min(self.reusable, length)
            self.logits = {at: row for at, row in self.logits.items() if at < length}

    def logits_after(self, token: int, position: int) -> Tensor | None:
        """The logits [vocabulary] after `token` at `position`; None unless it is there and they are known."""
        return self.logits.get(position) if self.ids[position : position + 1] == [token] else None


@dataclass
class Prefilled:
    """A prefilled prompt.

    `slot`: the decoder's own record of it. `logits` [vocabulary] of the next token. `length`: tokens of the prompt,
    of which `reused` came from the KV cache. `forced_prefix`: UTF-8 bytes that the answer has to begin with. `before`:
    the last tokens of the text before the cursor, which the kNN memory compares.
    """

    slot: object
    logits: Tensor
    length: int
    reused: int
    forced_prefix: bytes = b""
    before: list[int] = field(default_factory=list)


class Decoder:
    """Greedy decoder of one model. Not thread-safe: the caller runs one request at a time.

    `draft` is the maximum length of a draft; 0 turns drafts off. Drafts are verified, so they change the speed of
    decoding and not its result. With a `clock` (seconds) the cost of drafts is measured, else a default is assumed.
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
        self._slots: OrderedDict[int, tuple[str, _Slot]] = OrderedDict()  # the least recently used first
        self._next_slot = 0
        self._budgets = DraftBudgets()

    @torch.inference_mode()
    def prefill(
        self, ids: list[int], kv_key: str = "", forced_prefix: str = "", cancelled: Callable[[], bool] = lambda: False
    ) -> Prefilled:
        """Read a prompt. `kv_key` names what the KV depends on besides `ids`: an adapter with LoRA pairs.

        Raises RequestCancelled if `cancelled` returns True between two portions of the prompt. The portions that were
        read stay in the cache.
        """
        slot, reused = self._best_slot(ids, kv_key)
        before = self._before_cursor(ids)
        if reused == len(ids) and slot.adapter is self._adapters.reference and len(ids) - 1 in slot.logits:
            return Prefilled(slot, slot.logits[len(ids) - 1], len(ids), reused, forced_prefix.encode(), before)
        reused = min(reused, len(ids) - 1)  # the last token is computed, because its logits are needed
        slot.crop(reused)
        portion = self._reader.prefill_chunk
        for start in range(reused, len(ids), portion):
            if start > reused and cancelled():
                raise RequestCancelled("The completion was cancelled while its prompt was read.")
            part = ids[start : start + portion]
            hidden = slot.sequence.prefill(part)
            slot.ids += part
            slot.reusable = len(slot.ids)
        logits = self._adapters.mix_knn(hidden, self._reader.logits(hidden), [before])
        self._remember(slot, len(ids) - 1, logits[0])
        return Prefilled(slot, logits[0], len(ids), reused, forced_prefix.encode(), before)

    @torch.inference_mode()
    def top_tokens(self, start: Prefilled, count: int) -> list[int]:
        """Return the `count` most likely first tokens of an answer, best first."""
        return self._greedy.top_tokens(start.logits, start.forced_prefix, count)

    @torch.inference_mode()
    def stream(
        self, start: Prefilled, first: int | None = None, draft_source: DraftSource | None = None
    ) -> Iterator[DecodedToken]:
        """Yield greedy tokens after a prompt, without end. `first` replaces the first token.

        May be called several times for one prompt. What an earlier answer has in common with this one is not computed
        again: an answer that was cancelled goes on where it ended. Drafts are looked up in the prompt and in
        `draft_source`.
        """
        slot, length, forced_prefix = cast(_Slot, start.slot), start.length, start.forced_prefix
        lookup = DraftLookup(slot.ids[:length], start.before, draft_source) if self._draft else None
        logits, draft = start.logits[None], Draft()
        while True:
            tokens: list[int] = []
            selected = self._greedy.select(logits, forced_prefix, first)
            for step, drafted in zip(selected, [*draft.ids, None], strict=True):
                yield step
                tokens.append(step.token)
                if step.token != drafted:
                    break
            first = None
            forced_prefix = forced_prefix[len(self._bytes_of(tokens[-1])) :] if forced_prefix else b""
            length += len(tokens)
            self._budgets.record(draft, len(tokens) - 1)
            known = slot.logits_after(tokens[-1], length - 1)
            if known is None:
                slot.crop(length - 1)  # discards rejected draft tokens; the last token's KV comes with the next step
            draft = self._next_draft(lookup, tokens, wanted=known is None and not forced_prefix)
            logits = self._step(slot, start, [tokens[-1], *draft.ids]) if known is None else known[None]

    def prepare(self) -> None:
        """Prepare the current adapter (merge its pairs), so that the first prompt does not wait for it."""
        self._reader.prepare()

    def clear_cache(self) -> None:
        """Discard the KV cache of all prompts."""
        self._slots.clear()

    def _next_draft(self, lookup: DraftLookup | None, tokens: list[int], wanted: bool) -> Draft:
        if lookup is None:
            return Draft()
        lookup.extend(tokens)
        return lookup.propose(self._draft, self._budgets.allowed) if wanted else Draft()

    def _bytes_of(self, token: int) -> bytes:
        return self._model.token_bytes[token] if self._model.token_bytes is not None else b""

    def _before_cursor(self, ids: list[int]) -> list[int]:
        """The last MAX_CONTEXT tokens of a prompt that stand before the cursor in the text, without FIM tokens."""
        fim = self._model.fim
        return (ids if fim is None else fim.text_before(ids))[-MAX_CONTEXT:]

    def _step(self, slot: _Slot, start: Prefilled, ids: list[int]) -> Tensor:
        """Run a decode step on the last token and a draft; logits [n, vocabulary] after each of them."""
        started = self._clock() if self._clock is not None else 0.0
        hidden = slot.sequence.decode(ids)
        logits = self._reader.logits(hidden, step=True)
        recent = [*start.before, *slot.ids[start.length :], *ids]
        logits = self._adapters.mix_knn(hidden, logits, suffixes(recent, len(recent) - len(ids), len(recent)))
        if self._clock is not None:
            self._budgets.record_time(len(ids) - 1, self._clock() - started)
        for row, position in zip(logits, range(len(slot.ids), len(slot.ids) + len(ids)), strict=True):
            slot.logits[position] = row
        slot.ids += ids
        if self._reader.decode_matches_prefill:
            slot.reusable = len(slot.ids)
        return logits

    def _remember(self, slot: _Slot, position: int, logits: Tensor) -> None:
        """Keep the logits at the end of a prompt. Those of other prompts are discarded: a row can have 600 kB."""
        for _, other in self._slots.values():
            other.logits = {}
        slot.logits, slot.adapter = {position: logits}, self._adapters.reference

    def _best_slot(self, ids: list[int], kv_key: str) -> tuple[_Slot, int]:
        """The slot with the longest common prefix, and its length; or an empty slot for the least recently used one."""
        best, shared = None, 0
        for number, (key, slot) in self._slots.items():
            if key == kv_key and (common := min(_common_prefix(slot.ids, ids), slot.reusable)) > shared:
                best, shared = number, common
        # A slot that mostly differs probably belongs to another document: keep it while there is a free slot.
        if best is not None and (shared * 2 >= self._slots[best][1].reusable or len(self._slots) >= SLOTS):
            self._slots.move_to_end(best)
            return self._slots[best][1], shared
        if len(self._slots) >= SLOTS:
            self._slots.popitem(last=False)
        self._next_slot += 1
        slot = _Slot(self._reader.new_sequence())
        self._slots[self._next_slot] = (kv_key, slot)
        return slot, 0


def _common_prefix(a: list[int], b: list[int]) -> int:
    """Length of the common prefix. Compares slices, which is faster than a loop over ids."""
    size = min(len(a), len(b))
    if a[:size] == b[:size]:
        return size
    low, high = 0, size  # a[:low] equals b[:low], a[:high] differs from b[:high]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle)
    return low
