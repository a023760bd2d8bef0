"""Extraction of assertions: golden files for every rule, and invariants on any file."""

from __future__ import annotations

from pathlib import Path

import pytest
from c2l_lab.benchmarks.repopeft.dataset.assertions import difficulty, keys, parse

from tests.support.repopeft_repositories import golden

GROUPS = ("plain_asserts", "unittest_asserts", "pytest_asserts", "mock_and_library_asserts")
CASES = [pytest.param(case, id=f"{group}: {case['rule']}") for group in GROUPS for case in golden(group)]


@pytest.mark.parametrize("case", CASES)
def test_golden(case):
    found = parse(case["text"])
    assert found is not None
    assert [(a.kind, a.target, a.function) for a in found] == [
        (e["kind"], e["target"], e["function"]) for e in case["expected"]
    ]
    for assertion, expected in zip(found, case["expected"], strict=True):
        assert case["text"][: assertion.cut].endswith(expected["ends"])


def test_prefix_is_the_text_up_to_the_value_in_every_file_of_ours():
    seen = 0
    for path in sorted(Path(__file__).resolve().parents[2].rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        for item in parse(text) or ():
            seen += 1
            after = text[item.cut :]
            value = item.target if item.kind == "assert" else item.target[:-1]
            assert after.startswith(value) or "\n" in after[: len(value) + 40], (path, item.lineno)
            assert text[: item.cut].count("\n") + 1 >= item.lineno
    assert seen > 500


@pytest.mark.parametrize("text", ["def f(:", "x = '\0'", "print 'python 2'", "(" * 5000])
def test_invalid_python_gives_none(text: str):
    assert parse(text) is None


def test_keys_ignore_white_space():
    first, second = (
        "def test_a():\n    x = f()\n    assert x == [1, 2]\n",
        "def test_a():\n\n    x = f()\n    assert x == [1,  2]\n",
    )
    assert keys(first, parse(first) or []) == keys(second, parse(second) or [])


@pytest.mark.parametrize(
    "changed",
    [
        "def test_a():\n    x = g()\n    assert x == 1\n",  # above it
        "def test_a():\n    x = f()\n    assert x == 2\n",
        "def test_a():\n    x = f()\n    assert x is 1\n",
    ],
)
def test_keys_depend_on_prefix_and_target(changed: str):
    text = "def test_a():\n    x = f()\n    assert x == 1\n"
    assert keys(text, parse(text) or []) != keys(changed, parse(changed) or [])


def test_keys_use_normalised_prefixes():
    """The one-pass digests are equal exactly if the normalised prefixes are equal."""
    calls = "    self.assertEqual(f(a),b)\n    self.assertEqual(f(a), b)\n    assert  a==1 ; assert a==1\n"
    text = "a = 1\ndef test_a(self):\n" + calls
    found = parse(text) or []
    whole = [(a.kind, " ".join(text[: a.cut].split()), a.target) for a in found]
    made = keys(text, found)
    assert [[a == b for b in made] for a in made] == [[a == b for b in whole] for a in whole]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("True)", "bool_literal"), ("None", "none_literal"), ("'x'", "string_literal"), ("-1.5e3)", "numeric_literal"),
        ("[1]", "collection"), ("f(x)", "func_call"), ("name)", "variable"), ("a.b + c", "complex_expr"),
    ],
)  # fmt: skip
def test_difficulty(target: str, expected: str):
    assert difficulty(target) == expected
