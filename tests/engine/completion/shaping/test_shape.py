"""All rules together: what is shown of a decoded text, and how long that takes."""

from __future__ import annotations

import statistics
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2l_lsp.engine.completion.shaping.shape import Shaper

BODY = "def f(a):\n    found = []\n    |\n    return found\n"


def shaped(code: str, text: str, language: str = "python", whole: bool = True) -> str:
    before, _, after = code.partition("|")
    shaper = Shaper()
    return shaper.shape(text, shaper.place(language, before, after), whole=whole).text


@pytest.mark.parametrize(
    ("code", "text", "shown"),
    [
        (BODY, "for b in a:", "for b in a:"),
        (BODY, "return found", ""),
        (BODY, "x = = 1", ""),
        ("def get_a(b):\n    return b\n\n\nx = get_|", "a(b):\n    return", "a(b)"),
        (BODY, "b = 1\n    x = = 1", "b = 1"),
        (BODY, "b = f(\n        1,\n    )\n    c = = 2", "b = f(\n        1,\n    )"),
        ("print(|)\n", "len(a))", "len(a)"),
        ("print(|)\n", "len(a", "len"),
        ("x = get_|name()\n", "first_name", "first_"),
        ("def f():\n\tif a:\n\t\tb()\n\t|\n", "if c:\n        d()", "if c:\n\t\td()"),
    ],
)
def test_the_rules_act_together(code: str, text: str, shown: str) -> None:
    assert shaped(code, text) == shown


PIECES = st.sampled_from(["(", ")", "[", "]", "{", "}", '"', "a", "b1 = 2", " ", "\n    ", ", ", "return found", ":"])


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=10).map("".join), st.booleans())
def test_nothing_shown_is_the_next_line_or_open(text: str, whole: bool) -> None:
    shown = shaped(BODY, text, whole=whole)
    assert all(line.strip() != "return found" for line in shown.split("\n"))
    assert [shown.count(a) - shown.count(b) for a, b in ("()", "[]", "{}")] == [0, 0, 0] or '"' in shown


@pytest.mark.parametrize("language", ["python", "go", "typescript"])
def test_rules_and_parser_keep_up_with_typing_in_a_long_file(language: str) -> None:
    """2,000 lines; the bar of 2 ms for 95 of 100 keys is met with room on an idle machine, a busy one gets more."""
    unit = {
        "python": 'def f{n}(a, b):\n    """Say {n} (once)."""\n    x = [a, {n}]\n    return g(x, b)\n\n',
        "go": "func f{n}(a int, b int) int {{\n\tx := []int{{a, {n}}}\n\t// it's {n}\n\treturn g(x, b)\n}}\n",
        "typescript": "function f{n}(a: A, b: string) {{\n  const x = [a, {n}];\n  // it's\n  return g(x, b);\n}}\n",
    }[language]
    text = "".join(unit.format(n=n) for n in range(400))
    at = text.index("\n", len(text) // 2) + 1
    typed = "value = compute(first, [second, third])"
    shaper, spent = Shaper(), []
    shaper.shape("x", shaper.place(language, text[:at], text[at:]), whole=True)
    for end in range(len(typed)):
        place = shaper.place(language, text[:at] + typed[:end], "\n" + text[at:])
        started = time.thread_time()
        shaper.shape(typed[end:], place, whole=True)
        spent.append((time.thread_time() - started) * 1e3)
    assert statistics.quantiles(spent, n=20)[-1] < 10
