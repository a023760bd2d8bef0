from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from c2l_lab.benchmarks.lines import automatic, holes, scaling
from c2l_lab.benchmarks.lines.ngram import Cache, CachedNGram, NGram
from c2l_lab.benchmarks.result_cache import ResultCache, share
from c2l_lab.benchmarks.stats import Row
from c2l_lab.corpus.corpus import Document

from c2l_lsp.config import Model
from c2l_lsp.errors import CorpusError, SettingError, StorageError, TrainingError
from c2l_lsp.model.lm import base
from c2l_lsp.model.lm.base import BaseModel

SPOKEN = [0, 1, 2, 3, 1, 2, 3, 1, 2, 4]


def by_hand(before: list[int], token: int, streams: list[list[int]], vocabulary: int) -> float:
    """Witten–Bell interpolation, computed from its definition."""
    p = 1 / vocabulary
    for order in range(1, 6):
        history = before[len(before) - order + 1 :]
        if len(before) < order - 1:
            break
        after = [ids[at] for ids in streams for at in range(order - 1, len(ids)) if ids[at - order + 1 : at] == history]
        if not after:
            break
        kinds = len(set(after))
        p = (after.count(token) + kinds * p) / (len(after) + kinds)
    return p


def test_ngram_probabilities_are_witten_bell() -> None:
    streams = [SPOKEN, [4, 4, 1, 2, 0]]
    grams = NGram(streams, 6)
    for before in ([], [1], [1, 2], [3, 1, 2], [0, 1, 2, 3], [5, 5]):
        likely = grams.next(before)
        assert likely.sum() == pytest.approx(1)
        for token in range(6):
            assert likely[token] == pytest.approx(by_hand(before, token, streams, 6))


def test_ngram_cache_contains_seen_text() -> None:
    cache = Cache()
    assert cache.next([], 6) is None
    for token in SPOKEN:
        cache.add(token)
    likely = cache.next([1, 2], 6)
    assert likely is not None and likely.sum() == pytest.approx(1)
    assert likely[3] > likely[4] > likely[0] > 0 == likely[5]


def test_ngram_cache_lowers_loss_of_repeated_text() -> None:
    grams = CachedNGram(NGram([list(range(6)) * 3], 8), 8)
    known, unknown = [7, 6, 2] * 6, [7, 6, 2, 1, 3, 0, 4, 6, 1, 7, 5, 2, 0, 3, 4, 1, 6, 5]
    assert grams.nat(known, 9) < 0.5 * grams.nat(unknown, 9)
    assert list(grams.greedy([7, 6], [known], 4, None)) == [2, 7, 6, 2]


def test_holes_are_deterministic_and_reconstruct_text(sources: list[str]) -> None:
    texts = sources[:8]
    for span in holes.SPANS:
        made = holes.holes("a/b", texts, span, 6)
        assert made == holes.holes("a/b", texts, span, 6) and len(made) == 6
        assert made != holes.holes("a/c", texts, span, 6)
        for hole in made:
            assert hole.prefix + hole.target + hole.suffix in texts
            lines = hole.target.count("\n") + 1
            assert (3 <= lines <= 5) if span == "lines_3_to_5" else lines == 1


class Oracle:
    """A method that fills the first `right` holes correctly."""

    def __init__(self, right: int) -> None:
        self.right = right

    def bits_per_byte(self, text: str, most: int) -> tuple[float, int]:
        return 2.0 * len(text.encode()), len(text.encode())

    def fill(self, hole: holes.Hole, context: int) -> str:
        self.right -= 1
        return hole.target + "  " if self.right >= 0 else "zzz"


def test_score_of_oracle_is_its_share_of_right_answers(sources: list[str]) -> None:
    repos = {"a/a": sources[:5], "b/b": sources[5:10]}
    made = holes.measure(Oracle(4), "oracle", repos, tasks=4, contexts=(256,), spans=("rest_of_line",))
    found = {row.name: row.value for row in made}
    assert found["bits_per_byte"] == pytest.approx(2.0)
    assert found["exact_match/rest_of_line/256"] == pytest.approx(0.5)
    assert 0.5 <= found["edit_similarity/rest_of_line/256"] < 0.75


