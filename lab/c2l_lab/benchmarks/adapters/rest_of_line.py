"""Completes the rest of a line with the prompt, decoder and stop rules of the engine."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from c2l_lab.benchmarks.adapters.scoring import Context
from c2l_lab.repositories.spans import Span
from c2l_lsp.engine import wire
from c2l_lsp.engine.completion.complete import Completer
from c2l_lsp.engine.completion.decode import Decoder
from c2l_lsp.engine.completion.prompt import PREFIX_SHARE
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.lm.base import BaseModel

NEW_TOKENS = 32
_PATIENCE_MS = 600_000  # results must not depend on the speed of the machine


@dataclass(frozen=True)
class Answer:
    """One completion compared with the text in the file."""

    stratum: str
    exact: bool
    similarity: float
    ms: float
    prompt_tokens: int
    text: str

    def plain(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return dict(vars(self))


class Lines:
    """Completes spans with adapters and contexts. The decoder's KV cache is cleared between methods."""

    def __init__(self, model: BaseModel, max_tokens: int = 1536) -> None:
        self._model, self._max_tokens = model, max_tokens
        self._slot = AdapterSlot(model)
        self._decoder = Decoder(model, self._slot)
        self._completer = Completer(model, self._decoder)

    def ask(
        self,
        targets: Mapping[str, str],
        spans: Sequence[Span],
        adapter: Adapter | None = None,
        context: Context | None = None,
        budget: int = 0,
        seen: int | None = None,
    ) -> list[Answer]:
        """The completions of some spans, in order.

        context, budget: text to put before the prompt, and its maximum in tokens.
        seen: tokens of the file above the span's line that are in the prompt; None: as many as fit.
        """
        if adapter is not None:
            adapter.check(self._model)
        self._decoder.clear_cache()
        self._slot.activate(adapter)
        try:
            return [self._one(targets[span.path], span, context, budget, seen) for span in spans]
        finally:
            self._slot.activate(None)

    def _one(self, document: str, span: Span, context: Context | None, budget: int, seen: int | None) -> Answer:
        prefix, suffix = document[: span.start], document[span.end :]
        if seen is not None:
            above = prefix.rfind("\n") + 1
            ids = self._model.encode(prefix[:above])
            prefix = self._model.decode(ids[max(0, len(ids) - seen) :]) + prefix[above:]
        if context is not None:
            prefix = self._before(context(prefix, span.path), prefix, suffix, budget)
        request = wire.Complete(
            folder="", path=span.path, language="python", prefix=prefix, suffix=suffix, multiline="never",
            max_new_tokens=NEW_TOKENS, max_latency_ms=_PATIENCE_MS, max_context_tokens=self._max_tokens,
        )  # fmt: skip
        found = self._completer.complete(request, generation=0, kv_key="", cancelled=lambda: False)
        text = found.texts[0].partition("\n")[0].rstrip() if found.texts else ""
        truth = document[span.start : span.end].rstrip()
        similarity = difflib.SequenceMatcher(None, text, truth, autojunk=False).ratio()
        return Answer(span.stratum, text == truth, similarity, found.ms.total, found.prompt_tokens, text)

    def _before(self, context: str, prefix: str, suffix: str, budget: int) -> str:
        """A context followed by the end of the prefix that still fits the prompt."""
        if not context:
            return prefix
        model = self._model
        room = max(16, min(self._max_tokens, model.max_context - NEW_TOKENS) - 4)
        if model.fim is not None and suffix.strip():
            room -= max(int(room * (1 - PREFIX_SHARE)), 1)
        ids = model.encode(context)[:budget]
        context = model.decode(ids).rstrip("\n") + "\n"
        rest = model.encode(prefix)[-max(16, room - len(ids) - 8) :]
        return context + model.decode(rest)
