"""The parser tells whether a text makes the code worse, in every language that has a grammar."""

from __future__ import annotations

import pytest

from c2l_lsp.engine.completion.shaping import syntax
from c2l_lsp.engine.completion.shaping.place import Place
from c2l_lsp.engine.completion.shaping.syntax import Syntax, parser_of

CODE = {
    "python": "class A:\n    def f(self):\n        |\n        return 1\n\n    def g(self):\n        pass\n",
    "javascript": "function f(a) {\n  |\n  return a;\n}\n",
    "javascriptreact": "const f = () => {\n  |\n  return <a href='b'>c</a>;\n}\n",
    "typescript": "function f(a: number): number {\n  |\n  return a;\n}\n",
    "typescriptreact": "const f = (a: B) => {\n  |\n  return <a/>;\n}\n",
    "go": "package a\n\nfunc f() int {\n\t|\n\treturn 1\n}\n",
    "rust": "fn f() -> i32 {\n    |\n    1\n}\n",
    "c": "int f(int a) {\n    |\n    return a;\n}\n",
    "cpp": "template <typename T> T f(T a) {\n    |\n    return a;\n}\n",
    "java": "class A {\n    int f() {\n        |\n        return 1;\n    }\n}\n",
}
GOOD = {
    "python": ["x = g(1)", "if x:", "try:", "for a in b:\n            c()", "with a as b:", "# a", "raise"],
    "go": ["x := g(1)", "if x", "for _, a := range b", "// a"],
    "rust": ["let x = g(1);", "if x", "for a in b"],
}
BAD = {"python": ["x = = 1", "if x", "return )", "def"], "go": ["x := := 1"], "rust": ["let let x = 1;"]}
C_LIKE_GOOD, C_LIKE_BAD = ["g(1);", "if (x)", "for (;;)", "// a"], ["x = = 1;", "if (", "g(1) h(2);"]
CASES = [(name, text, False) for name in CODE for text in GOOD.get(name, C_LIKE_GOOD)]
CASES += [(name, text, True) for name in CODE for text in BAD.get(name, C_LIKE_BAD)]


def place_of(language: str, code: str) -> Place:
    before, _, after = code.partition("|")
    return Place(language, before, after)


@pytest.mark.parametrize(("language", "text", "worse"), CASES)
def test_code_with_the_text_parses_or_not(language: str, text: str, worse: bool) -> None:
    assert parser_of(language) is not None
    assert Syntax().worsens(text, place_of(language, CODE[language])) is worse


def test_code_that_is_broken_already_may_stay_so() -> None:
    assert not Syntax().worsens("x = g(1)", place_of("python", "def f(:\n    |\n    return = 1\n"))


def test_a_language_without_grammar_has_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Syntax().worsens("x = = 1", place_of("cobol", "|"))
    monkeypatch.setitem(syntax._GRAMMARS, "cobol", ("tree_sitter_that_is_not_installed", "language"))
    assert parser_of("cobol") is None
    parser_of.cache_clear()


def test_the_verdict_does_not_depend_on_what_was_parsed_before() -> None:
    """Trees are parsed again from the last one; each verdict equals that of a new parser."""
    used = Syntax()
    for language in ("go", "c", "typescript", "go"):
        for repeat in range(3):
            code = CODE[language].replace("|", "\n" * repeat + "  |")
            for text in (*GOOD.get(language, C_LIKE_GOOD), *BAD.get(language, C_LIKE_BAD)):
                place = place_of(language, code)
                assert used.worsens(text, place) == Syntax().worsens(text, place)
