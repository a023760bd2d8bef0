"""Decoding: token by token from the adapted base LM, with the KV of earlier prompts reused.

A stream is a generator, so whoever consumes it decides after every token whether to go on: that is where cancellation,
latency budgets and stop rules live. No policy here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from c2l_lsp.model.base import BaseModel
from c2l_lsp.model.lora import AdapterSlot

SLOTS = 4
"""Prompts whose KV is kept: about as many documents as a person edits at a time."""


@dataclass
class _Slot:
    """KV of a token sequence: `ids[i]` stands at position i of `cache`."""

    cache: DynamicCache
    ids: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """One decoded token and its log-probability under the adapted model."""

    token: int
    logprob: float


@dataclass
class Prefilled:
    """A prompt that was read: logits of what comes next [vocabulary], and how many of its tokens were reused."""

    slot: _Slot
    logits: Tensor
    length: int
    reused: int


class Decoder:
    """Greedy decoding on one model. Not thread-safe: one request at a time, which is what the scheduler gives it."""

    def __init__(self, model: BaseModel, adapters: AdapterSlot) -> None:
        self._model, self._adapters = model, adapters
        self._slots: OrderedDict[int, tuple[str, _Slot]] = OrderedDict()
        self._next = 0
        self.tokens_computed = 0
        self.forward_passes = 0

    @torch.inference_mode()
    def prefill(self, ids: list[int], kv_key: str = "") -> Prefilled:
        """Read a prompt. `kv_key` names whatever the KV depends on besides the ids (an adapter with inner pairs)."""
        slot, reused = self._best(ids, kv_key)
        reused = min(reused, len(ids) - 1)  # the last token is always fed: its logits are needed
        _crop(slot, reused)
        logits = self._feed(slot, ids[reused:])
        return Prefilled(slot, logits, len(ids), reused)

    @torch.inference_mode()
    def stream(self, start: Prefilled, first: int | None = None) -> Iterator[Step]:
        """Greedy tokens after a prompt, without end: the consumer stops. `first` forces the first token.

        May be called again for the same prompt; the KV of the last answer is dropped then.
        """
        _crop(start.slot, start.length)
        logits = start.logits
        while True:
            scores = torch.log_softmax(logits.float(), -1)
            token = int(scores.argmax()) if first is None else first
            first = None
            yield Step(token, float(scores[token]))
            logits = self._feed(start.slot, [token])

    def forget(self) -> None:
        """Drop all kept KV."""
        self._slots.clear()

    def _feed(self, slot: _Slot, ids: list[int]) -> Tensor:
        device = self._model.device
        output = self._model.body(
            input_ids=torch.tensor([ids], device=device), past_key_values=slot.cache, use_cache=True
        )
        slot.ids += ids
        self.tokens_computed += len(ids)
        self.forward_passes += 1
        return self._adapters.logits(output.last_hidden_state[0, -1])

    def _best(self, ids: list[int], kv_key: str) -> tuple[_Slot, int]:
        """The slot that shares the longest prefix, or a fresh one in place of the oldest."""
        best, shared = None, 0
        for number, (key, slot) in self._slots.items():
            if key == kv_key and (common := _common(slot.ids, ids)) > shared:
                best, shared = number, common
        # a slot is taken over only if most of it agrees; otherwise another document's KV would be thrown away
        if best is not None and (shared * 2 >= len(self._slots[best][1].ids) or len(self._slots) >= SLOTS):
            self._slots.move_to_end(best)
            return self._slots[best][1], shared
        if len(self._slots) >= SLOTS:
            self._slots.popitem(last=False)
        self._next += 1
        slot = _Slot(DynamicCache(config=self._model.lm.config))
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


def _crop(slot: _Slot, length: int) -> None:
    if length < len(slot.ids):
        slot.cache.crop(length - len(slot.ids))  # a negative count is what every version understands
        del slot.ids[length:]
