"""Lines that stand around the cursor already are not suggested."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2l_lsp.engine.completion.shaping.neighbours import without_neighbours
from c2l_lsp.engine.completion.shaping.place import Place

BODY = "def f():\n    found = []\n    |\n    return found\n"


@pytest.mark.parametrize(
    ("code", "text", "kept"),
    [
        (BODY, "return found", ""),  # the line below
        (BODY, "return", ""),  # its beginning
        (BODY, "return found or None", ""),  # more than it
        (BODY, "returned = 1", "returned = 1"),  # another word
        (BODY, "a = 1\n    return found", "a = 1"),  # as a later line
        (BODY, "found = []", ""),  # the line above
        (BODY, "found = {}", "found = {}"),
        ("a()\n    ret|\n\n    return found\n", "urn found", ""),  # with what is typed of it
        ("a = 1\nb = 2\n|\n", "a = 1\nb = 2", ""),  # the block above
        ("a = 1\nb = 2\n|\n", "a = 1\nc = 2", "a = 1\nc = 2"),
        ("f(\n    a,\n|\n)\n", ")", ")"),  # brackets are the subject of another rule
        ("if a\n  b\n|\nend\n", "end", "end"),
        ("|", "x", "x"),
    ],
)
def test_lines_around_the_cursor_are_cut(code: str, text: str, kept: str) -> None:
    before, _, after = code.partition("|")
    assert without_neighbours(text, Place("python", before, after)) == kept


LINE = st.sampled_from(["a = 1", "b = 2", "return a", "return", "", "    c()", "x"])


@settings(max_examples=300, deadline=None)
@given(st.lists(LINE, max_size=5), st.lists(LINE, min_size=1, max_size=4), st.lists(LINE, max_size=4))
def test_no_line_is_ever_the_next_one(above: list[str], text: list[str], below: list[str]) -> None:
    place = Place("python", "\n".join([*above, ""]), "\n".join(["", *below]))
    for line in without_neighbours("\n".join(text), place).split("\n"):
        assert not line.strip() or line.strip() != place.following
