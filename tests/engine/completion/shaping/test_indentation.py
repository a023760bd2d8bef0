"""Lines are indented as the file is."""

from __future__ import annotations

import pytest

from c2l_lsp.engine.completion.shaping.indentation import reindented, unit_of

TABS = "def f():\n\tif a:\n\t\tb()\n\t"
TWO = "def f():\n  if a:\n    b()\n  "


@pytest.mark.parametrize(
    ("text", "unit"), [(TABS, "\t"), (TWO, "  "), ("a\n    b\n        c\n", "    "), ("a\nb\n", ""), ("a\n\t", "\t")]
)
def test_the_unit_is_read_from_the_file(text: str, unit: str) -> None:
    assert unit_of(text) == unit


@pytest.mark.parametrize(
    ("prefix", "text", "shown"),
    [
        (TABS, "if c:\n        d()", "if c:\n\t\td()"),
        (TABS, "if c:\n\t\td()", "if c:\n\t\td()"),
        (TABS, "    d()", "\td()"),
        (TWO, "if c:\n\td()", "if c:\n  d()"),
        (TWO, "if c:\n    d()", "if c:\n    d()"),
        ("x = ", "1\n\ty", "1\n\ty"),
    ],
)
def test_lines_get_the_indentation_of_the_file(prefix: str, text: str, shown: str) -> None:
    assert reindented(text, prefix, "") == shown
