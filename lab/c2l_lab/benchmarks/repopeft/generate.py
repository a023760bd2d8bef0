"""Generation as the benchmark prescribes it, with the decoder of the engine.

The prompt is the raw prefix without fill in the middle: [bos or eos] + the last 4,096 ids, or fewer if the model has
fewer positions. Decoding is greedy, up to 64 new tokens or eos. Scoring cuts off what follows the value.
"""

from __future__ import annotations

from c2l_lsp.engine.completion.decode import Decoder
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.lm.base import BaseModel

MOST_INPUT = 4096
NEW_TOKENS = 64


class Generator:
    """Predictions of one model with changing adapters. Tasks of one file share the KV cache of their prefix."""

    def __init__(self, model: BaseModel) -> None:
        self._model = model
        self._slot = AdapterSlot(model)
        self._decoder = Decoder(model, self._slot)
        self._kv_key = ""

    def use(self, adapter: Adapter | None) -> None:
        """Use this adapter from now on; None: the base model. AdapterError if it does not fit the model."""
        if adapter is not None:
            adapter.check(self._model)
        self._slot.activate(adapter)
        # a final map does not change the KV cache; LoRA pairs do
        self._kv_key = adapter.digest if adapter is not None and adapter.pairs else ""

    def prompt(self, prefix: str) -> list[int]:
        """The ids of the prompt."""
        most = min(MOST_INPUT, self._model.max_context - NEW_TOKENS)
        return [self._model.start_id, *self._model.encode(prefix)][-most:]

    def predict(self, prefix: str) -> str:
        """The predicted text."""
        start = self._decoder.prefill(self.prompt(prefix), self._kv_key)
        end = self._model.tokenizer.eos_token_id
        ids: list[int] = []
        for step in self._decoder.stream(start):
            if step.token == end:
                break
            ids.append(step.token)
            if len(ids) == NEW_TOKENS:
                break
        return self._model.decode(ids)


def generate(model: BaseModel, adapter: Adapter | None, prefix: str) -> str:
    """One prediction. For many, use a `Generator`."""
    generator = Generator(model)
    generator.use(adapter)
    try:
        return generator.predict(prefix)
    finally:
        generator.use(None)
