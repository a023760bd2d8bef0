"""What the model would write at every key of a place, with its confidence, so that any threshold can be tried later."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from c2l_lab.benchmarks.perf.typing import Place
from c2l_lsp.engine.completion import prompt as prompts
from c2l_lsp.engine.completion.decode import Decoder
from c2l_lsp.engine.completion.stop_rules import StopRules
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm.base import BaseModel

_LEAST = math.log(0.02)
"""Summed log-probability below which no threshold shows anything, so decoding ends."""
_TOKENS, _CONTEXT = 48, 1536


@dataclass(frozen=True)
class Trace:
    """The text after each token and the summed log-probabilities; `end`: that with the end token, or None."""

    texts: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    end: float | None = None


class Tracer:
    """Decodes with one base model alone."""

    def __init__(self, model: BaseModel) -> None:
        self._model, self._anchors = model, prompts.Anchors()
        self._decoder = Decoder(model, AdapterSlot(model))

    def trace(self, prefix: str, suffix: str, document: str) -> Trace:
        """The greedy text at a cursor."""
        rules = StopRules.at_cursor(prefix, suffix, "auto")
        prompt = prompts.build(
            self._model, prefix, suffix, _CONTEXT, reserve=_TOKENS, anchors=self._anchors, document=document
        )
        start = self._decoder.prefill(prompt.ids, "", prompt.forced_prefix)
        found = Trace()
        ids: list[int] = []
        total = forced = 0.0
        for step in self._decoder.stream(start):
            if step.token in self._model.stops:
                return Trace(found.texts, found.logprobs, total - forced + step.logprob)
            ids.append(step.token)
            total += step.logprob
            text = self._new_text(ids, prompt.forced_prefix)
            if not text:
                forced = total
                continue
            found.texts.append(text)
            found.logprobs.append(total - forced)
            if total - forced < _LEAST or len(ids) >= _TOKENS or rules.stop_reason(text):
                break
        return found

    def _new_text(self, ids: list[int], forced_prefix: str) -> str:
        if not forced_prefix or self._model.token_bytes is None:
            return self._model.decode(ids)
        return self._model.token_bytes.text(ids)[len(forced_prefix) :]


def of_place(tracer: Tracer, place: Place, name: str) -> list[tuple[int, Trace]]:
    """(Offset, trace) for each key of a place after the first."""
    found, offset, text = [], 0, "".join(key.text for key in place.keys)
    for key in place.keys[:-1]:
        offset += len(key.text)
        found.append((offset, tracer.trace(place.prefix + text[:offset], place.suffix, name)))
    return found
