"""One completion: build and prefill the prompt, decode under stop rules and time limits, return candidate texts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from c2l_lsp.engine import wire
from c2l_lsp.engine.completion import prompt as prompts
from c2l_lsp.engine.completion import thresholds
from c2l_lsp.engine.completion.confidence import ConfidentText
from c2l_lsp.engine.completion.decode import Prefilled
from c2l_lsp.engine.completion.draft import DraftSource
from c2l_lsp.engine.completion.greedy import DecodedToken
from c2l_lsp.engine.completion.secret_guard import without_secrets
from c2l_lsp.engine.completion.shaping.place import Place
from c2l_lsp.engine.completion.shaping.shape import Shaper
from c2l_lsp.engine.completion.stop_rules import StopRules
from c2l_lsp.errors import RequestCancelled
from c2l_lsp.model.adapter.knn_lm import suffixes
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm.base import BaseModel

_DECODE_SHARE = 0.25
"""Share of the latency budget that decoding always gets, even after a slow prefill. A user who has stopped typing waits
for this answer, and the next request reuses the prefilled prompt."""

PATIENCE_S = 1.0
"""Seconds behind the latency budget for which an answer without any text yet goes on. The next key cancels it; a user
who pauses sees it late rather than never."""

_SPARE_CANDIDATES = 8
"""Further candidates of an explicit request of which no candidate may be shown, as beside a line that all repeat."""


@dataclass
class _Candidate:
    """A text to suggest, why decoding ended, the number of decoded tokens and their summed log-probability (nat).

    `first_line`: that of the first line. `replaced`: characters after the cursor that the text replaces.
    """

    text: str
    stop: str
    tokens: int
    logprob: float
    first_line: float
    replaced: int = 0


@dataclass(frozen=True)
class _Task:
    """One request with its prefilled prompt and its limits. `deadline` is a value of `time.perf_counter`."""

    request: wire.Complete
    rules: StopRules
    place: Place
    start: Prefilled
    deadline: float
    cancelled: Callable[[], bool]
    draft_source: DraftSource | None


class TokenDecoder(Protocol):
    """The decoder that a completion needs. `decode.Decoder` is the one of the engine."""

    def prefill(
        self, ids: list[int], kv_key: str = "", forced_prefix: str = "", cancelled: Callable[[], bool] = ...
    ) -> Prefilled:
        """Read a prompt. Raises RequestCancelled once `cancelled` returns True."""

    def top_tokens(self, start: Prefilled, count: int) -> list[int]:
        """Return the `count` most likely first tokens of an answer, best first."""

    def stream(
        self, start: Prefilled, first: int | None = None, draft_source: DraftSource | None = None
    ) -> Iterator[DecodedToken]:
        """Yield greedy tokens after a prompt, without end."""


class Completer:
    """Answers `wire.Complete` and `wire.Score` on one model. The caller activates the adapter."""

    def __init__(self, model: BaseModel, decoder: TokenDecoder) -> None:
        self._model, self._decoder = model, decoder
        self._anchors, self._shaper = prompts.Anchors(), Shaper()
        self._thresholds = thresholds.of(model.id)

    def complete(
        self,
        request: wire.Complete,
        *,
        generation: int,
        kv_key: str,
        cancelled: Callable[[], bool],
        draft_source: DraftSource | None = None,
    ) -> wire.Completion:
        """Return the completion of a request.

        `generation` and `kv_key` name the active adapter. Drafts are looked up in the prompt and in `draft_source`.
        Raises RequestCancelled at most one decode step after `cancelled` returns True, and FloatingPointError if the
        model produces NaN.
        """
        started = time.perf_counter()
        budget = request.max_latency_ms / 1e3
        deadline = started + budget
        rules = StopRules.at_cursor(request.prefix, request.suffix, request.multiline)
        prefix = request.prefix + request.must_start
        prompt = prompts.build(
            self._model, prefix, request.suffix, request.max_context_tokens, reserve=request.max_new_tokens,
            anchors=self._anchors, document=f"{request.folder}\0{request.path}",
        )  # fmt: skip
        if cancelled():
            raise RequestCancelled("The completion was cancelled before it started.")
        start = self._decoder.prefill(prompt.ids, kv_key, prompt.forced_prefix, cancelled)
        prefilled = time.perf_counter()
        if request.read_only:
            return _read_only(len(prompt.ids), start.reused, (prefilled - started) * 1e3)
        deadline = max(deadline, prefilled + _DECODE_SHARE * budget)
        place = self._shaper.place(request.language, prefix, request.suffix)
        task = _Task(request, rules, place, start, deadline, cancelled, draft_source)
        candidates = self._candidates(task)
        best = candidates[0]
        shown = _distinct(self._without_secrets(candidate, task) for candidate in self._likely(candidates, request))
        texts = [request.must_start + candidate.text for candidate in shown]
        ended = time.perf_counter()
        return wire.Completion(
            texts=texts,
            replaced=[candidate.replaced for candidate in shown],
            generation=generation,
            prompt_tokens=len(prompt.ids),
            new_tokens=sum(candidate.tokens for candidate in candidates),
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
        """Return the log-probability of a given text at the cursor. Takes one forward pass."""
        text = self._model.encode(request.text)
        prompt = prompts.build(
            self._model, request.prefix, request.suffix, request.max_context_tokens, reserve=len(text), heal=False
        )
        ids = torch.tensor([[*prompt.ids, *text]], device=self._model.device)
        first, last = len(prompt.ids) - 1, ids.shape[1] - 1
        hidden = self._model.hidden(ids)[0, first:last]
        fim = self._model.fim
        before = [*(prompt.ids if fim is None else fim.text_before(prompt.ids)), *text]
        tails = suffixes(before, len(before) - len(text) - 1, len(before) - 1)
        logits = adapters.mix_knn(hidden, adapters.logits(hidden), tails)
        logprobs = torch.log_softmax(logits.float(), -1)
        total = float(logprobs.gather(1, ids[0, len(prompt.ids) :, None]).sum())
        return wire.Scored(logprob=total, tokens=len(text), generation=generation)

    def _candidates(self, task: _Task) -> list[_Candidate]:
        """The greedy text, then one greedy text for each of the next best first tokens.

        Different first tokens make the texts differ without sampling, so the result is deterministic. If none of the
        wanted candidates is fit to show, an explicit request tries further ones within its latency budget.
        """
        wanted = task.request.candidates if task.request.invoked else 1
        most = wanted + _SPARE_CANDIDATES if task.request.invoked else 1
        firsts = self._decoder.top_tokens(task.start, most) if most > 1 else []
        candidates = [self._decode(task, None)]
        for token in firsts[1:]:
            enough = len(candidates) >= wanted and any(one.text.strip() for one in candidates)
            if enough or time.perf_counter() >= task.deadline:
                break
            candidates.append(self._decode(task, token))
        return candidates

    def _likely(self, candidates: list[_Candidate], request: wire.Complete) -> list[_Candidate]:
        """The first candidate with a text, and the others whose first line is likely enough."""
        if request.min_confidence == 0:
            return candidates
        least = math.log(self._thresholds.candidate)
        first, *others = [one for one in candidates if one.text.strip()] or candidates[:1]
        return [first, *(one for one in others if one.first_line >= least)]

    def _decode(self, task: _Task, first: int | None) -> _Candidate:
        request, rules, start = task.request, task.rules, task.start
        ids: list[int] = []
        # `forced` is the log-probability of the forced prefix. The user typed that text: it is not the model's guess.
        total, forced, stop = 0.0, 0.0, "tokens"
        confident = self._confident(request)
        for step in self._decoder.stream(start, first, task.draft_source):
            if task.cancelled():
                raise RequestCancelled("The completion was cancelled.")
            if math.isnan(step.logprob):
                raise FloatingPointError("it produced NaN; setting c2l.model.dtype to float32 may help.")
            if step.token in self._model.stops:
                stop = "eos"
                confident.finish(total - forced + step.logprob)
                break
            ids.append(step.token)
            total += step.logprob if math.isfinite(step.logprob) else 0.0
            new = self._new_text(ids, start)
            if not new:
                forced = total
            elif not confident.update(new, total - forced):
                stop = "unsure"
                break
            if new is not None and (reason := rules.stop_reason(new)):
                stop = reason
                break
            if len(ids) >= request.max_new_tokens:
                break
            late = time.perf_counter() - task.deadline
            if late >= PATIENCE_S or (late >= 0 and confident.result().strip()):
                stop = "latency"
                break
        # With a minimum confidence the result ends at a line's end or is a confident part, so it is never cut off.
        incomplete = confident.unlimited and stop in ("latency", "tokens")
        text = rules.trim(confident.result(), incomplete=incomplete)
        whole = not confident.is_part and not (incomplete and "\n" not in text)
        shaped = self._shaper.shape(text, task.place, whole=whole)
        return _Candidate(shaped.text, stop, len(ids), total, confident.first_line, shaped.replaced)

    def _confident(self, request: wire.Complete) -> ConfidentText:
        """The rule for a request. The user's own minimum takes the place of the model's."""
        if request.min_confidence == 0:
            return ConfidentText(unlimited=True)
        own = request.min_confidence > 0
        rule = replace(self._thresholds, line=request.min_confidence) if own else self._thresholds
        return ConfidentText(rule, requested=request.invoked)

    def _without_secrets(self, candidate: _Candidate, task: _Task) -> _Candidate:
        """The candidate up to its first secret."""
        request = task.request
        begun = request.must_start + candidate.text
        text = without_secrets(begun, request.prefix, request.suffix)
        if text == begun:
            return candidate
        shaped = self._shaper.shape(text[len(request.must_start) :], task.place, whole=False)
        return replace(candidate, text=shaped.text, replaced=shaped.replaced)

    def _new_text(self, ids: list[int], start: Prefilled) -> str | None:
        """The decoded text after the forced prefix; None while the forced prefix is not complete."""
        if not start.forced_prefix or self._model.token_bytes is None:
            return self._model.decode(ids)
        forced_prefix, text = start.forced_prefix.decode(), self._model.token_bytes.text(ids)
        return text[len(forced_prefix) :] if text.startswith(forced_prefix) else None


def _distinct(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """The candidates that are not blank, without those that equal a better one up to white space."""
    found: dict[str, _Candidate] = {}
    for candidate in candidates:
        if candidate.text.strip():
            found.setdefault(" ".join(candidate.text.split()), candidate)
    return list(found.values())


def _read_only(prompt_tokens: int, reused: int, ms: float) -> wire.Completion:
    return wire.Completion(
        texts=[], generation=0, prompt_tokens=prompt_tokens, new_tokens=0, ms=wire.Timing(prefill=ms, total=ms),
        reason="Only the prompt was read.", reused_tokens=reused,
    )  # fmt: skip
