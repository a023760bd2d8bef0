"""The decoder: what comes out is greedy and the same with every shortcut on or off; what it costs is counted."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from c2l_lsp.config import Model
from c2l_lsp.engine.completion.decode import DRAFT, SLOTS, Decoder
from c2l_lsp.engine.completion.draft import LONGEST, Draft, DraftBudget, DraftBudgets, DraftLookup, DraftSource
from c2l_lsp.engine.completion.draft_index import DraftIndex
from c2l_lsp.errors import RequestCancelled
from c2l_lsp.model.adapter.kv_sequence import TransformersReader, sequence_reader
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm import base
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.lm.fim import FimTokens

V = 64


class Script:
    """A reader whose model goes on as `rule(token)` says: no weights, exact, and it remembers what it was fed."""

    def __init__(self, rule: dict[int, int] | None = None, exact: bool = True) -> None:
        self._rule, self.exact, self.portion = rule or {}, exact, 1 << 30

    def open(self) -> _ScriptText:
        return _ScriptText(self._rule)

    def logits(self, hidden: Tensor, step: bool = False) -> Tensor:
        return hidden


class _ScriptText:
    def __init__(self, rule: dict[int, int]) -> None:
        self._rule, self.ids = rule, list[int]()

    def read(self, ids: list[int], every: bool = False) -> Tensor:
        self.ids += ids
        rows = torch.zeros(len(ids), V)
        for row, token in enumerate(ids):
            rows[row, self._rule.get(token, (token + 1) % V)] = 9.0
        return rows if every else rows[-1:]

    def step(self, ids: list[int]) -> Tensor:
        return self.read(ids, every=True)

    def crop(self, length: int) -> None:
        del self.ids[length:]


NOTHING = SimpleNamespace(recalled=lambda hidden, logits, before: logits)
"""A slot without an adapter."""


def scripted(
    rule: dict[int, int] | None = None, *, draft: int = DRAFT, fim: FimTokens | None = None, exact: bool = True
) -> Decoder:
    model = SimpleNamespace(fim=fim, token_bytes=None)
    return Decoder(model, NOTHING, Script(rule, exact), draft)  # type: ignore[arg-type]


def written(decoder: Decoder, ids: list[int], count: int, draft_source: DraftSource | None = None) -> list[int]:
    return [step.token for step in islice(decoder.stream(decoder.prefill(ids), draft_source=draft_source), count)]


# --- reading a prompt ------------------------------------------------------------------------------------------------


def test_a_prompt_is_given_up_between_two_portions_and_what_was_read_stays() -> None:
    script = Script()
    script.portion = 10
    decoder = Decoder(SimpleNamespace(fim=None, token_bytes=None), NOTHING, script)  # type: ignore[arg-type]
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(decoder.tokens_computed)
        return decoder.tokens_computed >= 30

    with pytest.raises(RequestCancelled):
        decoder.prefill(document(1), cancelled=cancelled)
    assert asked == [10, 20, 30]
    found = decoder.prefill(document(1))
    assert found.reused == 30
    assert int(found.logits.argmax()) == int(script.open().read(document(1)).argmax())
    with pytest.raises(RequestCancelled):
        decoder.prefill([*document(1), *range(15)], cancelled=lambda: True)  # the first portion is always read
    assert decoder.prefill([*document(1), *range(15)]).reused == len(document(1)) + 10


# --- what comes out --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prompt(tiny: BaseModel, sources: list[str]) -> list[int]:
    return tiny.encode(sources[3])[:300]


def exact(model: BaseModel, slot: AdapterSlot, draft: int = DRAFT) -> Decoder:
    """A decoder whose steps run on the model's own weights, whatever is fastest on this CPU."""
    return Decoder(model, slot, sequence_reader(model, slot, int8=False), draft)


def test_greedy_equals_transformers_generate(tiny: BaseModel, prompt: list[int]):
    ids = torch.tensor([prompt])
    want = tiny.lm.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=30, do_sample=False)
    want = want[0, len(prompt) :].tolist()
    assert written(exact(tiny, AdapterSlot(tiny)), prompt, len(want)) == want


def test_every_shortcut_leaves_the_answer_as_it_is_in_int8_too(tiny_folder: Path, prompt: list[int]):
    tiny = base.load(Model(path=str(tiny_folder), dtype="bfloat16", device="cpu"))
    slot = AdapterSlot(tiny)
    plain = Decoder(tiny, slot, sequence_reader(tiny, slot, int8=True), draft=0)
    want = written(plain, prompt, 40)
    answered = written(plain, [*prompt, *want[:9]], 20)  # an accepted answer, its KV read again
    for draft in (0, 1, DRAFT, 9):
        decoder = Decoder(tiny, slot, sequence_reader(tiny, slot, int8=True), draft=draft)
        assert written(decoder, prompt, 40, hoarded(prompt, want)) == want
        assert written(decoder, prompt, 40) == want
        decoder.clear_cache()
        assert written(decoder, [*prompt, *want[:9]], 20) == answered


