"""What is open at an offset: brackets, strings and comments of many languages."""

from __future__ import annotations

import pytest

from c2l_lsp.engine.completion.shaping.lexer import HeadStates, State, advance
from c2l_lsp.engine.completion.shaping.lexical_rules import rules_of


def opened(language: str, text: str) -> tuple[str, str]:
    """The open brackets of a text, and "string" or "comment" if one is open."""
    state = advance(State(), text, rules_of(language))
    inside = "" if state.inside is None else "comment" if state.inside.comment else "string"
    return "".join(bracket for _, bracket in state.brackets), inside


@pytest.mark.parametrize(
    ("language", "text", "brackets", "inside"),
    [
        ("python", "f([", "([", ""),
        ("python", "f('(", "(", "string"),
        ("python", 'x = """a "b" (', "", "string"),
        ("python", 'x = """a"""(', "(", ""),
        ("python", "x = r'\\'' + [", "[", ""),
        ("python", "x = 'a\n(", "(", ""),  # a line break ends a string
        ("python", "# (", "", "comment"),
        ("python", "# (\n[", "[", ""),
        ("python", "f(\ndef g(", "(", ""),  # a definition at column 0 stands in no bracket
        ("javascript", "`a ${b(", "", "string"),
        ("javascript", "x = /[(]/; f(", "(", ""),
        ("javascript", "a / b / (", "(", ""),
        ("go", "x := `\\`; f(", "(", ""),
        ("rust", "fn f<'a>(x: &'a str) { '('; [", "{[", ""),
        ("rust", 'r#"a"b(', "", "string"),
        ("c", "/* ( */ f('\\'', \"(\", {", "({", ""),
        ("c", "/* (", "", "comment"),
        ("cpp", 'R"(a ) b"', "", "string"),
        ("java", '"""\n a "b" (\n"""; {', "{", ""),
        ("csharp", '@"c:\\" + (', "(", ""),
        ("ruby", "# don't\n[", "[", ""),
        ("shellscript", "x=${#a} '(' [", "[", ""),
        ("lua", "--[[ ( ]] {", "{", ""),
        ("sql", "select 'it''s (' (", "(", ""),
        ("haskell", "{- ( -} f' (", "(", ""),
        ("yaml", "a: don't [", "[", ""),
        ("markdown", "don't (", "(", ""),
        ("no-such-language", 'it\'s "(" (', "(", ""),
    ],
)
def test_brackets_strings_and_comments_that_are_open(language: str, text: str, brackets: str, inside: str) -> None:
    assert opened(language, text) == (brackets, inside)


def test_the_state_at_a_line_is_the_same_whatever_was_asked_before() -> None:
    lines = ["f(\n", "  '(',\n", '  """a\n', "(\n", '"""\n', "]\n", "def g(\n"] * 3
    heads = HeadStates()
    for end in [3, 4, 5, 2, 9, 21, 1, 20, 3]:
        head = "".join(lines[:end])
        assert heads.at_end("python", head) == advance(State(), head, rules_of("python"))
