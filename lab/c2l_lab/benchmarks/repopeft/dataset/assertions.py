"""Finds the assertions of a test file, each with its expected value and the position of that value.

Rules, as published unless marked (ours):
- `assert a OP b`: b, the first comparator; `assert expression`: the whole expression.
- `self.assertX(a, b)`: the second argument and `)`; the first one for assertTrue, assertRaises and similar;
  assertRaisesRegex: both. A message is never the expected value (ours; published: the last argument).
- `pytest.raises(...)`, `pytest.approx(...)`: the first argument, the keyword arguments and `)`.
- `assert_*(a, b)`: the last positional argument and `)`; a mock's expected call is its whole argument list (ours).
- A value over several lines is flattened to one. The prefix is the file's own text, not a re-spaced head (ours).
- Rows are in the order of `ast.walk`, because the first ones of a commit are scored.
"""

from __future__ import annotations

import ast
import hashlib
import re
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_SECOND = frozenset({
    "assertEqual", "assertNotEqual", "assertIs", "assertIsNot", "assertIn", "assertNotIn", "assertIsInstance",
    "assertNotIsInstance", "assertAlmostEqual", "assertNotAlmostEqual", "assertDictEqual", "assertListEqual",
    "assertTupleEqual", "assertSetEqual", "assertSequenceEqual", "assertRegex", "assertNotRegex", "assertCountEqual",
    "assertMultiLineEqual", "assertGreater", "assertGreaterEqual", "assertLess", "assertLessEqual", "assertLogs",
})  # fmt: skip
_FIRST = frozenset({
    "assertTrue", "assertFalse", "assertIsNone", "assertIsNotNone", "assertRaises", "assertWarns",
})  # fmt: skip
_BOTH = frozenset({"assertRaisesRegex", "assertWarnsRegex"})
MOCK = frozenset({
    "assert_called_with", "assert_called_once_with", "assert_any_call", "assert_has_calls", "assert_awaited_with",
    "assert_awaited_once_with", "assert_any_await", "assert_has_awaits",
})  # fmt: skip

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|$)")
_WORD = re.compile(r"\S+")


class Assertion(NamedTuple):
    """`text[:cut]` is the prefix, `text[head:cut]` the assertion's own part of it; `lineno` from 1, `col` in bytes."""

    kind: str
    head: int
    cut: int
    target: str
    lineno: int
    col: int
    function: str


class Key(NamedTuple):
    """The identity of an assertion across versions: kind, prefix and target without white space."""

    kind: str
    prefix: bytes
    target: str


def parse(text: str) -> list[Assertion] | None:
    """The assertions of a text; None if it is not valid Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in strings
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    places = _Places(text)
    found = (_read(node, function, places) for node, function in _walk(tree))
    return [item for item in found if item is not None and item.target and not item.target.startswith(",")]


def keys(text: str, found: Sequence[Assertion]) -> list[Key]:
    """The keys of a file's assertions in order, in one pass over the text."""
    prefixes: dict[int, bytes] = {}
    digest = hashlib.blake2b(digest_size=16)
    words = _WORD.finditer(text)
    word = next(words, None)
    for cut in sorted({item.cut for item in found}):
        while word is not None and word.end() <= cut:
            digest.update(word[0].encode("utf-8", "surrogatepass") + b" ")
            word = next(words, None)
        here = digest.copy()
        if word is not None and word.start() < cut:
            here.update(text[word.start() : cut].encode("utf-8", "surrogatepass") + b" ")
        prefixes[cut] = here.digest()
    return [Key(item.kind, prefixes[item.cut], " ".join(item.target.split())) for item in found]


