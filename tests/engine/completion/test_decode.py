"""The decoder: its output is greedy and independent of drafts and KV reuse; its cost is counted in forward passes."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from c2l_lsp.config import Model
from c2l_lsp.engine.completion.decode import DRAFT, SLOTS, Decoder
from c2l_lsp.engine.completion.draft import DraftSource
from c2l_lsp.engine.completion.draft_index import DraftIndex
from c2l_lsp.errors import RequestCancelled
from c2l_lsp.model.adapter.kv_sequence import TransformersReader, sequence_reader
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm import base
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.lm.fim import FimTokens

VOCABULARY = 64


class ScriptedReader:
    """A reader without weights: its model continues token t with `rule[t]`, or t + 1 where there is no rule.

    Counts forward passes, the tokens computed by them, and those of the tokens that were drafts.
    """

    def __init__(self, rule: dict[int, int] | None = None, exact: bool = True) -> None:
        self.rule, self.decode_matches_prefill, self.prefill_chunk = rule or {}, exact, 1 << 30
        self.passes = self.tokens = self.drafted = 0

    def new_sequence(self) -> _ScriptedSequence:
        return _ScriptedSequence(self)

    def logits(self, hidden: Tensor, step: bool = False) -> Tensor:
        return hidden


class _ScriptedSequence:
    def __init__(self, reader: ScriptedReader) -> None:
        self._reader, self.ids = reader, list[int]()

    def prefill(self, ids: list[int], all_positions: bool = False) -> Tensor:
        self.ids += ids
        self._reader.passes += 1
        self._reader.tokens += len(ids)
        rows = torch.zeros(len(ids), VOCABULARY)
        for row, token in enumerate(ids):
            rows[row, self._reader.rule.get(token, (token + 1) % VOCABULARY)] = 9.0
        return rows if all_positions else rows[-1:]

    def decode(self, ids: list[int]) -> Tensor:
        self._reader.drafted += len(ids) - 1
        return self.prefill(ids, all_positions=True)

    def crop(self, length: int) -> None:
        del self.ids[length:]


NO_ADAPTER = SimpleNamespace(mix_knn=lambda hidden, logits, before: logits, reference=None)


class ScriptedDecoder(Decoder):
    """A decoder with a scripted model."""

    def __init__(self, reader: ScriptedReader, draft: int = DRAFT, fim: FimTokens | None = None) -> None:
        model = SimpleNamespace(fim=fim, token_bytes=None)
        super().__init__(model, NO_ADAPTER, reader, draft)  # type: ignore[arg-type]
        self.reader = reader


def scripted(
    rule: dict[int, int] | None = None, *, draft: int = DRAFT, fim: FimTokens | None = None, exact: bool = True
) -> ScriptedDecoder:
    return ScriptedDecoder(ScriptedReader(rule, exact), draft, fim)


def decoded(decoder: Decoder, ids: list[int], count: int, draft_source: DraftSource | None = None) -> list[int]:
    return [step.token for step in islice(decoder.stream(decoder.prefill(ids), draft_source=draft_source), count)]


# --- prefill ----------------------------------------------------------------------------------------------------------


def test_prefill_is_cancelled_between_two_portions_and_keeps_the_portions_read() -> None:
    reader = ScriptedReader()
    reader.prefill_chunk = 10
    decoder = ScriptedDecoder(reader)
    calls: list[int] = []

    def cancelled() -> bool:
        calls.append(decoder.reader.tokens)
        return decoder.reader.tokens >= 30

    with pytest.raises(RequestCancelled):
        decoder.prefill(document(1), cancelled=cancelled)
    assert calls == [10, 20, 30]
    start = decoder.prefill(document(1))
    assert start.reused == 30
    assert int(start.logits.argmax()) == int(reader.new_sequence().prefill(document(1)).argmax())
    with pytest.raises(RequestCancelled):
        decoder.prefill([*document(1), *range(15)], cancelled=lambda: True)  # the first portion is always read
    assert decoder.prefill([*document(1), *range(15)]).reused == len(document(1)) + 10


# --- output -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prompt(tiny: BaseModel, sources: list[str]) -> list[int]:
    return tiny.encode(sources[3])[:300]


def fp32_decoder(model: BaseModel, slot: AdapterSlot, draft: int = DRAFT) -> Decoder:
    """A decoder that runs on the model's own weights, also where int8 is faster on this CPU."""
    return Decoder(model, slot, sequence_reader(model, slot, int8=False), draft)


def test_output_equals_transformers_generate(tiny: BaseModel, prompt: list[int]):
    ids = torch.tensor([prompt])
    expected = tiny.lm.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=30, do_sample=False)
    expected = expected[0, len(prompt) :].tolist()
    assert decoded(fp32_decoder(tiny, AdapterSlot(tiny)), prompt, len(expected)) == expected


