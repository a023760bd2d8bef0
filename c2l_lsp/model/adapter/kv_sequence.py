"""Reading texts into hidden states with their KV kept: our own forward pass where it fits, else transformers'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from c2l_lsp.model.adapter.forward import ALL, NativeReader
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.lm.llama import LlamaLM
from c2l_lsp.model.runtime.lora_pair import LoraPair
from c2l_lsp.model.runtime.weights import can_merge, unsupported_reason


class KVSequence(Protocol):
    """One token sequence as a model has read it so far."""

    def prefill(self, ids: list[int], all_positions: bool = False) -> Tensor:
        """Append ids; final normed hidden states [n, d] of all of them, or [1, d] of the last."""

    def decode(self, ids: list[int]) -> Tensor:
        """Append a decode step: a token and what was drafted after it; hidden states [n, d] of all of them."""

    def crop(self, length: int) -> None:
        """Forget everything from position `length` on."""


class SequenceReader(Protocol):
    """Opens texts on one model, under whatever adapter its slot holds when they are read."""

    @property
    def decode_matches_prefill(self) -> bool:
        """Whether a step leaves the same KV as reading the same ids in a prompt."""

    @property
    def prefill_chunk(self) -> int:
        """Tokens of a prompt to be read at a time, so that nobody has to wait long for the end of a call."""

    def prepare(self) -> None:
        """Make ready what the current adapter needs."""

    def new_sequence(self) -> KVSequence:
        """An empty text."""

    def logits(self, hidden: Tensor, step: bool = False) -> Tensor:
        """Logits [n, vocabulary] of final hidden states [n, d], of a decode step or of a prompt."""


class TransformersReader:
    """Any architecture; inner pairs act through the slot's hooks."""

    def __init__(self, model: BaseModel, adapters: AdapterSlot) -> None:
        self._model, self._adapters = model, adapters

    decode_matches_prefill, prefill_chunk = True, ALL

    def prepare(self) -> None:
        """Nothing: pairs act as they are."""

    def logits(self, hidden: Tensor, step: bool = False) -> Tensor:
        """Logits [n, vocabulary] of final hidden states [n, d]."""
        del step
        return self._adapters.logits(hidden)

    def new_sequence(self) -> KVSequence:
        """An empty text."""
        return _TransformersSequence(self._model)


class _TransformersSequence:
    def __init__(self, model: BaseModel) -> None:
        self._model = model
        self._cache = _cache_of(model.lm)
        self._length = 0

    @torch.inference_mode()
    def prefill(self, ids: list[int], all_positions: bool = False) -> Tensor:
        tokens = torch.tensor([ids], device=self._model.device)
        output = self._model.body(input_ids=tokens, past_key_values=self._cache, use_cache=True)
        self._length += len(ids)
        states: Tensor = output.last_hidden_state[0]
        return states if all_positions else states[-1:]

    def decode(self, ids: list[int]) -> Tensor:
        return self.prefill(ids, all_positions=True)

    def crop(self, length: int) -> None:
        if length < self._length:
            self._cache.crop(length - self._length)  # a negative count is what every version understands
            self._length = length


def _cache_of(lm: Any) -> Any:  # noqa: ANN401 - a model's own cache, or transformers'
    if isinstance(lm, LlamaLM):
        return lm.new_cache()
    from transformers.cache_utils import DynamicCache  # takes a second, and comes with transformers' models anyway

    return DynamicCache(config=lm.config)


class _EitherReader:
    """Our own pass, stepping aside while an adapter has pairs it cannot merge (outside the layers' projections)."""

    def __init__(self, model: BaseModel, adapters: AdapterSlot, int8: bool | None) -> None:
        self._adapters = adapters
        self._native, self._other = (
            NativeReader(model.lm, adapters, int8, int8_model=model.int8_model),
            TransformersReader(model, adapters),
        )
        self._judged: tuple[Mapping[str, LoraPair], SequenceReader] = ({}, self._native)

    @property
    def decode_matches_prefill(self) -> bool:
        """Whether a step leaves the same KV as a prompt."""
        return self._current.decode_matches_prefill

    @property
    def prefill_chunk(self) -> int:
        """Tokens of a prompt to be read at a time."""
        return self._current.prefill_chunk

    def prepare(self) -> None:
        """Merge the current adapter's pairs, if it has any and they can be merged."""
        self._current.prepare()

    def new_sequence(self) -> KVSequence:
        """An empty text."""
        return self._current.new_sequence()

    def logits(self, hidden: Tensor, step: bool = False) -> Tensor:
        """Logits [n, vocabulary] of final hidden states [n, d], of a decode step or of a prompt."""
        return self._current.logits(hidden, step)

    @property
    def _current(self) -> SequenceReader:
        pairs = self._adapters.pairs
        if self._judged[0] is not pairs:  # asked at every token: some forty names are not looked at each time
            self._judged = (pairs, self._native if can_merge(pairs) else self._other)
        return self._judged[1]


def sequence_reader(model: BaseModel, adapters: AdapterSlot, int8: bool | None = None) -> SequenceReader:
    """The fastest reader that fits a model; `int8` as in NativeReader."""
    return TransformersReader(model, adapters) if unsupported_reason(model.lm) else _EitherReader(model, adapters, int8)
