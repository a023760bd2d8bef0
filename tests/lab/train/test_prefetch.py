from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from c2l_lab.corpus import tokenizer as tokenizers
from c2l_lab.corpus.corpus import Document
from c2l_lab.corpus.tokenizer import CodeTokenizer
from c2l_lab.train.base.examples import Recipe, Stream, StreamState
from c2l_lab.train.base.prefetch import Prefetcher, unpack_rows

from c2l_lsp.errors import TrainingError
from tests.support.training_text import module

RECIPE = Recipe(length=96, buffer=8)


def documents(count: int) -> list[Document]:
    return [Document(f"{i:08x}{i:08x}", "a/b", f"m{i}.py", module(f"name{i}", i)) for i in range(count)]


@pytest.fixture
def folder(tokenizer: CodeTokenizer, tmp_path: Path) -> Path:
    tokenizers.save(tokenizer.plain(), tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_unpack_rows_inverts_to_batch(tokenizer: CodeTokenizer) -> None:
    stream = Stream(documents(6), tokenizer, RECIPE)
    stream.next(2)
    before = [list(row) for row in stream.state.rows]
    batch = stream.next(3)
    assert all(row in before for row in unpack_rows(batch))
    assert len(unpack_rows(batch)) == 3


def test_no_row_is_lost_when_prefetching_is_resumed(folder: Path) -> None:
    prefetcher = Prefetcher(documents(24), folder, RECIPE, rows=2, workers=2)
    try:
        taken = [prefetcher.next(2) for _ in range(4)]
        states = prefetcher.states()
        after = [prefetcher.next(2) for _ in range(4)]
    finally:
        prefetcher.close()
    assert all(batch.ids.shape == (2, 96) for batch in taken)
    waiting = [row for state in states for row in state.rows]
    for batch in after[:2]:  # batches made before saving are in the saved states
        assert all(row in waiting for row in unpack_rows(batch))
    names = [set(state.seen) for state in states]
    assert not names[0] & names[1]
    again = Prefetcher(
        documents(24), folder, RECIPE, rows=2, workers=2, states=[StreamState(**s.to_json()) for s in states]
    )
    try:
        assert np.isfinite(again.next(2).ids).all()
        with pytest.raises(TrainingError, match="batches of 2"):
            again.next(5)
    finally:
        again.close()


def test_worker_without_a_document_raises(folder: Path) -> None:
    with pytest.raises(TrainingError, match="too few files"):
        Prefetcher(documents(1), folder, RECIPE, rows=2, workers=3)


def test_saved_state_is_consistent(folder: Path) -> None:
    """Another thread sends the state while the stream continues: taken, buffered and saved rows must be complete."""
    prefetcher = Prefetcher(documents(40), folder, RECIPE, rows=1, workers=1)
    taken = []
    try:
        for _ in range(12):
            taken += unpack_rows(prefetcher.next(1))
            (state,) = prefetcher.states()
            again = Stream(documents(40), CodeTokenizer(folder), RECIPE)
            while len(again.state.seen) < len(state.seen) or again.epoch < state.epoch:
                again._refill()
            if again.epoch == state.epoch:
                everything = sorted(map(str, again.state.rows))
                assert sorted(map(str, taken + state.rows)) == everything
    finally:
        prefetcher.close()


def _take_until_error(prefetcher: Prefetcher) -> None:
    for _ in range(50):  # batches made before the end are still returned
        prefetcher.next(2)


def test_dead_worker_is_reported_promptly(folder: Path) -> None:
    prefetcher = Prefetcher(documents(24), folder, RECIPE, rows=2, workers=2)
    begun = time.monotonic()
    try:
        for worker in prefetcher._workers:
            worker.kill()
            worker.join(10)
        with pytest.raises(TrainingError, match="has ended"):
            _take_until_error(prefetcher)
    finally:
        prefetcher.close()
    assert time.monotonic() - begun < 60