def difficulty(target: str) -> str:
    """The published class of a target, by its syntax."""
    text = target.strip().rstrip(")")
    if text in {"True", "False"}:
        return "bool_literal"
    if text == "None":
        return "none_literal"
    if text.startswith(("'", '"', "b'", 'b"', "f'", 'f"')):
        return "string_literal"
    if re.fullmatch(r"-?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        return "numeric_literal"
    if text.startswith(("[", "(", "{")):
        return "collection"
    if "(" in target:
        return "func_call"
    return "variable" if text.isidentifier() else "complex_expr"


class _Places:
    """Converts (line, byte column) of `ast` to character offsets, with the line endings of `ast`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._lines = [match[0] for match in _LINE.finditer(text)]
        self._starts = [match.start() for match in _LINE.finditer(text)]

    def at(self, lineno: int, col: int) -> int:
        line = self._lines[lineno - 1]
        before = col if line.isascii() else len(line.encode("utf-8", "surrogatepass")[:col].decode("utf-8", "ignore"))
        return self._starts[lineno - 1] + before

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        end_line, end_col = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
        return self.at(node.lineno, node.col_offset), self.at(end_line, end_col)


def _walk(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """The nodes in the order of `ast.walk`, each with its innermost enclosing test function."""
    waiting: deque[tuple[ast.AST, str]] = deque([(tree, "")])
    while waiting:
        node, function = waiting.popleft()
        yield node, function
        inside = function
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and "test" in node.name.lower():
            inside = node.name
        decorators = set(map(id, getattr(node, "decorator_list", ())))
        for child in ast.iter_child_nodes(node):
            waiting.append((child, function if id(child) in decorators else inside))


def _read(node: ast.AST, function: str, places: _Places) -> Assertion | None:
    if isinstance(node, ast.Assert):
        return _plain(node, function, places)
    if not isinstance(node, ast.Call):
        return None
    kind = _kind(node.func)
    expected = _expected(kind, node, places) if kind else None
    if expected is None:
        return None
    start, end = expected
    label = "assert_*" if kind.startswith("assert_") else kind
    head, _ = places.span(node)
    target = _one_line(places.text[start:end]) + ")"
    return Assertion(label, head, start, target, node.lineno, node.col_offset, function)


def _plain(node: ast.Assert, function: str, places: _Places) -> Assertion:
    value = node.test.comparators[0] if isinstance(node.test, ast.Compare) else node.test
    start, end = places.span(value)
    head, _ = places.span(node)
    target = _one_line(places.text[start:end])
    return Assertion("assert", head, start, target, node.lineno, node.col_offset, function)


def _kind(func: ast.expr) -> str:
    """`self.assertX`, `pytest.raises`, `pytest.approx` or the name of an `assert_*` function; "" for any other call."""
    if isinstance(func, ast.Attribute):
        owner = func.value.id if isinstance(func.value, ast.Name) else ""
        if owner == "self" and func.attr in _SECOND | _FIRST | _BOTH:
            return f"self.{func.attr}"
        if owner == "pytest" and func.attr in {"raises", "approx"}:
            return f"pytest.{func.attr}"
        name = func.attr
    else:
        name = func.id if isinstance(func, ast.Name) else ""
    return name if name.startswith("assert_") and name != "assert_" else ""


def _expected(kind: str, call: ast.Call, places: _Places) -> tuple[int, int] | None:
    """The position of the expected value of a call; None if it has none."""
    name, args = kind.rpartition(".")[2], call.args
    if name in MOCK:
        return _inside(call, places) if args or call.keywords else None
    if len(args) < (2 if name in _SECOND | _BOTH else 1):
        return None
    if kind in {"pytest.raises", "pytest.approx"} and len(args) == 1:
        return _inside(call, places)
    if name in _BOTH:
        return places.span(args[0])[0], _around(args[1], call, places)[1]
    if name in _SECOND:
        return _around(args[1], call, places)
    return _around(args[0] if "." in kind else args[-1], call, places)


def _inside(call: ast.Call, places: _Places) -> tuple[int, int]:
    """The arguments of a call as text, without outer white space and a trailing comma."""
    text, (_, end) = places.text, places.span(call)
    start = _visible(text, _opening(call, places) + 1, 1)
    last = _visible(text, end - 2, -1)
    return start, (_visible(text, last - 1, -1) if text[last] == "," else last) + 1


def _around(value: ast.expr, call: ast.Call, places: _Places) -> tuple[int, int]:
    """The position of an argument with its own parentheses, without those of the call."""
    text, (start, end) = places.text, places.span(value)
    opening, closing = _opening(call, places), places.span(call)[1] - 1
    while True:
        left, right = _visible(text, start - 1, -1), _visible(text, end, 1)
        if left <= opening or right >= closing or text[left] != "(" or text[right] != ")":
            return start, end
        start, end = left, right + 1


def _opening(call: ast.Call, places: _Places) -> int:
    return places.text.index("(", places.span(call.func)[1])


def _visible(text: str, at: int, step: int) -> int:
    """The next offset from `at` that is not white space, in steps of 1 or −1. Within a call there always is one."""
    while text[at].isspace():
        at += step
    return at


def _one_line(value: str) -> str:
    return " ".join(value.split()) if "\n" in value or "\r" in value else value.strip()