def test_cached_results_are_not_measured_again(sources: list[str], tmp_path: Path) -> None:
    repos = {"a/a": sources[:5], "b/b": sources[5:10]}
    file = tmp_path / "work" / "lines.jsonl"

    def measured(which: dict[str, list[str]], right: int, tasks: int = 4) -> list[Row]:
        return holes.measure(
            Oracle(right),
            "oracle",
            which,
            tasks=tasks,
            contexts=(256,),
            spans=("rest_of_line",),
            cache=ResultCache(file),
        )

    measured({"b/b": repos["b/b"]}, 1)  # one share
    with file.open("a") as torn:
        torn.write('{"key": "x", "val')
    whole = {row.name: row.value for row in measured(repos, 4)}
    assert whole["exact_match/rest_of_line/256"] == pytest.approx((4 / 4 + 1 / 4) / 2)
    changed = {row.name: row.value for row in measured(repos | {"a/a": sources[1:6]}, 0)}
    assert changed["exact_match/rest_of_line/256"] == pytest.approx((0 / 4 + 1 / 4) / 2)
    assert measured(repos, 0, tasks=3)[1].value == 0.0
    with pytest.raises(StorageError):
        ResultCache(tmp_path).get_or_compute(("x",), [], dict)


def test_shards_are_counted_from_one() -> None:
    assert (share(""), share("1/1"), share("2/3")) == ((0, 1), (0, 1), (1, 3))
    for text in ("0/2", "3/2", "2", "a/b", "1/"):
        with pytest.raises(SettingError):
            share(text)


def test_model_stays_within_token_budget_and_windows(tiny: BaseModel, sources: list[str]) -> None:
    method = holes.Model(tiny)
    bits, size = method.bits_per_byte(sources[3], 1500)
    assert size == len(tiny.decode(tiny.encode(sources[3])[:1500]).encode())
    assert bits / size == pytest.approx(math.log2(tiny.vocabulary) * 1500 / size, rel=0.2)  # random weights
    (hole,) = holes.holes("a/b", sources[:8], "whole_line", 1)
    assert method.fill(hole, 256) == method.fill(hole, 256)


def test_model_with_known_line_count_writes_all_lines(sources: list[str]) -> None:
    shipped = base.load(Model())
    repos = {"a/a": sources[:8]}
    reached = 0
    for hole in holes.holes("a/b", repos["a/a"], "lines_3_to_5", 8):
        free, told = (holes.Model(shipped, told=told).fill(hole, 256) for told in (False, True))
        missing = hole.target.count("\n")
        assert free.count("\n") <= told.count("\n") <= missing or free.count("\n") > missing
        assert told.count("\n") == missing or len(told) > 300, "a line that repeats itself may use up the room"
        assert told.startswith(free.split("\n")[0])
        reached += told.count("\n") == missing
    assert reached >= 4


def test_automatic_completions_are_weighted_by_characters(tiny: BaseModel, sources: list[str]) -> None:
    scores = [automatic._score("return x", text) for text in ("return", "", "return y", "return x\n")]
    assert [right for _, right, _ in scores] == [True, True, False, False]
    found = automatic._means(scores)
    assert found == pytest.approx({"shown": 3 / 4, "right": 1 / 3, "right_chars": 6 / 4, "wrong_chars": (8 + 9) / 4})
    rows = automatic.measure(tiny, {"a/a": sources[:5], "b/b": sources[5:10]}, (0.0, 0.1), tasks=60, context=128)
    values = {(row.name, row.method.split()[-1]): row.value for row in rows}
    assert values["unasked/shown", "0"] > 0 == values["unasked/shown", "0.1"]  # random weights are sure of nothing
    assert ("unasked/right", "0.1") not in values


def test_too_little_text_raises_error() -> None:
    with pytest.raises(CorpusError):
        holes.repositories([Document("0" * 16, "a/b", "x.py", "x = 1\n")], 4)


def test_scaling_law_is_recovered_and_needs_two_sizes() -> None:
    law = scaling.Law(0.45, 20.0, 260.0, 0.42)
    made = ((1e6, 2e6), (1e6, 8e6), (1e6, 16e6), (5e6, 4e6), (5e6, 9e6), (5e6, 40e6))
    points = [scaling.Point(f"{n}/{d}", n, d, law.bits(n, d)) for n, d in made]
    found = scaling.fit(points)
    assert np.allclose([found.floor, found.beta], [0.45, 0.42], atol=0.02)
    rows = scaling.rows(points, [("small", 25e6, 5e8)])
    assert next(r for r in rows if r.name.startswith("scaling/predicted")).value == pytest.approx(
        law.bits(25e6, 5e8), rel=0.02
    )
    strange = [*points[:5], replace(points[5], bits=2 * points[5].bits)]
    doubted = {r.name: r for r in scaling.rows(strange, [("small", 25e6, 5e8)])}
    assert not doubted["scaling/largest_miss"].holds
    assert not any(name.startswith("scaling/predicted") for name in doubted)
    with pytest.raises(TrainingError, match="size from tokens"):
        scaling.fit([p for p in points if p.weights == 1e6])


def test_command_writes_rows(tmp_path: Path, tiny_folder: Path) -> None:
    """Importing the module of the command does not import torch."""
    import subprocess
    import sys

    code = "import sys, c2l_lab.benchmarks.lines.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
