"""One completion from beginning to end: prompt, prefill, decode under the stop rules and budgets, texts to show."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from c2l_lsp.engine import wire
from c2l_lsp.engine.completion import prompt as prompts
from c2l_lsp.engine.completion.confidence import ConfidentText
from c2l_lsp.engine.completion.decode import Prefilled
from c2l_lsp.engine.completion.draft import DraftSource
from c2l_lsp.engine.completion.greedy import DecodedToken
from c2l_lsp.engine.completion.stop_rules import StopRules
from c2l_lsp.errors import RequestCancelled
from c2l_lsp.model.adapter.knn_lm import tails
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.repo.filter.content import contains_secret

_WRITING = 0.25
"""Share of the latency budget that is left for writing, however long the prompt took to read: who has not typed on is
waiting for it, and the next request finds it read."""


@dataclass
class _Text:
    """One candidate: what to show, why decoding ended, tokens decoded and their summed log-probability."""

    text: str
    stop: str
    tokens: int
    logprob: float


@dataclass(frozen=True)
class _Task:
    """One request at work: its shape, its prompt as read, and what bounds it."""

    request: wire.Complete
    shape: StopRules
    start: Prefilled
    deadline: float
    cancelled: Callable[[], bool]
    draft_source: DraftSource | None


class Decoding(Protocol):
    """What a completion needs of a decoder."""

    def prefill(
        self, ids: list[int], kv_key: str = "", forced_prefix: str = "", cancelled: Callable[[], bool] = ...
    ) -> Prefilled:
        """Read a prompt. RequestCancelled as soon as `cancelled` says so."""

    def top_tokens(self, start: Prefilled, count: int) -> list[int]:
        """The likeliest first tokens of an answer, best first."""

    def stream(
        self, start: Prefilled, first: int | None = None, draft_source: DraftSource | None = None
    ) -> Iterator[DecodedToken]:
        """Greedy tokens after a prompt, without end."""


class Completer:
    """Answers `wire.Complete` on one model. The adapter in use is the caller's business."""

    def __init__(self, model: BaseModel, decoder: Decoding) -> None:
        self._model, self._decoder = model, decoder

    def complete(
        self,
        request: wire.Complete,
        *,
        generation: int,
        kv_key: str,
        cancelled: Callable[[], bool],
        draft_source: DraftSource | None = None,
    ) -> wire.Completion:
        """The completion of a request. RequestCancelled as soon as `cancelled` says so, at most one step later.

        `draft_source` is where drafts are looked up besides the prompt. FloatingPointError if the model computes NaN.
        """
        started = time.perf_counter()
        budget = request.max_latency_ms / 1e3
        deadline = started + budget
        shape = StopRules.of(request.prefix, request.suffix, request.multiline)
        prefix = request.prefix + request.must_start
        asked = prompts.build(
            self._model, prefix, request.suffix, request.max_context_tokens, reserve=request.max_new_tokens
        )
        if cancelled():
            raise RequestCancelled("The completion was cancelled before it began.")
        start = self._decoder.prefill(asked.ids, kv_key, asked.forced_prefix, cancelled)
        prefilled = time.perf_counter()
        deadline = max(deadline, prefilled + _WRITING * budget)
        task = _Task(request, shape, start, deadline, cancelled, draft_source)
        found = self._candidates(task)
        ended = time.perf_counter()
        best = found[0]
        shown = (request.must_start + item.text for item in found if item.text.strip())
        texts = [text for text in _distinct(shown) if not contains_secret(shape.line + text)]
        return wire.Completion(
            texts=texts,
            generation=generation,
            prompt_tokens=len(asked.ids),
            new_tokens=sum(item.tokens for item in found),
            ms=wire.Timing(
                prefill=(prefilled - started) * 1e3, decode=(ended - prefilled) * 1e3, total=(ended - started) * 1e3
            ),
            stop=best.stop,
            reason="" if texts else wire.UNSURE if best.stop == "unsure" else "The model suggests nothing here.",
            reused_tokens=start.reused,
            mean_logprob=best.logprob / max(best.tokens, 1),
        )

    @torch.inference_mode()
    def score(self, request: wire.Score, *, generation: int, adapters: AdapterSlot) -> wire.Scored:
        """Log-probability of a given text at the cursor, in one forward pass."""
        text = self._model.encode(request.text)
        asked = prompts.build(
            self._model, request.prefix, request.suffix, request.max_context_tokens, reserve=len(text), heal=False
        )
        ids = torch.tensor([[*asked.ids, *text]], device=self._model.device)
        first, last = len(asked.ids) - 1, ids.shape[1] - 1
        hidden = self._model.hidden(ids)[0, first:last]
        logits = adapters.recalled(hidden, adapters.logits(hidden), tails(ids[0].tolist(), first, last))
        found = torch.log_softmax(logits.float(), -1)
        total = float(found.gather(1, ids[0, len(asked.ids) :, None]).sum())
        return wire.Scored(logprob=total, tokens=len(text), generation=generation)

    def _candidates(self, task: _Task) -> list[_Text]:
        """The greedy text, then one for each next-best first token: different by construction, and deterministic."""
        wanted = task.request.candidates if task.request.invoked else 1
        firsts = self._decoder.top_tokens(task.start, wanted) if wanted > 1 else []
        found = [self._decode(task, None)]
        for token in firsts[1:]:
            if time.perf_counter() >= task.deadline:
                break
            found.append(self._decode(task, token))
        return found

    def _decode(self, task: _Task, first: int | None) -> _Text:
        request, shape, start = task.request, task.shape, task.start
        ids: list[int] = []
        total, paid, stop = 0.0, 0.0, "tokens"  # `paid`: of what stands before the cursor, and is no guess
        sure = ConfidentText(request.min_confidence)
        for step in self._decoder.stream(start, first, task.draft_source):
            if task.cancelled():
                raise RequestCancelled("The completion was cancelled.")
            if math.isnan(step.logprob):
                raise FloatingPointError("it computed no numbers (NaN); c2l.model.dtype float32 may help.")
            if step.token in self._model.stops:
                stop = "eos"
                sure.end(total - paid + step.logprob)
                break
            ids.append(step.token)
            total += step.logprob if math.isfinite(step.logprob) else 0.0
            new = self._new_text(ids, start)
            if not new:
                paid = total
            elif not sure.add(new, total - paid):
                stop = "unsure"
                break
            if new is not None and (reason := shape.stop(new)):
                stop = reason
                break
            if len(ids) >= request.max_new_tokens:
                break
            if time.perf_counter() >= task.deadline:
                stop = "latency"
                break
        unfinished = stop if sure.everything else ""  # else only what is finished, or sure, is left
        return _Text(shape.finish(sure.shown(), unfinished), stop, len(ids), total)

    def _new_text(self, ids: list[int], start: Prefilled) -> str | None:
        """What is new in an answer's tokens: what was owed is there already. None until all of it is paid."""
        if not start.forced_prefix or self._model.token_bytes is None:
            return self._model.decode(ids)
        forced_prefix, text = start.forced_prefix.decode(), self._model.token_bytes.text(ids)
        return text[len(forced_prefix) :] if text.startswith(forced_prefix) else None


def _distinct(texts: object) -> list[str]:
    return list(dict.fromkeys(texts))  # type: ignore[call-overload]
