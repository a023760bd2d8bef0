"""Generation as the benchmark prescribes it, by the decoder that answers in the editor.

The raw prefix, no fill-in-the-middle: [bos or eos] + ids, of which the last 4096 are kept (fewer if the model has fewer
positions); greedy; up to 64 new tokens; only eos ends it, so that what follows the value is the scoring's business.
"""

from __future__ import annotations

from c2l_lsp.engine.completion.decode import Decoder
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.lm.base import BaseModel

MOST_INPUT = 4096
NEW_TOKENS = 64


class Generator:
    """Predictions of one model under adapters that change. The KV of a prefix serves the next task of its file."""

    def __init__(self, model: BaseModel) -> None:
        self._model = model
        self._slot = AdapterSlot(model)
        self._decoder = Decoder(model, self._slot)
        self._kv_key = ""

    def use(self, adapter: Adapter | None) -> None:
        """Predict under this adapter from now on; None is the bare model. AdapterError if it does not fit."""
        if adapter is not None:
            adapter.check(self._model)
        self._slot.activate(adapter)
        # a final map leaves hidden states, and so the KV, as they are; inner pairs do not
        self._kv_key = adapter.digest if adapter is not None and adapter.pairs else ""

    def prompt(self, prefix: str) -> list[int]:
        """The ids that are fed."""
        most = min(MOST_INPUT, self._model.max_context - NEW_TOKENS)
        return [self._model.start_id, *self._model.encode(prefix)][-most:]

    def predict(self, prefix: str) -> str:
        """The text that the model goes on with."""
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
    """One prediction, after which the model is bare again. For many, keep a `Generator`."""
    generator = Generator(model)
    generator.use(adapter)
    try:
        return generator.predict(prefix)
    finally:
        generator.use(None)
