"""When a completion stops and what is cut from it."""

from __future__ import annotations

import pytest

from c2l_lsp.engine.completion.stop_rules import StopRules, closers_only


def shape(prefix, suffix="", multiline="auto"):
    return StopRules.of(prefix, suffix, multiline)


@pytest.mark.parametrize(
    ("prefix", "suffix", "setting", "several"),
    [
        ("x = ", "", "auto", True),
        ("foo(", ")\n", "auto", True),
        ("foo(", ", b)\n", "auto", False),
        ("foo(", ", b)\n", "always", True),
        ("x = ", "", "never", False),
    ],
)
def test_several_lines_only_where_nothing_follows(prefix, suffix, setting, several):
    assert shape(prefix, suffix, setting).multiline is several


def test_one_line_stops_at_its_end():
    one = shape("x = ", "", "never")
    assert one.stop("1 +") == ""
    assert one.stop("1 + 2\n") == "lines"
    assert one.finish("1 + 2\ny = 3", "lines") == "1 + 2"


def test_a_dedented_line_ends_the_scope():
    inside = shape("def f(a):\n    return ")
    assert inside.stop("a +\\\n    1") == ""
    assert inside.stop("a\ndef g") == "scope"
    assert inside.finish("a\ndef g():\n    pass", "scope") == "a"


def test_a_blank_line_after_text_ends():
    top = shape("")
    assert top.stop("import os\n") == ""
    assert top.stop("import os\n\n") == "blank"


def test_repeated_lines_end():
    top = shape("    ")
    assert top.stop("    call(a)\n    call(a)\n") == "repeat"
    assert top.finish("call(a)\n    call(a)\n    call(a)", "repeat") == "call(a)"
    assert top.stop("abcdabcdabcdabcdabcd") == "repeat"


def test_a_line_begun_by_the_user_counts_as_said():
    begun = shape("        self.")
    assert begun.stop("height = height\n        self.height = height\n") == "repeat"
    assert begun.finish("height = height\n        self.height = height\n", "repeat") == "height = height"


def test_the_next_line_of_the_file_is_not_said_again():
    before = shape("def f():\n    a = 1\n    ", "\n    return a\n")
    assert before.stop("b = 2\n    return a\n") == "suffix"
    assert before.finish("b = 2\n    return a\n", "suffix") == "b = 2"


def test_text_behind_the_cursor_is_not_doubled():
    call = shape("print(", ")\n")
    assert call.finish("value)", "eos") == "value"
    assert call.finish("value", "eos") == "value"
    assert shape("d[", "])\n").finish("key])", "eos") == "key"


def test_an_unfinished_last_line_is_dropped_when_time_ran_out():
    late = shape("def f():\n    ")
    assert late.finish("a = 1\n    b = lo", "latency") == "a = 1"
    assert late.finish("a = lo", "latency") == "a = lo"


def test_trailing_space_is_cut():
    assert shape("x = ").finish("1   \n\n", "eos") == "1"


@pytest.mark.parametrize(("rest", "only"), [("", True), (")]}", True), ("):", True), (") + 1", False), ("x", False)])
def test_closers(rest, only):
    assert closers_only(rest) is only
