"""A whole completion on a tiny random model: budgets, cancellation, candidates, the adapter's effect on cost."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pytest
import torch

from c2l_lsp.engine import wire
from c2l_lsp.engine.completion.complete import PATIENCE_S, Completer
from c2l_lsp.engine.completion.decode import Decoder, Prefilled
from c2l_lsp.engine.completion.greedy import DecodedToken
from c2l_lsp.engine.completion.prompt import build
from c2l_lsp.errors import RequestCancelled
from c2l_lsp.model.adapter.kv_sequence import sequence_reader
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot


@pytest.fixture
def slot(tiny):
    return AdapterSlot(tiny)


@pytest.fixture
def completer(tiny, slot):
    return Completer(tiny, Decoder(tiny, slot))


def ask(**changes):
    plain = {
        "folder": "",
        "path": "a.py",
        "language": "python",
        "prefix": "def f(a):\n    return ",
        "suffix": "\n\nprint(f(1))\n",
        "max_new_tokens": 12,
        "max_latency_ms": 20_000,
    }
    return wire.Complete(**{**plain, **changes})


def run(completer, request, cancelled=lambda: False):
    return completer.complete(request, generation=3, kv_key="", cancelled=cancelled)


def test_the_answer_reports_generation_tokens_and_times(completer):
    answer = run(completer, ask())
    assert answer.generation == 3
    assert 0 < answer.new_tokens <= 12
    assert answer.ms.total >= answer.ms.prefill > 0


def test_a_repeated_request_gives_the_same_texts_and_reuses_the_prompt(completer):
    first, second = run(completer, ask()), run(completer, ask())
    assert first.texts == second.texts
    assert second.reused_tokens >= first.prompt_tokens - 1


def test_an_unlikely_text_is_not_suggested_and_decoding_stops_early(completer):
    """Random weights give every text a low confidence."""
    unlimited, limited = run(completer, ask()), run(completer, ask(min_confidence=0.1))
    assert (limited.texts, limited.stop, limited.reason) == ([], "unsure", wire.UNSURE)
    assert limited.new_tokens <= 2 < unlimited.new_tokens


def test_a_request_that_is_already_cancelled_is_not_answered(completer):
    with pytest.raises(RequestCancelled):
        run(completer, ask(), cancelled=lambda: True)


def test_cancelled_request_stops_within_one_step(completer):
    calls = []

    def cancelled():
        calls.append(1)
        return len(calls) > 4

    with pytest.raises(RequestCancelled):
        run(completer, ask(max_new_tokens=200), cancelled)
    assert len(calls) == 5


def test_decoding_stops_at_the_latency_budget(completer):
    answer = run(completer, ask(max_new_tokens=1024, max_latency_ms=20, multiline="always"))
    assert answer.stop in ("latency", "eos", "scope", "blank", "repeat", "suffix")
    assert answer.ms.total < 5000


def test_an_explicit_request_gets_different_candidates(completer):
    answer = run(completer, ask(invoked=True, candidates=3))
    assert len(set(answer.texts)) == len(answer.texts)
    assert answer.new_tokens > run(completer, ask()).new_tokens


def test_an_adapter_needs_no_prompt_tokens(completer, slot, tiny):
    base = run(completer, ask())
    torch.manual_seed(0)
    slot.activate(Adapter(tiny.digest, "test", torch.randn(tiny.d, tiny.d)))
    adapted = run(completer, ask())
    assert adapted.prompt_tokens == base.prompt_tokens
    assert adapted.mean_logprob != base.mean_logprob  # it decodes another text


@pytest.mark.parametrize("order", ["psm", "joined"])
@pytest.mark.parametrize("interrupted", [False, True])
def test_answers_while_typing_are_those_of_a_new_decoder(tiny, sources, order, interrupted):
    """Whatever was decoded for earlier keys, interrupted or not, an answer is the same; and it computes less."""
    model = replace(tiny, fim=replace(tiny.fim, order=order))
    slot = AdapterSlot(model)

    def fresh() -> Completer:
        return Completer(model, Decoder(model, slot, sequence_reader(model, slot, int8=False)))

    text, typing = sources[3], fresh()
    first = run(typing, ask(prefix=text[:400], max_new_tokens=16))
    answer = (first.texts or [text[400:420]])[0]
    for size in range(1, min(len(answer), 20)):
        request = ask(prefix=text[:400] + answer[:size], max_new_tokens=16)
        if interrupted:
            calls = iter([False] * 6)
            with contextlib.suppress(RequestCancelled):
                run(typing, request, cancelled=lambda left=calls: next(left, True))
        anchored = typing._anchors  # the same prompt: a new decoder has no anchor yet
        expected = fresh()
        expected._anchors = anchored
        found = run(typing, request)
        assert found.texts == run(expected, request).texts
        assert found.reused_tokens >= found.prompt_tokens - 2


def test_the_answer_begins_with_the_required_text(completer):
    answer = run(completer, ask(must_start="a_value"))
    assert all(text.startswith("a_value") for text in answer.texts)


def test_a_half_typed_word_is_not_repeated(tiny, sources):
    """At every cursor position the answer continues the text: the decoded tokens without the forced prefix."""
    text = sources[3]
    completer = Completer(tiny, Decoder(tiny, AdapterSlot(tiny)))
    healed = 0
    for at in range(400, 460):
        request = ask(prefix=text[:at], suffix="", multiline="always")
        prompt = build(tiny, request.prefix, "", request.max_context_tokens, reserve=12)
        start = completer._decoder.prefill(prompt.ids, forced_prefix=prompt.forced_prefix)
        steps = list(islice(completer._decoder.stream(start), 12))
        whole = tiny.token_bytes.text([step.token for step in steps])
        assert whole.startswith(prompt.forced_prefix)
        healed += bool(prompt.forced_prefix)
        for answer in completer.complete(request, generation=0, kv_key="", cancelled=lambda: False).texts:
            assert whole[len(prompt.forced_prefix) :].startswith(answer)
    assert healed > 20


def test_a_prompt_that_was_read_ahead_costs_the_first_key_nothing(completer):
    """And suggests nothing itself. Afterwards a key costs its own tokens."""
    ahead = run(completer, ask(read_only=True))
    assert (ahead.texts, ahead.new_tokens, ahead.reused_tokens) == ([], 0, 0)
    assert ahead.prompt_tokens > 8
    answer = run(completer, ask())
    assert answer.reused_tokens == answer.prompt_tokens == ahead.prompt_tokens
    assert answer.new_tokens > 0


class ScriptedDecoder:
    """Yields the tokens of a given text. `steps` counts prefill and decode steps; the tests use it as a clock."""

    def __init__(self, model, text, prefill_steps=0):
        self._model, self._ids = model, model.encode(text)
        self.steps, self._prefill_steps = 0, prefill_steps

    def prefill(self, ids, kv_key="", forced_prefix="", cancelled=None):
        self.steps += self._prefill_steps
        return Prefilled(None, torch.zeros(1), len(ids), 0)

    def top_tokens(self, start, count):
        return self._ids[:1]

    def stream(self, start, first=None, draft_source=None):
        for token in self._ids:
            self.steps += 1
            yield DecodedToken(token, -0.5)


@pytest.fixture
def use_clock(monkeypatch):
    """Let time pass by 1 ms with every step of a decoder."""

    def use(decoder):
        clock = SimpleNamespace(perf_counter=lambda: decoder.steps / 1e3)
        monkeypatch.setattr("c2l_lsp.engine.completion.complete.time", clock)

    return use


@pytest.mark.parametrize(
    ("decoded", "suggested"), [("a = 1\n    b = 2\n    c = wha", "a = 1\n    b = 2"), ("a = 1\n    b", "a = 1")]
)
def test_at_the_latency_budget_the_complete_lines_are_suggested(tiny, use_clock, decoded, suggested):
    """The budget ends after `decoded`, inside a word."""
    decoder = ScriptedDecoder(tiny, f"{decoded}tever\n    d = 4\n")
    budget = len(tiny.encode(decoded))
    use_clock(decoder)
    request = ask(max_latency_ms=budget, max_new_tokens=64, multiline="always", prefix="def f(a):\n    ", suffix="")
    answer = run(Completer(tiny, decoder), request)
    assert (answer.texts, answer.stop) == ([suggested], "latency")
    assert decoder.steps == budget


@pytest.mark.parametrize(("prefill_ms", "decode_ms"), [(10, 90), (70, 30), (90, 25), (400, 25)])
def test_decoding_gets_a_quarter_of_the_budget_after_a_slow_prefill(tiny, use_clock, prefill_ms, decode_ms):
    decoder = ScriptedDecoder(tiny, " + ".join(f"some_{n}" for n in range(300)), prefill_steps=prefill_ms)
    use_clock(decoder)
    answer = run(Completer(tiny, decoder), ask(max_latency_ms=100, max_new_tokens=200, prefix="x = ", suffix=""))
    assert answer.stop == "latency"
    assert abs(answer.new_tokens - decode_ms) <= 1  # the clock is a float


@pytest.mark.parametrize(("line_ms", "shown"), [(60, True), (900, True), (1300, False)])
def test_an_answer_without_any_text_goes_on_behind_the_budget(tiny, use_clock, line_ms, shown):
    """Until its first line is complete, but not forever: a user who pauses sees it late rather than never."""
    line = tiny.decode(tiny.encode(" + ".join(f"some_{n}" for n in range(600)))[:line_ms])
    decoder = ScriptedDecoder(tiny, f"{line}\n" + "b = 2\n" * 900)
    use_clock(decoder)
    request = ask(max_latency_ms=50, max_new_tokens=2000, prefix="x = ", suffix="", min_confidence=1e-300)
    answer = run(Completer(tiny, decoder), request)
    assert bool(answer.texts) == shown
    assert decoder.steps <= 50 + PATIENCE_S * 1e3


class OtherCandidates(ScriptedDecoder):
    """The first candidate is likely, and each other one less."""

    def top_tokens(self, start, count):
        return [self._model.encode(text)[0] for text in ("one", "two", "three")][:count]

    def stream(self, start, first=None, draft_source=None):
        logprob = {None: -0.1}.get(first, -1.0 if first == self._model.encode("two")[0] else -5.0)
        text = "one" if first is None else "two" if logprob == -1.0 else "three"
        for number, token in enumerate(self._model.encode(f"{text}(a)\n")):
            yield DecodedToken(token, logprob if number == 0 else -0.01)


def test_other_candidates_need_a_confidence_of_their_own(tiny):
    request = ask(prefix="x = ", suffix="", invoked=True, candidates=3, min_confidence=-1.0)
    assert run(Completer(tiny, OtherCandidates(tiny, "")), request).texts == ["one(a)", "two(a)"]


def test_the_next_candidate_takes_the_place_of_one_that_repeats_a_neighbour(tiny):
    request = ask(prefix="", suffix="\none(a)\n", invoked=True, candidates=3, min_confidence=-1.0)
    assert run(Completer(tiny, OtherCandidates(tiny, "")), request).texts == ["two(a)"]
    request = ask(prefix="two(a)\n", suffix="\none(a)\n", invoked=True, candidates=3, min_confidence=-1.0)
    assert run(Completer(tiny, OtherCandidates(tiny, "")), request).texts == ["three(a)"]
    one = ask(prefix="two(a)\n", suffix="\none(a)\n", invoked=True, candidates=1, min_confidence=0.0)
    assert run(Completer(tiny, OtherCandidates(tiny, "")), one).texts == ["three(a)"], "further ones than were wanted"
    unasked = ask(prefix="two(a)\n", suffix="\none(a)\n", min_confidence=0.0)
    assert run(Completer(tiny, OtherCandidates(tiny, "")), unasked).texts == []


class UnlikelyPrefix(ScriptedDecoder):
    """The tokens of the forced prefix are unlikely, the tokens after it are certain."""

    def prefill(self, ids, kv_key="", forced_prefix="", cancelled=None):
        return Prefilled(None, torch.zeros(1), len(ids), 0, forced_prefix.encode())

    def stream(self, start, first=None, draft_source=None):
        ids = []
        for step in super().stream(start):
            ids.append(step.token)
            in_prefix = len(self._model.decode(ids)) <= len(start.forced_prefix)
            yield DecodedToken(step.token, -3.0 if in_prefix else -0.01)


def test_the_forced_prefix_does_not_lower_the_confidence(tiny):
    decoder = UnlikelyPrefix(tiny, " volume(a)\n")
    answer = run(Completer(tiny, decoder), ask(prefix="box = vol", suffix="", min_confidence=0.1))
    assert answer.texts == ["ume(a)"]


@pytest.mark.parametrize("line", ["AWS_KEY = ", "password = "])
def test_a_credential_is_never_suggested(tiny, line):
    """The shipped models were trained without secrets, but another base model may have memorised some."""
    key = "AKIA" + "Q7ZTW4PB9XKD2MLV" if "AWS" in line else "x9Kq2Lw8Zr4Tn6Vb1Mc5"
    for text, suggested in ((f'"{key}"\n', []), ('os.environ["KEY"]\n', ['os.environ["KEY"]'])):
        answer = run(Completer(tiny, ScriptedDecoder(tiny, text)), ask(prefix=line, suffix="", max_new_tokens=64))
        assert answer.texts == suggested
