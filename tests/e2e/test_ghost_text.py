"""What the shipped model suggests through the real server: balanced, and never the line that stands below already."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lsprotocol import types as t

from c2l_lsp.model.lm.base import ASSETS, NANO
from tests.support.editor import AUTOMATIC, INVOKED, SERVER, Editor

pytestmark = pytest.mark.skipif(
    not (ASSETS / NANO / "model.safetensors").exists(), reason="the shipped model is not in this checkout"
)
MODULE = '''"""Orders of the little shop."""
from dataclasses import dataclass, field


@dataclass
class Order:
    number: int
    lines: list[str] = field(default_factory=list)

    def add_line(self, article: str, quantity: int) -> str:
        line = article * quantity
        self.lines.append(line)
        return line

    def total_price(self) -> float:
        return sum(len(line) for line in self.lines)


def open_orders(orders: list[Order]) -> list[Order]:
    found = []
    for order in orders:
        if order.lines:
            found.append(order)
    return found
'''
IN_BRACKETS = [
    "    print(|)", "    print(len(|))", "    for order in sorted(|):", "    names = [|]", "    print(names[|])",
    "    print(max(|), width)", "    return sum(line.total_price(|) for line in orders)", "    names.update(|)",
    "    width = len(names) + len(|)", "    result = dict(|)",
]  # fmt: skip
WORDS = ("apples", "pears", "plums", "grapes")
REPETITIVE = [
    ("".join(f"    print(len({word}))\n" for word in WORDS), "    print(|)"),
    ("".join(f"    rows.append(make_row({word}))\n" for word in WORDS), "    rows.append(|)"),
    ("".join(f"    names = [clean(n) for n in split({word})]\n" for word in WORDS), "    names = [|]"),
]


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    home = tmp_path_factory.mktemp("ghost")
    private = {"C2L_STATE_DIR": str(home / "state"), "C2L_CONFIG": str(home / "c"), "HF_HUB_OFFLINE": "1"}
    editor = Editor(SERVER, home / "none.log", **private, OMP_NUM_THREADS="1")
    editor.initialize([], {"model.id": NANO})
    editor.ready(120)
    yield editor
    editor.end()


def answers(editor: Editor, before: str, after: str) -> Iterator[tuple[str, str]]:
    """Every text at a cursor, unasked and invoked, and the document after it was accepted."""
    uri = f"file:///none/{abs(hash((before, after)))}.py"
    editor.open(uri, before + after)
    lines = before.split("\n")
    for kind in (AUTOMATIC, INVOKED):
        for item in editor.complete(uri, len(lines) - 1, len(lines[-1]), kind) or []:
            text = item.insert_text
            assert isinstance(text, str)
            assert isinstance(item.range, t.Range)
            yield text, before + text + after[item.range.end.character - len(lines[-1]) :]
    editor.close(uri)


@pytest.mark.parametrize(
    ("above", "line"),
    [*((MODULE + "\n\ndef show(orders, names, width):\n", line) for line in IN_BRACKETS)]
    + [("def run(apples, pears):\n" + above, line) for above, line in REPETITIVE],
)
def test_a_text_between_brackets_leaves_them_balanced(editor: Editor, above: str, line: str) -> None:
    before, _, after = line.partition("|")
    for text, document in answers(editor, above + before, after + "\n\n\ndef other():\n    pass\n"):
        for opening, closing in ("()", "[]", "{}"):
            assert document.count(opening) == document.count(closing), text


def test_no_text_is_the_line_below(editor: Editor) -> None:
    lines = MODULE.split("\n")
    for row in range(6, len(lines) - 1):
        below = lines[row]
        if not below.strip():
            continue
        before = "\n".join([*lines[:row], below[: len(below) - len(below.lstrip())]])
        for text, _ in answers(editor, before, "\n" + "\n".join(lines[row:])):
            shown = [line.strip() for line in text.split("\n")]
            assert below.strip() not in shown, text
