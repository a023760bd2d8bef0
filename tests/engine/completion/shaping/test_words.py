"""The rest of the line after the cursor is not repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2l_lsp.engine.completion.shaping.words import without_rest


@pytest.mark.parametrize(
    ("text", "rest", "kept"),
    [
        ("bar", "bar(1)", ""),  # the rest of the word
        ("first_name", "name()", "first_"),
        ("bar(1)", "bar", ""),
        ("barrel", "bar(1)", "barrel"),
        ("a, b", ", b)", "a"),
        ("a, b", ", b, c)", "a"),
        ("f(a)", ")", "f(a)"),  # brackets are the subject of another rule
        ("a", "", "a"),
        ("a\nb", "b", "a\nb"),
    ],
)
def test_what_follows_is_cut_from_the_end(text: str, rest: str, kept: str) -> None:
    assert without_rest(text, rest) == kept


@given(st.text("ab_( ,", max_size=8), st.from_regex(r"[ab]{1,3}[( ,]?", fullmatch=True))
def test_the_rest_of_the_word_is_never_repeated(text: str, rest: str) -> None:
    word = rest.rstrip("( ,")
    assert not without_rest(text, rest).endswith(word) or text.endswith(word + word)