def test_drafts_and_kv_reuse_do_not_change_the_output_in_int8(tiny_folder: Path, prompt: list[int]):
    tiny = base.load(Model(path=str(tiny_folder), dtype="bfloat16", device="cpu"))
    slot = AdapterSlot(tiny)
    plain = Decoder(tiny, slot, sequence_reader(tiny, slot, int8=True), draft=0)
    expected = decoded(plain, prompt, 40)
    continued = decoded(plain, [*prompt, *expected[:9]], 20)  # an accepted answer: its KV is computed again
    for draft in (0, 1, DRAFT, 9):
        decoder = Decoder(tiny, slot, sequence_reader(tiny, slot, int8=True), draft=draft)
        assert decoded(decoder, prompt, 40, index_with_half(prompt, expected)) == expected
        assert decoded(decoder, prompt, 40) == expected
        decoder.clear_cache()
        assert decoded(decoder, [*prompt, *expected[:9]], 20) == continued


def index_with_half(prompt: list[int], expected: list[int]) -> DraftIndex:
    """An index of another file that contains the first half of an answer."""
    index = DraftIndex(lambda text: [int(word) for word in text.split()])
    index.put("a.py", 1, " ".join(map(str, [*prompt[-5:], *expected[:20]])))
    return index


def test_drafts_and_kv_reuse_do_not_change_the_output(tiny: BaseModel, prompt: list[int]):
    slot = AdapterSlot(tiny)
    plain = Decoder(tiny, slot, TransformersReader(tiny, slot), draft=0)
    expected = decoded(plain, prompt, 40)
    for draft in (0, 1, DRAFT, 9):
        decoder = fp32_decoder(tiny, slot, draft)
        assert decoded(decoder, prompt, 40, index_with_half(prompt, expected)) == expected
        assert decoded(decoder, [*prompt[:250], 7, 8, 9], 5)  # another prompt with the same prefix
        assert decoded(decoder, prompt, 40) == expected  # reuses a prefix


def test_logprobs_are_those_of_the_model(tiny: BaseModel, prompt: list[int]):
    decoder = fp32_decoder(tiny, AdapterSlot(tiny))
    steps = list(islice(decoder.stream(decoder.prefill(prompt)), 10))
    ids = [*prompt, *(step.token for step in steps)]
    scores = torch.log_softmax(tiny.lm(input_ids=torch.tensor([ids])).logits[0], -1)
    for at, step in enumerate(steps, len(prompt) - 1):
        assert step.logprob == pytest.approx(float(scores[at, step.token]), abs=1e-4)


def test_a_prompt_is_decoded_again_after_a_forced_first_token():
    decoder = scripted()
    start = decoder.prefill([1, 2, 3])
    assert [s.token for s in islice(decoder.stream(start, first=40), 3)] == [40, 41, 42]
    assert [s.token for s in islice(decoder.stream(start), 3)] == [4, 5, 6]


# --- cost -------------------------------------------------------------------------------------------------------------


def test_only_the_changed_end_of_a_prompt_is_computed():
    decoder = scripted(draft=0)
    ids = list(range(50)) * 6
    decoder.prefill(ids)
    assert (decoder.reader.passes, decoder.reader.tokens) == (1, 300)
    changed = decoder.prefill([*ids[:280], *([60] * 20)])
    assert (decoder.reader.passes, decoder.reader.tokens, changed.reused) == (2, 320, 280)
    assert decoder.prefill([*ids[:280], *([60] * 20)]).reused == 300  # the same prompt: its logits are known
    assert decoder.prefill(ids[:290]).reused == 280
    assert decoder.prefill(ids[:285]).reused == 284  # the last token is computed for its logits
    assert (decoder.reader.passes, decoder.reader.tokens) == (4, 331)


def test_after_an_accepted_answer_only_its_last_token_is_computed():
    decoder = scripted(draft=0)
    answer = decoded(decoder, [1, 2, 3], 5)
    before = decoder.reader.tokens
    assert decoder.prefill([1, 2, 3, *answer]).reused == 7
    assert decoder.reader.tokens == before + 1


@pytest.mark.parametrize("typed", range(6))
@pytest.mark.parametrize("draft", [0, DRAFT])
def test_an_answer_that_was_interrupted_goes_on_where_it_ended(typed, draft):
    """The user types the first tokens of an answer that was cancelled: none of it is computed again."""
    decoder, ids = scripted(draft=draft), [20, 21, 22, 40, 1, 2, 3]
    answer = decoded(decoder, ids, 6)
    before = decoder.reader.tokens
    assert decoded(decoder, [*ids, *answer[:typed]], 6 - typed) == answer[typed:]
    assert decoder.reader.tokens == before
    assert decoded(decoder, [*ids, *answer[:typed]], 9) == list(range(4 + typed, 13 + typed))
    expected = decoded(scripted(draft=draft), [*ids, *answer[:typed]], 9)
    assert expected == list(range(4 + typed, 13 + typed))


def test_an_answer_that_the_user_contradicts_is_discarded():
    decoder = scripted(draft=0)
    decoded(decoder, [1, 2, 3], 6)
    assert decoded(decoder, [1, 2, 3, 4, 50], 3) == [51, 52, 53]
    assert decoded(decoder, [1, 2, 3, 4], 3) == [5, 6, 7]


