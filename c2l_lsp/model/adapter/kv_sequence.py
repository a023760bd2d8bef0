"""Token sequences with a KV cache, and the reader that runs a model on them.

`sequence_reader` chooses our own forward pass (`forward`) for the architectures it supports, and transformers' for all
others. Decoding knows only the two protocols below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from c2l_lsp.model.adapter.forward import ALL_TOKENS, NativeReader
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.lm.llama import LlamaLM
from c2l_lsp.model.runtime.fusion import can_merge, unsupported_reason
from c2l_lsp.model.runtime.lora_pair import LoraPair


class KVSequence(Protocol):
    """One token sequence and the keys and values of its tokens."""

    def prefill(self, ids: list[int], all_positions: bool = False) -> Tensor:
        """Append n prompt tokens. Returns final hidden states [n, d] at all of them, or [1, d] at the last."""

    def decode(self, ids: list[int]) -> Tensor:
        """Append n tokens in one decode step: a token and its draft. Returns final hidden states [n, d] at all."""

    def crop(self, length: int) -> None:
        """Drop the tokens from position `length` on."""


class SequenceReader(Protocol):
    """Runs one model on token sequences, under the adapter that is current in its slot at each call.

    A sequence must be continued under the adapter that it was begun with.
    """

    @property
    def decode_matches_prefill(self) -> bool:
        """Whether a decode step leaves the same keys and values as a prefill of the same tokens."""

    @property
    def prefill_chunk(self) -> int:
        """Tokens of a prompt to prefill per call, so that a cancelled request ends soon."""

    def prepare(self) -> None:
        """Prepare the weights of the current adapter now rather than in the next call."""

    def new_sequence(self) -> KVSequence:
        """A sequence without tokens."""

    def logits(self, hidden: Tensor, step: bool = False) -> Tensor:
        """Logits [n, V] of final hidden states [n, d]; `step` tells that they come from a decode step."""


class TransformersReader:
    """`SequenceReader` for any architecture; LoRA pairs act through the hooks of the adapter slot."""

    decode_matches_prefill, prefill_chunk = True, ALL_TOKENS

    def __init__(self, model: BaseModel, adapters: AdapterSlot) -> None:
        self._model, self._adapters = model, adapters

    def prepare(self) -> None:
        """Do nothing: hooks need no preparation."""

    def logits(self, hidden: Tensor, step: bool = False) -> Tensor:
        """Logits [n, V] of final hidden states [n, d]."""
        del step
        return self._adapters.logits(hidden)

    def new_sequence(self) -> KVSequence:
        """A sequence without tokens."""
        return _TransformersSequence(self._model)


class _TransformersSequence:
    def __init__(self, model: BaseModel) -> None:
        self._model = model
        self._cache = _new_cache(model.lm)
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
            self._cache.crop(length - self._length)  # every version of transformers accepts a negative count
            self._length = length


def _new_cache(lm: Any) -> Any:  # noqa: ANN401 - a model's own cache, or transformers'
    if isinstance(lm, LlamaLM):
        return lm.new_cache()
    from transformers.cache_utils import DynamicCache  # takes a second; models of transformers have imported it already

    return DynamicCache(config=lm.config)


class _NativeOrTransformersReader:
    """`NativeReader`, and `TransformersReader` while the current adapter has pairs that cannot be merged.

    Such pairs belong to modules other than the projections of the layers, the head for example.
    """

    def __init__(self, model: BaseModel, adapters: AdapterSlot, int8: bool | None) -> None:
        self._adapters = adapters
        self._native = NativeReader(model.lm, adapters, int8, int8_model=model.int8_model)
        self._transformers = TransformersReader(model, adapters)
        self._chosen: tuple[Mapping[str, LoraPair], SequenceReader] = ({}, self._native)

    @property
    def decode_matches_prefill(self) -> bool:
        """See `SequenceReader`."""
        return self._current.decode_matches_prefill

    @property
    def prefill_chunk(self) -> int:
        """See `SequenceReader`."""
        return self._current.prefill_chunk

    def prepare(self) -> None:
        """See `SequenceReader`."""
        self._current.prepare()

    def new_sequence(self) -> KVSequence:
        """See `SequenceReader`."""
        return self._current.new_sequence()

    def logits(self, hidden: Tensor, step: bool = False) -> Tensor:
        """See `SequenceReader`."""
        return self._current.logits(hidden, step)

    @property
    def _current(self) -> SequenceReader:
        pairs = self._adapters.pairs
        if self._chosen[0] is not pairs:  # cached: this runs at every token, and `can_merge` reads about forty names
            self._chosen = (pairs, self._native if can_merge(pairs) else self._transformers)
        return self._chosen[1]


def sequence_reader(model: BaseModel, adapters: AdapterSlot, int8: bool | None = None) -> SequenceReader:
    """The fastest reader that supports the model; `int8` as in `NativeReader`."""
    if unsupported_reason(model.lm):
        return TransformersReader(model, adapters)
    return _NativeOrTransformersReader(model, adapters, int8)
