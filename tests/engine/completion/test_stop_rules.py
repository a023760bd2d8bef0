"""When decoding stops, and what is cut from the decoded text."""

from __future__ import annotations

import pytest

from c2l_lsp.engine.completion.stop_rules import StopRules


def rules(prefix, suffix="", multiline="auto"):
    return StopRules.at_cursor(prefix, suffix, multiline)


@pytest.mark.parametrize(
    ("prefix", "suffix", "setting", "multiline"),
    [
        ("x = ", "", "auto", True),
        ("foo(", ")\n", "auto", True),
        ("foo(", ", b)\n", "auto", False),
        ("foo(", ", b)\n", "always", True),
        ("x = ", "", "never", False),
    ],
)
def test_auto_allows_several_lines_if_only_closers_follow_on_the_line(prefix, suffix, setting, multiline):
    assert rules(prefix, suffix, setting).multiline is multiline


def test_single_line_completion_stops_at_the_end_of_the_line():
    one = rules("x = ", "", "never")
    assert one.stop_reason("1 +") == ""
    assert one.stop_reason("1 + 2\n") == "lines"
    assert one.trim("1 + 2\ny = 3") == "1 + 2"


def test_a_dedented_line_ends_the_completion():
    inside = rules("def f(a):\n    return ")
    assert inside.stop_reason("a +\\\n    1") == ""
    assert inside.stop_reason("a\ndef g") == "scope"
    assert inside.trim("a\ndef g():\n    pass") == "a"


def test_a_blank_line_after_text_ends_the_completion():
    top = rules("")
    assert top.stop_reason("import os\n") == ""
    assert top.stop_reason("import os\n\n") == "blank"


def test_repetition_ends_the_completion():
    top = rules("    ")
    assert top.stop_reason("    call(a)\n    call(a)\n") == "repeat"
    assert top.trim("call(a)\n    call(a)\n    call(a)") == "call(a)"
    assert top.stop_reason("abcdabcdabcdabcdabcd") == "repeat"


def test_repetition_of_the_cursor_line_counts_the_text_before_the_cursor():
    begun = rules("        self.")
    assert begun.stop_reason("height = height\n        self.height = height\n") == "repeat"
    assert begun.trim("height = height\n        self.height = height\n") == "height = height"


def test_the_line_that_follows_in_the_file_ends_the_completion():
    before = rules("def f():\n    a = 1\n    ", "\n    return a\n")
    assert before.stop_reason("b = 2\n    return a\n") == "suffix"
    assert before.trim("b = 2\n    return a\n") == "b = 2"


def test_an_incomplete_last_line_is_dropped_unless_it_is_the_only_one():
    inside = rules("def f():\n    ")
    assert inside.trim("a = 1\n    b = lo", incomplete=True) == "a = 1"
    assert inside.trim("a = lo", incomplete=True) == "a = lo"


def test_trailing_white_space_is_cut():
    assert rules("x = ").trim("1   \n\n") == "1"
