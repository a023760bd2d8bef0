"""Notebooks over LSP: a cell's completions see the other cells, and the folder's adapter and filter."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.support.editor import AUTOMATIC, Editor

CELL = "vscode-notebook-cell:{0}#W{1}sZmlsZQ%3D%3D"


class Notebook:
    """An open notebook of a client. Cells are named by numbers."""

    def __init__(self, editor: Editor, path: Path, scheme: str = CELL) -> None:
        self.editor, self.uri, self._path, self._scheme = editor, path.as_uri(), path, scheme
        self._version = 0

    def cell(self, number: int) -> str:
        return self._scheme.format(self._path.as_posix(), number)

    def item(self, number: int, text: str | None, language: str = "python") -> dict[str, Any]:
        return {"uri": self.cell(number), "languageId": language, "version": 1, "text": text}

    def described(self, *numbers: int, kind: int = 2) -> list[dict[str, Any]]:
        return [{"kind": kind, "document": self.cell(number)} for number in numbers]

    def open(self, *texts: str) -> None:
        notebook = {"uri": self.uri, "notebookType": "jupyter-notebook", "version": 1}
        notebook["cells"] = self.described(*range(len(texts)))
        items = [self.item(number, text) for number, text in enumerate(texts)]
        self.editor.notify("notebookDocument/didOpen", {"notebookDocument": notebook, "cellTextDocuments": items})

    def change(self, **cells: object) -> None:
        self._version += 1
        document = {"uri": self.uri, "version": self._version}
        self.editor.notify("notebookDocument/didChange", {"notebookDocument": document, "change": {"cells": cells}})

    def splice(self, start: int, deleted: int, *numbers: int, **more: object) -> None:
        array = {"start": start, "deleteCount": deleted, "cells": self.described(*numbers)}
        self.change(structure={"array": array, **more})

    def edit(self, number: int, *changes: object) -> None:
        self.change(textContent=[{"document": {"uri": self.cell(number), "version": 2}, "changes": list(changes)}])

    def close(self, *numbers: int) -> None:
        cells = [{"uri": self.cell(number)} for number in numbers]
        params = {"notebookDocument": {"uri": self.uri}, "cellTextDocuments": cells}
        self.editor.notify("notebookDocument/didClose", params)

    def asked(self, number: int, line: int, character: int) -> tuple[str, str] | None:
        """The text before and after a place of a cell, as the engine got it; None if it was not asked."""
        before = len(self.editor.engine_requests("complete"))
        self.editor.complete(self.cell(number), line, character)
        requests = self.editor.engine_requests("complete")[before:]
        return (requests[-1]["params"]["prefix"], requests[-1]["params"]["suffix"]) if requests else None


@pytest.fixture
def notebook(editor: Editor, folder: Path) -> Notebook:
    notebook = Notebook(editor, folder / "nb.ipynb")
    notebook.open("import numpy as np\n", "foo\nbar", "print(np)")
    return notebook


def ranged(start: tuple[int, int], end: tuple[int, int], text: str) -> dict[str, object]:
    places = {"start": dict(zip(("line", "character"), start, strict=True))}
    places["end"] = dict(zip(("line", "character"), end, strict=True))
    return {"range": places, "text": text}


def test_server_takes_every_notebook(start: Start, folder: Path) -> None:
    assert start().initialize([folder]).capabilities.notebook_document_sync is None
    sync = start().initialize([folder], notebooks=True).capabilities.notebook_document_sync
    assert sync is not None
    assert [getattr(one, "notebook", None) for one in sync.notebook_selector] == ["*"]


def test_completion_sees_the_other_cells_and_belongs_to_its_own(editor: Editor, notebook: Notebook) -> None:
    [item] = editor.complete(notebook.cell(1), 0, 3, AUTOMATIC) or []
    params = editor.engine_requests("complete")[-1]["params"]
    assert params["prefix"] == "import numpy as np\n\nfoo"
    assert params["suffix"] == "\nbar\n\nprint(np)"
    assert (params["path"], params["adapter"]) == ("nb.ipynb", True)
    assert str(item.insert_text).startswith("_foo")
    assert (item.range.start.line, item.range.start.character, item.range.end.line) == (0, 3, 0)


def test_typing_in_a_cell_keeps_the_rest_of_its_suggestion(editor: Editor, notebook: Notebook) -> None:
    [text] = editor.texts(notebook.cell(1), 0, 3, AUTOMATIC)
    notebook.edit(1, ranged((0, 3), (0, 3), text[:2]))
    count = len(editor.engine_requests("complete"))
    assert editor.texts(notebook.cell(1), 0, 5, AUTOMATIC) == [text[2:]]
    assert len(editor.engine_requests("complete")) == count, "the rest needs no engine"


def test_folder_is_that_of_the_notebook(start: Start, folder: Path, tmp_path: Path) -> None:
    editor = start()
    editor.initialize([folder])
    editor.ready()
    inside = Notebook(editor, folder / "sub" / "nb.ipynb", "jupyter-cell://x{0}/{1}")
    outside = Notebook(editor, tmp_path / "nb.ipynb")
    for notebook in (inside, outside):
        notebook.open("a = 1", "foo")
        notebook.asked(1, 0, 3)
    one, other = (note["params"] for note in editor.engine_requests("complete")[-2:])
    assert (one["folder"], one["path"], one["prefix"]) == (str(folder), "sub/nb.ipynb", "a = 1\n\nfoo")
    assert (other["folder"], other["path"], other["prefix"]) == ("", "", "a = 1\n\nfoo")
    status = editor.request("c2l/status", {"textDocument": {"uri": inside.cell(1)}})
    assert status["adapter"]["folder"] == str(folder)


def test_cells_are_added_removed_and_moved(notebook: Notebook) -> None:
    notebook.splice(0, 0, 7, didOpen=[notebook.item(7, "z = 0")])
    assert notebook.asked(1, 0, 3) == ("z = 0\n\nimport numpy as np\n\nfoo", "\nbar\n\nprint(np)")
    notebook.splice(0, 4, 2, 1, 7, 0)
    assert notebook.asked(1, 0, 3) == ("print(np)\n\nfoo", "\nbar\n\nz = 0\n\nimport numpy as np")
    notebook.splice(0, 1, didClose=[{"uri": notebook.cell(2)}])
    assert notebook.asked(1, 0, 3) == ("foo", "\nbar\n\nz = 0\n\nimport numpy as np")
    assert notebook.asked(2, 0, 3) is None, "a removed cell is closed"
    moved = {"didClose": [{"uri": notebook.cell(7)}], "didOpen": [notebook.item(7, "z = 1")]}
    notebook.splice(0, 2, 7, 1, **moved)
    assert notebook.asked(1, 0, 3) == ("z = 1\n\nfoo", "\nbar\n\nimport numpy as np")


def test_texts_of_cells_are_exact(notebook: Notebook) -> None:
    notebook.edit(0, ranged((0, 0), (0, 18), "𝄞 = 1\r\nb\x0c = 2"))
    notebook.edit(0, ranged((0, 2), (0, 2), "x"), ranged((1, 1), (1, 2), "_"))
    assert notebook.asked(1, 1, 2) == ("𝄞x = 1\nb_ = 2\n\nfoo\nba", "r\n\nprint(np)")
    notebook.edit(0, {"range": None, "text": "new = '\u2028'"})
    assert notebook.asked(1, 0, 0) == ("new = '\u2028'\n\n", "foo\nbar\n\nprint(np)")


def test_positions_in_a_cell_with_crlf_and_wide_characters(editor: Editor, notebook: Notebook) -> None:
    notebook.edit(1, {"text": "s = '𝄞'\r\n𝄞 = s; foo\r\n"})
    [item] = editor.complete(notebook.cell(1), 1, 11, AUTOMATIC) or []
    assert editor.engine_requests("complete")[-1]["params"]["prefix"].endswith("\n\ns = '𝄞'\n𝄞 = s; foo")
    assert (item.range.start.line, item.range.start.character) == (1, 11)


def test_unreadable_change_of_a_cell_concerns_that_cell_until_it_is_opened_again(
    editor: Editor, notebook: Notebook
) -> None:
    notebook.edit(0, ranged((0, 0), (0, 0), None))  # type: ignore[arg-type]
    assert editor.texts(notebook.cell(0), 0, 3) == []
    status = editor.request("c2l/status", {"textDocument": {"uri": notebook.cell(0)}})
    assert status["disabledReason"] == "out-of-step"
    assert notebook.asked(1, 0, 3) == ("foo", "\nbar\n\nprint(np)"), "text that is not known is not shown to the model"
    notebook.splice(0, 1, 0, didClose=[{"uri": notebook.cell(0)}], didOpen=[notebook.item(0, "a = 1")])
    assert notebook.asked(1, 0, 3) == ("a = 1\n\nfoo", "\nbar\n\nprint(np)")


def test_impossible_change_of_the_order_stops_answers_until_the_notebook_is_opened_again(
    editor: Editor, notebook: Notebook
) -> None:
    notebook.splice(5, 1)
    assert editor.texts(notebook.cell(1), 0, 3) == []
    notebook.open("a = 1", "foo")
    assert notebook.asked(1, 0, 3) == ("a = 1\n\nfoo", "")
    editor.notify("notebookDocument/didChange", {"notebookDocument": None})
    assert editor.texts(notebook.cell(1), 0, 3) == []


def test_closed_notebook_leaves_no_cells(editor: Editor, notebook: Notebook) -> None:
    editor.notify("notebookDocument/didSave", {"notebookDocument": {"uri": notebook.uri}})
    assert notebook.asked(1, 0, 3) is not None
    notebook.close(0)
    assert [notebook.asked(number, 0, 3) for number in range(3)] == [None] * 3
    notebook.open("foo")
    assert notebook.asked(0, 0, 3) == ("foo", "")


def test_cell_that_is_opened_as_a_document_has_its_folder_and_its_own_text(editor: Editor, folder: Path) -> None:
    cells = [Notebook(editor, folder / "nb.ipynb").cell(number) for number in (1, 2)]
    for uri in cells:
        editor.open(uri, "foo")
    assert editor.texts(cells[0], 0, 3)
    params = editor.engine_requests("complete")[-1]["params"]
    assert (params["folder"], params["path"], params["prefix"]) == (str(folder), "nb.ipynb", "foo")


def test_cells_are_not_learned_as_the_text_of_their_notebook(editor: Editor, notebook: Notebook, uri: str) -> None:
    notebook.edit(1, {"text": "foo = 1"})
    editor.open(notebook.cell(9), "plain")
    editor.until(lambda: editor.engine_requests("buffer"))
    editor.change(uri, "later")
    editor.until(lambda: editor.engine_requests("buffer")[-1]["params"]["text"] == "later")
    assert {note["params"]["path"] for note in editor.engine_requests("buffer")} == {"a.py"}


def test_follow_up_edits_leave_cells_alone(editor: Editor, folder: Path, uri: str) -> None:
    """Cells of a paired notebook have the path of a Python file: a place in one would be taken for one in the file."""

    def places(document: str, line: int) -> list[dict[str, Any]]:
        at = {"line": line, "character": 0}
        params = {"textDocument": {"uri": document}, "range": {"start": at, "end": at}, "context": {"diagnostics": []}}
        return editor.request("textDocument/codeAction", params) or []

    user = "from a import total\n\ntotal()\n"
    for name in ("user.py", "paired.py"):
        (folder / name).write_text(user, encoding="utf-8")
    paired = Notebook(editor, folder / "paired.py")
    paired.open("x = 1", user)
    editor.change(uri, "def total():\n    pass\n")
    time.sleep(1)
    editor.change(uri, ((0, 4), (0, 9), "price"))
    document = (folder / "user.py").as_uri()
    editor.open(document, user)
    editor.until(lambda: places(document, 2), None, "a follow-up edit")
    [action] = places(document, 2)
    assert set(action["edit"]["changes"]) == {document, paired.uri}
    assert [places(paired.cell(1), line) for line in (0, 2)] == [[], []]
