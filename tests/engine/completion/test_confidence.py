"""Which part of a decoded text is likely enough to be suggested automatically."""

from __future__ import annotations

import math

import pytest

from c2l_lsp.engine.completion.confidence import MIN_PART_CHARACTERS, MIN_PART_CONFIDENCE, ConfidentText


def suggested(min_confidence: float, *tokens: tuple[str, float], end: float | None = None) -> tuple[str, bool]:
    """(suggested text, may decoding continue) after tokens with these probabilities. `end`: of the end token."""
    confident, text, logprob, more = ConfidentText(min_confidence), "", 0.0, True
    for token, probability in tokens:
        text, logprob = text + token, logprob + math.log(probability)
        more = confident.update(text, logprob)
    if end is not None:
        confident.finish(logprob + math.log(end))
    return confident.result(), more


def test_a_line_is_suggested_if_it_is_likely_as_a_whole():
    line = (("self", 0.9), (".", 0.9), ("name", 0.3))
    assert suggested(0.1, *line, ("\n", 0.9))[0] == "self.name"
    assert suggested(0.1, *line, end=0.9)[0] == "self.name"
    assert suggested(0.1, *line, ("\n", 0.3))[0] == "self."  # the line has 0.07, only a part of it is likely


def test_several_lines_are_suggested_if_they_are_likely_together():
    first, second = (("a = 1", 0.9), ("\n", 0.9)), (("b = 2", 0.2), ("\n", 0.9))
    assert suggested(0.1, *first, *second)[0] == "a = 1\nb = 2"
    assert suggested(0.2, *first, *second)[0] == "a = 1"
    assert suggested(0.2, *first, ("b", 0.9))[0] == "a = 1"  # never a part of the second line


def test_a_part_ends_at_a_word_boundary_and_has_two_characters():
    assert suggested(0.1, ("self", 0.9), (".na", 0.9), ("me", 0.1), ("s", 0.5))[0] == "self"
    assert suggested(0.1, ("self", 0.9), (".na", 0.9), ("me", 0.5), ("(", 0.1), (")", 0.9))[0] == "self.name"
    assert suggested(0.1, ("(", 0.9), ("x", 0.1), (")", 0.1))[0] == ""
    assert MIN_PART_CHARACTERS == 2


def test_a_part_needs_more_confidence_than_a_line():
    rest = (("(", 0.2), ("x", 0.5))
    assert suggested(0.1, ("foo", MIN_PART_CONFIDENCE - 0.01), *rest)[0] == ""
    assert suggested(0.1, ("foo", MIN_PART_CONFIDENCE + 0.01), *rest)[0] == "foo"
    assert suggested(0.6, ("foo", MIN_PART_CONFIDENCE + 0.01), *rest)[0] == ""  # never less than a line needs


def test_decoding_stops_once_no_longer_text_can_be_accepted():
    assert suggested(0.1, ("foo", 0.5), ("(", 0.3))[1]
    assert not suggested(0.1, ("foo", 0.5), ("(", 0.19))[1]


@pytest.mark.parametrize("text", ["x", "x = [\n    1,\n    2"])
def test_without_a_minimum_everything_is_suggested(text: str):
    assert suggested(0.0, *((letter, 0.01) for letter in text)) == (text, True)


def test_a_part_may_follow_a_blank_first_line():
    tokens = (("\n    ", 0.9), ("return", 0.9), (" ", 0.9), ("xyz", 0.1), ("q", 0.1))
    assert suggested(0.1, *tokens)[0] == "\n    return "