def hoarded(prompt: list[int], want: list[int]) -> DraftIndex:
    """Another file in which half of an answer stood."""
    hoard = DraftIndex(lambda text: [int(word) for word in text.split()])
    hoard.put("a.py", 1, " ".join(map(str, [*prompt[-5:], *want[:20]])))
    return hoard


def test_every_shortcut_leaves_the_answer_as_it_is(tiny: BaseModel, prompt: list[int]):
    slot = AdapterSlot(tiny)
    plain = Decoder(tiny, slot, TransformersReader(tiny, slot), draft=0)
    want = written(plain, prompt, 40)
    for draft in (0, 1, DRAFT, 9):
        decoder = exact(tiny, slot, draft)
        assert written(decoder, prompt, 40, hoarded(prompt, want)) == want
        assert written(decoder, [*prompt[:250], 7, 8, 9], 5)  # another text over the same prefix
        assert written(decoder, prompt, 40) == want  # with a prefix reused


def test_logprobs_are_those_of_the_model(tiny: BaseModel, prompt: list[int]):
    decoder = exact(tiny, AdapterSlot(tiny))
    steps = list(islice(decoder.stream(decoder.prefill(prompt)), 10))
    ids = [*prompt, *(step.token for step in steps)]
    scores = torch.log_softmax(tiny.lm(input_ids=torch.tensor([ids])).logits[0], -1)
    for at, step in enumerate(steps, len(prompt) - 1):
        assert step.logprob == pytest.approx(float(scores[at, step.token]), abs=1e-4)


def test_a_forced_first_token_and_then_the_greedy_answer_again():
    decoder = scripted()
    start = decoder.prefill([1, 2, 3])
    assert [s.token for s in islice(decoder.stream(start, first=40), 3)] == [40, 41, 42]
    assert [s.token for s in islice(decoder.stream(start), 3)] == [4, 5, 6]


# --- what it costs ---------------------------------------------------------------------------------------------------


def test_only_what_changed_is_read_again():
    decoder = scripted(draft=0)
    ids = list(range(50)) * 6
    decoder.prefill(ids)
    assert (decoder.forward_passes, decoder.tokens_computed) == (1, 300)
    changed = decoder.prefill([*ids[:280], *([60] * 20)])
    assert (decoder.forward_passes, decoder.tokens_computed, changed.reused) == (2, 320, 280)
    assert decoder.prefill([*ids[:280], *([60] * 20)]).reused == 299  # the last token is fed for its logits
    assert (decoder.forward_passes, decoder.tokens_computed) == (3, 321)


def test_an_answer_that_was_typed_needs_only_its_last_token():
    decoder = scripted(draft=0)
    answer = written(decoder, [1, 2, 3], 5)
    before = decoder.tokens_computed
    assert decoder.prefill([1, 2, 3, *answer]).reused == 7
    assert decoder.tokens_computed == before + 1


def test_steps_in_another_precision_are_read_again_by_the_next_prompt_and_by_no_other():
    decoder = scripted(draft=0, exact=False)
    answer = written(decoder, [1, 2, 3], 5)
    before = decoder.tokens_computed
    assert decoder.prefill([1, 2, 3, *answer]).reused == 3
    assert decoder.tokens_computed == before + 5
    assert decoder.prefill([1, 2, 3, *answer, 9]).reused == 8
    assert decoder.tokens_computed == before + 6


def test_drafts_from_other_files_save_passes():
    hoard = DraftIndex(lambda text: [ord(letter) for letter in text])
    hoard.put("b.py", 1, "".join(map(chr, range(20, 60))))
    decoder = scripted(draft=4)
    assert written(decoder, [21, 22, 23], 20, hoard) == list(range(24, 44))
    assert decoder.forward_passes == 1 + 4  # 24 comes with the prompt, then 4 drafts and what follows them
    plain = scripted(draft=4)
    assert written(plain, [21, 22, 23], 20) == list(range(24, 44))
    assert plain.forward_passes == 20


def test_a_plain_answer_costs_one_pass_per_token():
    decoder = scripted(draft=0)
    assert written(decoder, [1, 2, 3], 10) == list(range(4, 14))
    assert (decoder.forward_passes, decoder.tokens_computed) == (10, 12)


def test_drafts_that_are_right_save_passes():
    decoder = scripted(draft=4)
    assert written(decoder, [*range(30), 1, 2, 3], 20) == list(range(4, 24))
    # the prompt and the first token cost a pass; each of 4 drafts gives itself and one more, the last only in part
    assert decoder.forward_passes == 5
    assert (decoder.drafted, decoder.accepted) == (16, 12)  # of the last one's four nobody asked
    assert decoder.tokens_computed == 33 + 4 * 5


def test_drafts_that_are_wrong_are_given_up():
    decoder = scripted({62: 0, 49: 0}, draft=4)
    ids = [token for k in range(50) for token in (k, (k + 1) % 50, 60)]  # every pair went on with 60
    assert written(decoder, [*ids, 62], 300) == [*range(50)] * 6
    assert decoder.forward_passes == 300  # nothing was gained …
    assert decoder.drafted <= 4 * 20  # … and little lost: two steps' worth, then one draft in 25 steps
    assert decoder.accepted == 0


