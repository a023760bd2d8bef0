"""A whole completion on a tiny random model: budgets, cancellation, candidates, the adapter's effect on cost."""

from __future__ import annotations

from itertools import islice
from types import SimpleNamespace

import pytest
import torch

from c2l_lsp.engine import wire
from c2l_lsp.engine.completion.complete import Completer
from c2l_lsp.engine.completion.decode import Decoder, Prefilled
from c2l_lsp.engine.completion.greedy import DecodedToken
from c2l_lsp.engine.completion.prompt import build
from c2l_lsp.errors import RequestCancelled
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


def test_the_answer_carries_what_it_was_computed_under(completer):
    answer = run(completer, ask())
    assert answer.generation == 3
    assert 0 < answer.new_tokens <= 12
    assert answer.ms.total >= answer.ms.prefill > 0


def test_the_same_question_gives_the_same_answer_and_reuses_the_prompt(completer):
    first, second = run(completer, ask()), run(completer, ask())
    assert first.texts == second.texts
    assert second.reused_tokens >= first.prompt_tokens - 1


def test_what_is_not_sure_is_not_shown_and_costs_no_more_steps(completer):
    """Random weights are sure of nothing."""
    everything, sure = run(completer, ask()), run(completer, ask(min_confidence=0.1))
    assert (sure.texts, sure.stop, sure.reason) == ([], "unsure", wire.UNSURE)
    assert everything.texts and sure.new_tokens <= 2 < everything.new_tokens


def test_cancelled_before_it_began(completer):
    with pytest.raises(RequestCancelled):
        run(completer, ask(), cancelled=lambda: True)


def test_cancelled_while_decoding_stops_within_a_step(completer):
    asked = []

    def cancelled():
        asked.append(1)
        return len(asked) > 4

    with pytest.raises(RequestCancelled):
        run(completer, ask(max_new_tokens=200), cancelled)
    assert len(asked) == 5


def test_the_latency_budget_ends_decoding(completer):
    answer = run(completer, ask(max_new_tokens=1024, max_latency_ms=20, multiline="always"))
    assert answer.stop in ("latency", "eos", "scope", "blank", "repeat", "suffix")
    assert answer.ms.total < 5000


def test_invoked_candidates_differ(completer):
    answer = run(completer, ask(invoked=True, candidates=3))
    assert len(set(answer.texts)) == len(answer.texts)
    assert answer.new_tokens > run(completer, ask()).new_tokens


def test_an_adapter_costs_no_prompt_tokens(completer, slot, tiny):
    bare = run(completer, ask())
    torch.manual_seed(0)
    slot.use(Adapter(tiny.digest, "test", torch.randn(tiny.d, tiny.d)))
    adapted = run(completer, ask())
    assert adapted.prompt_tokens == bare.prompt_tokens
    assert adapted.texts != bare.texts


def test_the_answer_begins_with_what_it_must(completer):
    answer = run(completer, ask(must_start="a_value"))
    assert all(text.startswith("a_value") for text in answer.texts)


def test_what_was_typed_of_a_word_is_not_said_again(tiny, sources):
    """Wherever the cursor stands, the answer goes on from there, as a model allowed only agreeing tokens says it."""
    text = sources[3]
    completer = Completer(tiny, Decoder(tiny, AdapterSlot(tiny)))
    healed = 0
    for at in range(400, 460):
        request = ask(prefix=text[:at], suffix="", multiline="always")
        asked = build(tiny, request.prefix, "", request.max_context_tokens, reserve=12)
        steps = list(
            islice(
                completer._decoder.stream(completer._decoder.prefill(asked.ids, forced_prefix=asked.forced_prefix)), 12
            )
        )
        whole = tiny.token_bytes.text([step.token for step in steps])
        assert whole.startswith(asked.forced_prefix)
        healed += bool(asked.forced_prefix)
        for said in completer.complete(request, generation=0, kv_key="", cancelled=lambda: False).texts:
            assert whole[len(asked.forced_prefix) :].startswith(said)
    assert healed > 20