def test_an_answer_under_another_adapter_does_not_go_on():
    decoder, now = scripted(draft=0), SimpleNamespace(**vars(NO_ADAPTER))
    decoder._adapters = now
    decoded(decoder, document(1), 6)
    before, now.reference = decoder.reader.tokens, object()
    decoded(decoder, document(1), 6)
    assert decoder.reader.tokens == before + 6


def test_an_answer_in_another_precision_goes_on_under_the_same_prompt_only():
    decoder = scripted(draft=0, exact=False)
    answer = decoded(decoder, [1, 2, 3], 6)
    before = decoder.reader.tokens
    assert decoded(decoder, [1, 2, 3], 6) == answer
    assert decoder.reader.tokens == before
    decoder.prefill([1, 2, 3, *answer[:2]])
    assert decoder.reader.tokens == before + 2


def test_kv_of_steps_in_another_precision_is_computed_again_once():
    decoder = scripted(draft=0, exact=False)
    answer = decoded(decoder, [1, 2, 3], 5)
    before = decoder.reader.tokens
    assert decoder.prefill([1, 2, 3, *answer]).reused == 3
    assert decoder.reader.tokens == before + 5
    assert decoder.prefill([1, 2, 3, *answer, 9]).reused == 8
    assert decoder.reader.tokens == before + 6


def test_drafts_from_other_files_save_forward_passes():
    index = DraftIndex(lambda text: [ord(letter) for letter in text])
    index.put("b.py", 1, "".join(map(chr, range(20, 60))))
    decoder = scripted(draft=4)
    assert decoded(decoder, [21, 22, 23], 20, index) == list(range(24, 44))
    assert decoder.reader.passes == 1 + 4  # the prompt gives 24; each of 4 passes verifies a draft and adds a token
    plain = scripted(draft=4)
    assert decoded(plain, [21, 22, 23], 20) == list(range(24, 44))
    assert plain.reader.passes == 20


def test_without_drafts_each_token_needs_one_forward_pass():
    decoder = scripted(draft=0)
    assert decoded(decoder, [1, 2, 3], 10) == list(range(4, 14))
    assert (decoder.reader.passes, decoder.reader.tokens) == (10, 12)


def test_accepted_drafts_save_forward_passes():
    decoder = scripted(draft=4)
    assert decoded(decoder, [*range(30), 1, 2, 3], 20) == list(range(4, 24))
    # one pass for the prompt, then four that verify a draft of four tokens and add one; the last one is cut off
    assert decoder.reader.passes == 5
    assert decoder.reader.drafted == 16  # the consumer stops before the last draft is used
    assert decoder.reader.tokens == 33 + 4 * 5


def test_rejected_drafts_are_soon_not_tried_any_more():
    decoder = scripted({62: 0, 49: 0}, draft=4)
    ids = [token for k in range(50) for token in (k, (k + 1) % 50, 60)]  # every pair is followed by 60
    assert decoded(decoder, [*ids, 62], 300) == [*range(50)] * 6
    assert decoder.reader.passes == 300  # no pass is saved
    assert decoder.reader.drafted <= 4 * 20  # the start balance of 2 steps, then one draft in 25 steps


def test_without_a_repeated_run_nothing_is_drafted():
    decoder = scripted(draft=4)
    decoded(decoder, [5, 6], 20)
    assert decoder.reader.drafted == 0


def test_in_a_fim_prompt_the_draft_continues_the_text_before_the_cursor():
    fim = FimTokens("test", prefix=60, suffix=61, middle=62, order="psm", stops=frozenset())
    rule = {62: 4}
    decoder = scripted(rule, draft=4, fim=fim)
    ids = fim.prompt([*range(1, 20), 2, 3], [30, 31])
    assert decoded(decoder, ids, 6) == [4, 5, 6, 7, 8, 9]
    assert decoder.reader.passes == 2  # the prompt, then the draft 5 to 8 after 2, 3, 4


# --- slots ------------------------------------------------------------------------------------------------------------


def document(number: int) -> list[int]:
    return [number] * 40


def test_two_alternating_documents_both_keep_their_kv():
    decoder = scripted(draft=0)
    for number in (1, 2):
        decoder.prefill(document(number))
    before = decoder.reader.tokens
    for round_ in range(3):
        for number in (1, 2):
            assert decoder.prefill([*document(number), *([50] * (round_ + 1))]).reused == 40 + round_
    assert decoder.reader.tokens == before + 6


def test_the_least_recently_used_document_is_discarded_first():
    decoder = scripted(draft=0)
    for number in range(SLOTS + 1):
        decoder.prefill(document(number))
    assert decoder.prefill(document(SLOTS)).reused == 40
    assert decoder.prefill(document(0)).reused == 0


def test_kv_of_another_adapter_is_not_reused():
    decoder = scripted(draft=0)
    decoder.prefill(document(1), kv_key="a")
    assert decoder.prefill(document(1), kv_key="b").reused == 0
    assert decoder.prefill(document(1), kv_key="a").reused == 39


def test_clear_cache_discards_every_prompt():
    decoder = scripted(draft=0)
    decoder.prefill(document(1))
    decoder.clear_cache()
    assert decoder.prefill(document(1)).reused == 0
