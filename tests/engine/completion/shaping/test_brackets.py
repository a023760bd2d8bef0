"""Brackets and strings of a text are balanced by the syntax of its language."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2l_lsp.engine.completion.shaping.brackets import balance
from c2l_lsp.engine.completion.shaping.lexer import advance
from c2l_lsp.engine.completion.shaping.place import Place

ALREADY_CLOSED = [
    ("python", "print(|)", "len(order))", "len(order)"),
    ("python", "print(|)", "f(')')", "f(')')"),  # the last bracket is the text's own, the one before is in a string
    ("python", "d[|])", "key])", "key"),
    ("python", "return sum(line.price(|) for line in a)", ") for line in b)", ""),
    ("python", "print('|')", "a')", "a"),
    ("python", "f(a|, b)", ")  # ", ""),
    ("javascript", "foo(|);", "`)${a}`);", "`)${a}`"),
    ("typescript", "const x: Map<string, number> = new Map([|]);", "['(', 1]]);", "['(', 1]"),
    ("go", "fmt.Println(|)", 'x, ")")', 'x, ")"'),
    ("go", "a := []rune{|}", "'}', '\\''}", "'}', '\\''"),
    ("rust", "println!(|);", '"{}", f::<\'a>(x));', '"{}", f::<\'a>(x)'),
    ("rust", "f(|)", 'r#"")"#)', 'r#"")"#'),
    ("c", "printf(|);", "\"%c\", ')');", "\"%c\", ')'"),
    ("cpp", "f(|);", "std::vector<int>{1, 2});", "std::vector<int>{1, 2}"),
    ("java", "list.add(|);", "m.get('\"'));", "m.get('\"')"),
    ("ruby", "puts(|)", '"#{a}")', '"#{a}"'),
    ("lua", "print(|)", "#t)", "#t"),
    ("no-such-language", "f(|)", 'g(")"))', 'g(")")'),
]
NOT_CLOSED_YET = [
    ("python", "print(|", "len(order))", "len(order))"),
    ("python", "x = 'a|", "bc'", "bc'"),
    ("python", "f(a)|", " + (b)", " + (b)"),
    ("python", "if f(|:\n    pass", "a)", "a)"),
    ("c", "if (|", "x) {}", "x) {}"),
    ("javascript", "const f = (a|", ", b) => a", ", b) => a"),
]
LEFT_OPEN = [
    ("python", "rows.append(|)", "make_row(", "make_row"),
    ("python", "found = |", "[", ""),
    ("python", "x = |", 'f"abc {', ""),
    ("python", "x = |", "g(a, 'b", "g"),
    ("python", "|", "a = 1\nb = f(", "a = 1"),
    ("go", "|", "func f() {", "func f()"),
    ("rust", "let x = |", "match y {", "match y"),
]
OTHER = [
    ("python", "f(|)", "x  # note", "x  "),  # the comment would swallow the bracket
    ("python", "# see f(|", "a) and [b", "a) and [b"),  # a comment is no code
    ("c", "if (a) {\n    b();\n|\n}\n", "} else {", "} else {"),  # it closes one block and opens another
    ("python", "f(a]|)", "b", "b"),
    ("python", "|f(1)", "x = ((", "x ="),
    ("python", "f|)", "(a", "(a"),  # the bracket after the cursor waits for one
    ("python", 'def f():\n    """A.|\n\n\ndef g():\n    """B."""\n', '"""', '"""'),
    ("python", "x = |\n    1,\n)\n", "(", "("),
]


def parts(code: str) -> tuple[str, str]:
    before, _, after = code.partition("|")
    return before, after


@pytest.mark.parametrize(("language", "code", "text", "kept"), ALREADY_CLOSED + NOT_CLOSED_YET + LEFT_OPEN + OTHER)
def test_the_text_closes_what_it_opens_and_nothing_that_is_closed(
    language: str, code: str, text: str, kept: str
) -> None:
    for end in ("", "\n\n"):
        before, after = parts(code + end)
        assert balance(text, Place(language, before, after)).text == kept


@pytest.mark.parametrize(
    ("code", "text", "replaced"),
    [("f(|)", "\n    a,\n    b,\n)", 1), ("f([|])", "\n    a,\n])", 2), ("f([|])", "\n    a,\n]", 1)],
)
def test_several_lines_keep_the_closing_brackets_that_follow(code: str, text: str, replaced: int) -> None:
    balanced = balance(text, Place("python", *parts(code)))
    assert (balanced.text, balanced.replaced) == (text, replaced)


def imbalance(text: str, language: str) -> int:
    """Open and superfluous brackets of a text, and 1 for an open string."""
    place = Place(language, "", "")
    state = advance(place.head, text, place.rules)
    return len(state.brackets) + state.in_string


PIECES = st.sampled_from(["(", ")", "[", "]", "{", "}", '"', "'", "a", "b1", " ", "\n", "\n    ", ",", "#", "//", "`"])
CODE = st.lists(PIECES, max_size=24).map("".join)


@settings(max_examples=400, deadline=None)
@given(CODE, CODE, CODE, st.sampled_from(["python", "javascript", "go", "rust", "c", "java", "unknown"]))
def test_any_text_leaves_the_brackets_no_worse(before: str, text: str, after: str, language: str) -> None:
    """The text is complete in itself, or the whole is as balanced as it was."""
    balanced = balance(text, Place(language, before, after))
    assert text.startswith(balanced.text)
    assert after[: balanced.replaced] in balanced.text
    again = balance(balanced.text, Place(language, before, after))
    assert again.text == balanced.text or again.text == balanced.text.rstrip()


@settings(max_examples=300, deadline=None)
@given(CODE)
def test_a_text_on_a_line_of_its_own_never_ends_inside_what_it_opened(text: str) -> None:
    kept = balance(text, Place("python", "x = 1\n", "\ny = 2\n")).text
    assert imbalance(kept, "python") == 0
