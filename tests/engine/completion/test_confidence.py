"""Which part of a decoded text is likely enough to be suggested automatically."""

from __future__ import annotations

import math

import pytest

from c2l_lsp.engine.completion import thresholds
from c2l_lsp.engine.completion.confidence import ConfidentText
from c2l_lsp.engine.completion.thresholds import Thresholds
from c2l_lsp.model.lm.base import SHIPPED


def suggested(min_confidence: float, *tokens: tuple[str, float], end: float | None = None) -> tuple[str, bool]:
    """(suggested text, may decoding continue) after tokens with these probabilities. `end`: of the end token."""
    rule = Thresholds(line=min_confidence, part=0.4, characters=2, later=0.0)
    confident, text, logprob, more = ConfidentText(rule, unlimited=min_confidence == 0), "", 0.0, True
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


def test_a_part_needs_more_confidence_than_a_line():
    rest = (("(", 0.2), ("x", 0.5))
    assert suggested(0.1, ("foo", 0.39), *rest)[0] == ""
    assert suggested(0.1, ("foo", 0.41), *rest)[0] == "foo"
    assert suggested(0.6, ("foo", 0.41), *rest)[0] == ""  # never less than a line needs


def test_decoding_stops_once_no_longer_text_can_be_accepted():
    assert suggested(0.1, ("foo", 0.5), ("(", 0.3))[1]
    assert not suggested(0.1, ("foo", 0.5), ("(", 0.19))[1]


@pytest.mark.parametrize("text", ["x", "x = [\n    1,\n    2"])
def test_without_a_minimum_everything_is_suggested(text: str):
    assert suggested(0.0, *((letter, 0.01) for letter in text)) == (text, True)


def test_a_part_may_follow_a_blank_first_line():
    tokens = (("\n    ", 0.9), ("return", 0.9), (" ", 0.9), ("xyz", 0.1), ("q", 0.1))
    assert suggested(0.1, *tokens)[0] == "\n    return "


def requested(later: float, *tokens: tuple[str, float]) -> str:
    """The text shown of an explicit request after tokens with these probabilities."""
    confident, text, logprob = ConfidentText(Thresholds(later=later), requested=True), "", 0.0
    for token, probability in tokens:
        text, logprob = text + token, logprob + math.log(probability)
        if not confident.update(text, logprob):
            break
    return confident.result()


def test_a_requested_first_line_is_shown_whatever_it_is_worth():
    assert requested(0.5, ("a = ", 0.1), ("b", 0.01)) == "a = b"


def test_a_later_line_needs_a_confidence_of_its_own():
    first, sure, unsure = ("a = 1\n", 0.01), ("b = 2\n", 0.6), ("c = 3\n", 0.4)
    assert requested(0.5, first, sure) == "a = 1\nb = 2"
    assert requested(0.5, first, unsure, sure) == "a = 1"
    assert requested(0.5, first, sure, unsure, sure) == "a = 1\nb = 2"
    assert requested(0.3, first, sure, unsure) == "a = 1\nb = 2\nc = 3"


def test_all_thresholds_stand_in_one_place_and_every_shipped_model_has_its_own():
    assert set(thresholds.SHIPPED) == set(SHIPPED)
    assert thresholds.of("some/other") is thresholds.OTHER
