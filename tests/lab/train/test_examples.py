from __future__ import annotations

import json
import random

import numpy as np
import pytest
from c2l_lab.corpus.corpus import Document
from c2l_lab.corpus.tokenizer import CodeTokenizer
from c2l_lab.train.base import fim_spans
from c2l_lab.train.base.examples import (
    IGNORE,
    Recipe,
    Stream,
    StreamState,
    fim_tokens,
    pack,
    reshard,
    split_text,
    to_batch,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from c2l_lsp.errors import TrainingError
from tests.support.training_text import module

LINES = ["def f(a, b):", "    return [a]", "", "if x:", "        y()", "\tz", "é"]
CODE = st.lists(st.sampled_from(LINES)).map("\n".join)


@pytest.mark.parametrize("span", [span for _, span in fim_spans.SPANS])
@given(text=CODE.filter(bool), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_every_span_is_within_the_text(span: object, text: str, seed: int) -> None:
    begin, end = span(text, random.Random(seed))  # type: ignore[operator]
    assert 0 <= begin <= end <= len(text)


@given(text=CODE.filter(bool), seed=st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_fim_example_contains_the_three_parts(tokenizer: CodeTokenizer, text: str, seed: int) -> None:
    cut = fim_spans.split(text, random.Random(seed))
    assert text.startswith(cut.prefix + cut.middle)
    assert cut.suffix == "" or cut.prefix + cut.middle + cut.suffix == text
    made = fim_tokens(cut, tokenizer, 10_000)
    assert made is not None
    ids, begin = made
    assert tokenizer.decode(ids[:begin]) == f"<|fim_prefix|><|fim_suffix|>{cut.suffix}<|fim_middle|>{cut.prefix}"
    assert tokenizer.decode(ids[begin:]) == cut.middle + "<|endoftext|>"


def test_far_ends_are_cut_if_the_row_is_short(tokenizer: CodeTokenizer) -> None:
    made = fim_tokens(fim_spans.Split("a\n" * 300 + "near", "mid", "after" + "\nb" * 300), tokenizer, 64)
    assert made is not None and len(made[0]) <= 64
    text = tokenizer.decode(made[0])
    assert text.startswith("<|fim_prefix|><|fim_suffix|>after")
    assert text.endswith("nearmid<|endoftext|>")
    assert fim_tokens(fim_spans.Split("", "m " * 200, ""), tokenizer, 64) is None


def test_chunks_contain_the_whole_file_in_order() -> None:
    text = module("alpha") + module("beta", 1)
    assert len(split_text(text, 64, random.Random(1))) > 3
    assert "".join(split_text(text, 64, random.Random(1))) == text


def test_rows_are_filled_and_labels_do_not_cross_files() -> None:
    rows = pack([[1, 2, 3], [4, 5], [6, 7, 8, 9], [10]], 5)
    assert sorted(len(row) for row in rows) == [2, 2]
    batch = to_batch([[[1, 2, 3], [4, 5]]], 7, pad=0)
    assert batch.ids.tolist() == [[1, 2, 3, 4, 5, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 0, 0]]
    assert batch.segments.tolist() == [[0, 0, 0, 1, 1, -1, -1]]
    assert batch.labels.tolist() == [[2, 3, IGNORE, 5, IGNORE, IGNORE, IGNORE]]


def test_stream_resumes_from_its_saved_state(documents: list[Document], tokenizer: CodeTokenizer) -> None:
    recipe = Recipe(length=64, seed=3, buffer=20)
    whole = Stream(documents, tokenizer, recipe)
    for _ in range(5):
        whole.next(4)
    saved = json.loads(json.dumps(whole.state.to_json()))
    resumed = Stream(documents, tokenizer, recipe, StreamState(**saved))
    for _ in range(30):  # past the end of the corpus
        np.testing.assert_array_equal(whole.next(4).ids, resumed.next(4).ids)


def test_stream_states_are_resharded_for_another_number_of_processes(
    documents: list[Document], tokenizer: CodeTokenizer
) -> None:
    recipe = Recipe(length=64, buffer=20)
    alone = Stream(documents, tokenizer, recipe)
    alone.next(8)
    buffered = len(alone.state.rows)
    two = [Stream(documents, tokenizer, recipe, reshard([alone.state], rank, 2), (rank, 2)) for rank in (0, 1)]
    assert sum(len(stream.state.rows) for stream in two) == buffered
    for stream in two:
        assert not set(stream._order) & set(alone.state.seen)
        stream.next(4)
    again = reshard([stream.state for stream in two], 0, 1)
    assert set(again.seen) == {name for stream in two for name in stream.state.seen} and again.epoch == 0
    assert reshard([stream.state for stream in two], 1, 2) is two[1].state


def test_grown_corpus_repeats_no_document(documents: list[Document], tokenizer: CodeTokenizer) -> None:
    stream = Stream(documents[:10], tokenizer, Recipe(length=64, buffer=5))
    stream.next(4)
    seen = list(stream.state.seen)
    grown = Stream(documents, tokenizer, Recipe(length=64, buffer=5), StreamState(0, list(seen), []))
    while grown.state.epoch == 0 and len(grown.state.seen) < len(documents):
        grown.next(4)
    assert len(set(grown.state.seen)) == len(grown.state.seen)


def test_buffered_rows_are_repacked_to_a_new_length(documents: list[Document], tokenizer: CodeTokenizer) -> None:
    stream = Stream(documents, tokenizer, Recipe(length=64, buffer=40))
    stream.next(4)
    longer = Stream(documents, tokenizer, Recipe(length=256, buffer=1), stream.state).next(4)
    assert (longer.segments >= 0).mean() > 0.8


def test_stream_without_documents_raises(tokenizer: CodeTokenizer) -> None:
    with pytest.raises(TrainingError, match="no text"):
        Stream([], tokenizer, Recipe())
