"""How much of an answer is shown unasked."""

from __future__ import annotations

import math

import pytest

from c2l_lsp.engine.completion.confidence import LEAST_CHARACTERS, SURE, ConfidentText


def told(least: float, *tokens: tuple[str, float], end: float | None = None) -> tuple[str, bool]:
    """(what is shown, whether more could come) after tokens of these probabilities; `end` is that of the end."""
    sure, text, logprob, more = ConfidentText(least), "", 0.0, True
    for token, probability in tokens:
        text, logprob = text + token, logprob + math.log(probability)
        more = sure.add(text, logprob)
    if end is not None:
        sure.end(logprob + math.log(end))
    return sure.shown(), more


def test_a_line_is_shown_while_it_is_likely_as_a_whole():
    line = (("self", 0.9), (".", 0.9), ("name", 0.3))
    assert told(0.1, *line, ("\n", 0.9))[0] == "self.name"
    assert told(0.1, *line, end=0.9)[0] == "self.name"
    assert told(0.1, *line, ("\n", 0.3))[0] == "self."  # 0.07: only its part is sure


def test_more_lines_are_shown_only_while_all_of_them_are_likely():
    first, second = (("a = 1", 0.9), ("\n", 0.9)), (("b = 2", 0.2), ("\n", 0.9))
    assert told(0.1, *first, *second)[0] == "a = 1\nb = 2"
    assert told(0.2, *first, *second)[0] == "a = 1"
    assert told(0.2, *first, ("b", 0.9))[0] == "a = 1"  # no part of a second line, however sure


def test_a_part_ends_where_a_word_does_and_is_no_single_bracket():
    assert told(0.1, ("self", 0.9), (".na", 0.9), ("me", 0.1), ("s", 0.5))[0] == "self"
    assert told(0.1, ("self", 0.9), (".na", 0.9), ("me", 0.5), ("(", 0.1), (")", 0.9))[0] == "self.name"
    assert told(0.1, ("(", 0.9), ("x", 0.1), (")", 0.1))[0] == ""
    assert LEAST_CHARACTERS == 2


def test_a_part_has_to_be_more_likely_than_a_line():
    assert told(0.1, ("foo", SURE - 0.01), ("(", 0.2), ("x", 0.5))[0] == ""
    assert told(0.1, ("foo", SURE + 0.01), ("(", 0.2), ("x", 0.5))[0] == "foo"
    assert told(0.6, ("foo", SURE + 0.01), ("(", 0.2), ("x", 0.5))[0] == ""  # never below what is asked of a line


def test_decoding_ends_as_soon_as_nothing_can_be_added():
    assert told(0.1, ("foo", 0.5), ("(", 0.3))[1]
    assert not told(0.1, ("foo", 0.5), ("(", 0.19))[1]


@pytest.mark.parametrize("text", ["x", "x = [\n    1,\n    2"])
def test_with_no_demand_everything_is_shown(text: str):
    assert told(0.0, *((letter, 0.01) for letter in text)) == (text, True)


def test_a_blank_first_line_is_not_the_line_that_counts():
    assert told(0.1, ("\n    ", 0.9), ("return", 0.9), (" ", 0.9), ("xyz", 0.1), ("q", 0.1))[0] == "\n    return "
