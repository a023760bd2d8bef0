"""What llama.vim shows of a text."""

from __future__ import annotations

import pytest
from c2l_lab.benchmarks.typing.llama_vim import shown


@pytest.mark.parametrize(
    ("content", "before", "after", "text"),
    [
        ("foo(a)\n", "x = ", "\ny = 1\n", "foo(a)"),
        ("    a = 1", "def f():\n    ", "\n", "a = 1"),  # the indentation of a blank line is taken off
        ("y = 1", "", "\ny = 1\n", ""),  # the next line
        ("y = 1", "", "\n\ny = 1\n", ""),
        ("y = 1\nz", "", "\ny = 1\nz = 2\n", ""),
        ("y = 1\nz", "", "\ny = 1\na = 2\n", "y = 1\nz"),
        ("\ny = 1", "x", "\ny = 1\n", ""),
        (")", "f(", ")\n", ""),  # the rest of the line
        ("a\nb", "    x = ", "\n", "a"),  # a line indented less than the cursor line
        ("  \n ", "x = ", "\n", ""),
    ],
)
def test_rules_of_the_peer(content: str, before: str, after: str, text: str) -> None:
    assert shown(content, before, after) == text