def test_nothing_is_drafted_where_nothing_was_seen_before():
    decoder = scripted(draft=4)
    written(decoder, [5, 6], 20)
    assert decoder.drafted == 0


def test_in_a_fim_prompt_the_draft_follows_the_cursor_not_the_end():
    fim = FimTokens("test", prefix=60, suffix=61, middle=62, order="psm", stops=frozenset())
    rule = {62: 4}
    decoder = scripted(rule, draft=4, fim=fim)
    ids = fim.prompt([*range(1, 20), 2, 3], [30, 31])
    assert written(decoder, ids, 6) == [4, 5, 6, 7, 8, 9]
    assert decoder.forward_passes == 2  # the prompt, and 5 to 8 guessed after 2, 3, 4


# --- whose KV is kept ------------------------------------------------------------------------------------------------


def document(number: int) -> list[int]:
    return [number] * 40


def test_two_documents_alternate_without_losing_their_kv():
    decoder = scripted(draft=0)
    for number in (1, 2):
        decoder.prefill(document(number))
    before = decoder.tokens_computed
    for round_ in range(3):
        for number in (1, 2):
            assert decoder.prefill([*document(number), *([50] * (round_ + 1))]).reused == 40 + round_
    assert decoder.tokens_computed == before + 6


def test_the_document_not_seen_for_longest_gives_way():
    decoder = scripted(draft=0)
    for number in range(SLOTS + 1):
        decoder.prefill(document(number))
    assert decoder.prefill(document(SLOTS)).reused == 39
    assert decoder.prefill(document(0)).reused == 0


def test_kv_of_another_adapter_is_not_reused():
    decoder = scripted(draft=0)
    decoder.prefill(document(1), kv_key="a")
    assert decoder.prefill(document(1), kv_key="b").reused == 0
    assert decoder.prefill(document(1), kv_key="a").reused == 39


def test_forget_drops_everything():
    decoder = scripted(draft=0)
    decoder.prefill(document(1))
    decoder.clear_cache()
    assert decoder.prefill(document(1)).reused == 0


# --- the parts of a draft --------------------------------------------------------------------------------------------


def test_the_longer_run_wins_and_the_later_place():
    lookup = DraftLookup([1, 2, 3, 10, 5, 2, 3, 20, 2, 3, 30], cursor=3)
    assert lookup.propose(1).ids == [10]  # 1, 2, 3 stood there once
    lookup = DraftLookup([1, 2, 3, 10, 5, 2, 3, 20, 4, 2, 3], cursor=11)
    assert lookup.propose(2).ids == [20, 4]  # 4, 2, 3 never went on; 2, 3 did, last with 20


def test_credit_runs_out_and_comes_back():
    credit = DraftBudget()
    tried = 0
    while credit.good():
        credit.book(drafted=True, saved=0)
        tried += 1
    assert tried == 8
    for _ in range(25):
        credit.book(drafted=False, saved=0)
    assert credit.good()


def test_a_source_that_never_pays_does_not_end_the_other():
    credits = DraftBudgets()
    for _ in range(8):
        credits.book(Draft([1], "draft_source"), 0)
        credits.book(Draft([1], "prompt"), 1)
    assert set(credits.good) == {"prompt"}


def test_what_a_draft_costs_is_measured():
    credits = DraftBudgets()
    assert credits.cost == 0.25
    for _ in range(15):
        credits.timed(0, 2.0)
        credits.timed(4, 3.0)
    assert credits.cost == pytest.approx(0.5)
    credits.timed(4, 1000.0)  # a hiccup
    assert credits.cost == pytest.approx(0.5)


# --- the folder's other texts ----------------------------------------------------------------------------------------


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_a_changed_text_answers_with_its_new_self():
    hoard = DraftIndex(letters)
    hoard.put("a", 1, "xabcde")
    assert hoard.continuation(letters("abc"), 2) == letters("de")
    hoard.put("a", 2, "xxabcfg")
    assert hoard.continuation(letters("abc"), 2) == letters("fg")
    assert hoard.continuation(letters("bcd"), 2) == []
    hoard.remove("a")
    assert hoard.continuation(letters("abc"), 2) == []


def test_the_hoard_stays_within_its_budget_and_sweeps_what_is_stale():
    hoard = DraftIndex(letters, most=100)
    for number in range(200):
        hoard.put(f"{number % 7}.py", number, "".join(chr(100 + (number * 31 + i * i) % 900) for i in range(40)))
        assert hoard.size <= 100
        assert len(hoard._places) <= 200 + 40 - LONGEST


def test_what_is_stale_is_asked_for_once_and_what_is_gone_is_dropped():
    hoard, versions = DraftIndex(letters), {"a": 1, "b": 1}
    while (path := hoard.next_stale(versions.items())) is not None:
        hoard.put(path, versions[path], f"{path}bcdef")
    assert hoard.size == 12
    assert hoard.next_stale({"b": 2}.items()) == "b"
    assert hoard.size == 6
    full = DraftIndex(letters, most=3)
    full.put("a", 1, "abcd")
    assert full.next_stale(versions.items()) is None
