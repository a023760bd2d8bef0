"""Words and closing characters."""

from __future__ import annotations

import pytest

from c2l_lsp import text


@pytest.mark.parametrize(
    ("given", "leading"), [("", ""), (")]}", ")]}"), ("):\n", "):\n"), (") + 1", ") "), ("x)", ""), ("\t'", "\t'")]
)
def test_leading_closers_end_at_the_first_other_character(given, leading):
    assert text.leading_closers(given) == leading
    assert text.is_closers_only(given) is (given == leading)


@pytest.mark.parametrize(
    ("before", "after", "splits"),
    [("na", "me", True), ("a_", "1", True), ("é", "t", True), ("a", ".b", False), ("", "a", False), ("a", "", False)],
)
def test_a_boundary_between_word_characters_splits_a_word(before, after, splits):
    assert text.splits_word(before, after) is splits


@pytest.mark.parametrize(("given", "word"), [("x = self.na_1", "na_1"), ("f(", ""), ("", ""), ("word", "word")])
def test_word_at_end(given, word):
    assert text.word_at_end(given) == word
