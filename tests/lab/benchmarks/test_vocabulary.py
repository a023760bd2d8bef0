"""Vocabulary comparison: equal numbers of parameters, training, and resuming."""

from __future__ import annotations

import bisect
import calendar
import csv
import heapq
import inspect
import shutil
import textwrap

import pytest
from c2l_lab.benchmarks.lines import vocabulary
from c2l_lab.corpus.corpus import Document
from c2l_lab.train.base.architecture import make_model

from c2l_lsp.errors import TrainingError


@pytest.mark.parametrize("entries", [8192, 16384, 32768])
def test_models_of_all_sizes_have_the_same_number_of_weights(entries):
    shape = vocabulary.shape_for(entries, 6.8e6)
    weights = sum(p.numel() for p in make_model(shape, entries, seed=0).parameters())
    assert weights == pytest.approx(6.8e6, rel=0.06)
    assert weights == entries * shape.hidden + shape.layers * vocabulary.per_layer(shape.hidden) + shape.hidden


def test_shipped_shape_matches_its_vocabulary_size():
    shape = vocabulary.shape_for(8192, 6.8e6)
    assert (shape.hidden, shape.layers) == (256, 6)


def test_vocabulary_larger_than_weight_budget_is_rejected():
    with pytest.raises(TrainingError, match="use all of"):
        vocabulary.shape_for(32768, 1e6)


def test_tokenizers_are_trained_measured_and_reused(tmp_path):
    texts = [inspect.getsource(one)[:9000] for one in (shutil, textwrap, bisect, heapq, calendar, csv)]
    documents = [Document(f"{i:08x}", f"owner/{i}", "m.py", text) for i, text in enumerate(texts)]
    amounts = vocabulary.Amounts(weights=150e3, text=40e3, length=64, rows=4, compiled=False)
    said: list[str] = []
    rows = [
        row
        for entries in (512, 1024)
        for row in vocabulary.measure(entries, documents[:5], documents[5:], tmp_path, amounts, said.append)
    ]
    bits = {row.method: row.value for row in rows if row.name == "bits_per_byte"}
    assert set(bits) == {"512", "1k"}
    assert all(0 < value < 8 for value in bits.values())
    lengths = {row.method: row.value for row in rows if row.name == "bytes_per_token"}
    assert lengths["1k"] > lengths["512"] > 1
    again = vocabulary.measure(512, documents[:5], documents[5:], tmp_path, amounts, said.append)
    assert again[0].value == pytest.approx(bits["512"], abs=1e-3)  # finished: nothing is trained again
