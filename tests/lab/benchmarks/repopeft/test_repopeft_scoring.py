"""Exact scores, the strict rule, and intervals and tests over repositories."""

from __future__ import annotations

import difflib
import itertools
import logging
import sys

import numpy as np
import pytest
from c2l_lab.benchmarks.repopeft import compare, scoring
from c2l_lab.benchmarks.repopeft.dataset.schema import Task

from c2l_lsp.errors import CorpusError
from tests.support.repopeft_repositories import golden


def task(target: str, kind: str = "assert", prefix: str = "assert x == ") -> Task:
    return Task("own/a", "c" * 40, prefix, target, assertion_type=kind)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["rule"]) for case in golden("scoring")])
def test_published_cleaning(case):
    assert scoring.published(case["prediction"], case["target"]) == case["cleaned"]
    assert scoring.score(case["prediction"], task(case["target"]), codebleu=False).exact is case["exact"]


@pytest.mark.parametrize("case", [pytest.param(case, id=case["rule"]) for case in golden("strict")])
def test_strict_cleaning(case):
    about = task(case["target"], case["kind"])
    assert scoring.strictly(case["prediction"], commas=scoring.takes_list(about)) == case["cleaned"]
    assert scoring.score(case["prediction"], about, strict=True, codebleu=False).exact is case["exact"]


def test_strict_cleaning_of_a_prediction_never_changes_with_the_target():
    """Strict cleaning does not depend on the target, so a prediction matches one cleaned target only."""
    predictions = ["1, 2", "[1, 2] or x", "None or x", "f(1)\nassert y", "x # why"]
    for prediction in predictions:
        cleaned = scoring.strictly(prediction)
        assert scoring.score(prediction, task(cleaned), strict=True, codebleu=False).exact
    lenient = scoring.score("None or x", task("None"), codebleu=False)
    strict = scoring.score("None or x", task("None"), strict=True, codebleu=False)
    assert (lenient.exact, strict.exact) == (True, False)


def test_mock_s_prompt_asks_for_a_list():
    assert scoring.takes_list(task("1, x=2)", "assert_*", "m.assert_called_once_with("))
    assert not scoring.takes_list(task("b)", "assert_*", "np.testing.assert_allclose(a, "))


def test_edit_similarity_is_difflib_s_on_the_cleaned_text():
    made = scoring.score("value_12\nmore", task("value_1"), codebleu=False)
    assert made.edit == 2 * 7 / 15 == difflib.SequenceMatcher(None, "value_12", "value_1").ratio()


def test_codebleu_equals_package():
    from codebleu import calc_codebleu

    logging.disable(logging.WARNING)
    expected = calc_codebleu(["foo(a, 1)"], ["foo(a, 2)"], lang="python")["codebleu"]
    logging.disable(logging.NOTSET)
    assert scoring.code_bleu("foo(a, 2)", "foo(a, 1)") == expected == pytest.approx(0.5671138974)
    assert logging.root.manager.disable == logging.NOTSET
    assert scoring.code_bleu("x", "x") == 1.0
    assert scoring.code_bleu(" ", "x") == scoring.code_bleu("x", "") == 0.0


def test_missing_codebleu_error_explains_installation(monkeypatch):
    monkeypatch.setitem(sys.modules, "codebleu", None)
    with pytest.raises(CorpusError, match="--no-codebleu"):
        scoring.code_bleu("a", "b")
    assert logging.root.manager.disable == logging.NOTSET


def test_means_over_tasks_and_over_repositories():
    values = {"a": [1.0, 1.0, 0.0], "b": [0.0]}
    pooled, each = compare.rows("m", "x", values, "")
    assert (pooled.name, pooled.value) == ("m", 0.5)
    assert (each.name, each.value) == ("m/repository", pytest.approx((2 / 3 + 0) / 2))


def test_interval_is_as_wide_as_repositories_differ_however_many_tasks_there_are():
    dice = np.random.default_rng(0)
    rates = dice.uniform(0, 1, 20)
    values = {str(i): (dice.random(400) < rate).astype(float).tolist() for i, rate in enumerate(rates)}
    mean, low, high = compare.over_tasks(values)
    assert low < mean < high
    across = 2 * 1.96 * np.std([np.mean(v) for v in values.values()], ddof=1) / 20**0.5
    assert high - low == pytest.approx(across, rel=0.15)
    assert high - low > 5 * 2 * 1.96 * 0.5 / 8000**0.5  # what resampling tasks would give


def test_interval_equals_exhaustive_bootstrap():
    """Two repositories have four equally likely resamples, so the percentiles are known."""
    mean, low, high = compare.over_tasks({"a": [1.0] * 3, "b": [0.0]})
    assert (mean, low, high) == (0.75, 0.0, 1.0)


def test_one_repository_has_no_interval():
    (pooled, each) = compare.rows("m", "x", {"a": [1.0, 0.0]}, "")
    assert (pooled.value, pooled.low, pooled.high) == (0.5, None, None)
    assert (each.value, each.low, each.high) == (0.5, None, None)


def test_paired_test_is_exact_for_few_repositories():
    a = {"r1": [1.0, 1.0], "r2": [1.0], "r3": [0.5]}
    b = {"r1": [0.0, 1.0], "r2": [0.5], "r3": [0.4]}
    found = compare.paired(a, b)
    sums = [1.0, 0.5, 0.1]
    reached = [abs(np.dot(s, sums)) >= sum(sums) - 1e-12 for s in itertools.product((1, -1), repeat=3)]
    assert found.mean == pytest.approx(1.6 / 4)
    assert found.p == pytest.approx(sum(reached) / 8) == 0.25


def test_paired_test_detects_real_differences_only():
    dice = np.random.default_rng(1)
    b = {str(i): dice.random(30).tolist() for i in range(30)}
    better = {
        name: [v + 0.05 + 0.1 * x for v, x in zip(of, dice.standard_normal(30), strict=True)] for name, of in b.items()
    }
    same = {name: [v + 0.1 * x for v, x in zip(of, dice.standard_normal(30), strict=True)] for name, of in b.items()}
    assert compare.paired(better, b).p < 0.001 and compare.paired(better, b).low > 0
    assert compare.paired(same, b).p > 0.05
    assert compare.paired(b, b).p == 1.0


def test_methods_scored_on_different_tasks_are_not_compared():
    with pytest.raises(CorpusError, match="same tasks"):
        compare.paired({"a": [1.0]}, {"a": [1.0, 0.0]})
