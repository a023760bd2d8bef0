from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from c2l_lab.corpus import tokenizer as tokenizers
from c2l_lab.corpus.corpus import Document
from c2l_lab.corpus.tokenizer import CodeTokenizer
from c2l_lab.train.base.examples import Recipe, Stream, StreamState
from c2l_lab.train.base.prefetch import Supply, rows_of

from c2l_lsp.errors import TrainingError
from tests.support.training_text import module

RECIPE = Recipe(length=96, buffer=8)


def documents(count: int) -> list[Document]:
    return [Document(f"{i:08x}{i:08x}", "a/b", f"m{i}.py", module(f"name{i}", i)) for i in range(count)]


@pytest.fixture
def folder(tokenizer: CodeTokenizer, tmp_path: Path) -> Path:
    tokenizers.save(tokenizer.plain(), tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_rows_come_back_from_a_batch(tokenizer: CodeTokenizer) -> None:
    stream = Stream(documents(6), tokenizer, RECIPE)
    stream.next(2)
    before = [list(row) for row in stream.state.rows]
    batch = stream.next(3)
    assert all(row in before for row in rows_of(batch))
    assert len(rows_of(batch)) == 3


def test_workers_give_batches_and_no_row_is_lost_over_a_stop(folder: Path) -> None:
    supply = Supply(documents(24), folder, RECIPE, rows=2, workers=2)
    try:
        given = [supply.next(2) for _ in range(4)]
        states = supply.states()
        after = [supply.next(2) for _ in range(4)]
    finally:
        supply.close()
    assert all(batch.ids.shape == (2, 96) for batch in given)
    waiting = [row for state in states for row in state.rows]
    for batch in after[:2]:  # what was made before the stop is still to come in the saved states
        assert all(row in waiting for row in rows_of(batch))
    names = [set(state.seen) for state in states]
    assert not names[0] & names[1]
    again = Supply(
        documents(24), folder, RECIPE, rows=2, workers=2, states=[StreamState(**s.to_json()) for s in states]
    )
    try:
        assert np.isfinite(again.next(2).ids).all()
        with pytest.raises(TrainingError, match="batches of 2"):
            again.next(5)
    finally:
        again.close()


def test_a_worker_without_a_file_is_refused(folder: Path) -> None:
    with pytest.raises(TrainingError, match="too few files"):
        Supply(documents(1), folder, RECIPE, rows=2, workers=3)


def test_a_saved_state_is_of_one_moment(folder: Path) -> None:
    """It is sent by another thread than the one that goes on: what was given, waits and is saved is all there was."""
    supply = Supply(documents(40), folder, RECIPE, rows=1, workers=1)
    given = []
    try:
        for _ in range(12):
            given += rows_of(supply.next(1))
            (state,) = supply.states()
            again = Stream(documents(40), CodeTokenizer(folder), RECIPE)
            while len(again.state.seen) < len(state.seen) or again.epoch < state.epoch:
                again._refill()
            if again.epoch == state.epoch:
                everything = sorted(map(str, again.state.rows))
                assert sorted(map(str, given + state.rows)) == everything
    finally:
        supply.close()


def _until_refused(supply: Supply) -> None:
    for _ in range(50):  # what was made before the end is still given
        supply.next(2)


def test_a_worker_that_has_ended_is_said_at_once(folder: Path) -> None:
    supply = Supply(documents(24), folder, RECIPE, rows=2, workers=2)
    begun = time.monotonic()
    try:
        for worker in supply._workers:
            worker.kill()
            worker.join(10)
        with pytest.raises(TrainingError, match="has ended"):
            _until_refused(supply)
    finally:
        supply.close()
    assert time.monotonic() - begun < 60