class Says:
    """A decoder that says a text, a token at a time."""

    def __init__(self, model, text):
        self._model, self._ids = model, model.encode(text)
        self.said, self.reading = 0, 0

    def prefill(self, ids, kv_key="", forced_prefix="", cancelled=None):
        self.said += self.reading
        return Prefilled(None, torch.zeros(1), len(ids), 0)

    def likeliest(self, start, count):
        return self._ids[:1]

    def stream(self, start, first=None, draft_source=None):
        for token in self._ids:
            self.said += 1
            yield DecodedToken(token, -1.0)


@pytest.mark.parametrize(
    ("written", "shown"), [("a = 1\n    b = 2\n    c = wha", "a = 1\n    b = 2"), ("a = 1\n    b", "a = 1")]
)
def test_when_time_runs_out_the_complete_lines_are_shown(tiny, monkeypatch, written, shown):
    """The clock goes on by 1 ms a token, and the budget ends where `written` does."""
    says = Says(tiny, f"{written}tever\n    d = 4\n")
    budget = len(tiny.encode(written))
    monkeypatch.setattr(
        "c2l_lsp.engine.completion.complete.time", SimpleNamespace(perf_counter=lambda: says.said / 1e3)
    )
    request = ask(max_latency_ms=budget, max_new_tokens=64, multiline="always", prefix="def f(a):\n    ", suffix="")
    answer = run(Completer(tiny, says), request)
    assert (answer.texts, answer.stop) == ([shown], "latency")
    assert says.said == budget


@pytest.mark.parametrize(("reading", "writes"), [(10, 90), (70, 30), (90, 25), (400, 25)])
def test_a_quarter_of_the_time_is_for_writing_however_long_reading_took(tiny, monkeypatch, reading, writes):
    says = Says(tiny, " + ".join(f"some_{n}" for n in range(300)))
    says.reading = reading
    monkeypatch.setattr(
        "c2l_lsp.engine.completion.complete.time", SimpleNamespace(perf_counter=lambda: says.said / 1e3)
    )
    answer = run(Completer(tiny, says), ask(max_latency_ms=100, max_new_tokens=200, prefix="x = ", suffix=""))
    assert answer.stop == "latency"
    assert abs(answer.new_tokens - writes) <= 1  # the clock is a float


class Doubts(Says):
    """It would not have begun as what stands before the cursor does, and has no doubt about what follows."""

    def prefill(self, ids, kv_key="", forced_prefix="", cancelled=None):
        return Prefilled(None, torch.zeros(1), len(ids), 0, forced_prefix.encode())

    def stream(self, start, first=None, draft_source=None):
        said = []
        for step in super().stream(start):
            said.append(step.token)
            yield DecodedToken(step.token, -3.0 if len(self._model.decode(said)) <= len(start.forced_prefix) else -0.01)


def test_a_word_that_was_begun_is_no_guess(tiny):
    says = Doubts(tiny, " volume(a)\n")
    answer = run(Completer(tiny, says), ask(prefix="box = vol", suffix="", min_confidence=0.1))
    assert answer.texts == ["ume(a)"]


@pytest.mark.parametrize("line", ["AWS_KEY = ", "password = "])
def test_a_credential_is_never_suggested(tiny, line):
    """Whatever the base model remembers: ours was trained without, another one may not have been."""
    key = "AKIA" + "Q7ZTW4PB9XKD2MLV" if "AWS" in line else "x9Kq2Lw8Zr4Tn6Vb1Mc5"
    for text, shown in ((f'"{key}"\n', []), ('os.environ["KEY"]\n', ['os.environ["KEY"]'])):
        answer = run(Completer(tiny, Says(tiny, text)), ask(prefix=line, suffix="", max_new_tokens=64))
        assert answer.texts == shown
