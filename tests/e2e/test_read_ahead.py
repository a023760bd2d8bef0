"""The text around a resting cursor is read before the first key: over LSP, and with the shipped model what it saves."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import Start
from tests.support.editor import Editor

TEXT = "import os\n\n\ndef first(a):\n    return a\n"


def reads(editor: Editor) -> list[str]:
    """The prefixes that the engine was asked to read."""
    asked = (note["params"] for note in editor.engine_requests("complete"))
    return [params["prefix"] for params in asked if params.get("read_only")]


def move(editor: Editor, uri: str, line: int, character: int) -> None:
    place = {"line": line, "character": character}
    editor.notify("c2l/didMoveCursor", {"textDocument": {"uri": uri}, "position": place})


def test_the_text_before_a_resting_cursor_is_read(start: Start, folder: Path, uri: str) -> None:
    editor = start()
    editor.initialize([folder])
    editor.open(uri, TEXT)
    move(editor, uri, 3, 4)  # before the engine runs: the file was open when the editor started
    editor.ready()
    editor.until(lambda: reads(editor) == ["import os\n\n\ndef "])
    for line in range(4):
        move(editor, uri, line, 0)
    editor.until(lambda: len(reads(editor)) > 1)
    assert reads(editor)[1:] == ["import os\n\n\n"], "the places that the cursor only passes are not read"


def test_what_gets_no_completions_is_not_read(start: Start, folder: Path, uri: str) -> None:
    editor = start()
    editor.initialize([folder], {"enable": {"*": True, "python": False}})
    editor.ready()
    other = uri.replace(".py", ".rs")
    editor.open(uri, TEXT)
    editor.open(other, TEXT, "rust")
    move(editor, uri, 3, 4)
    move(editor, uri.replace(".py", "_unknown.py"), 3, 4)
    editor.notify("c2l/didMoveCursor", {"textDocument": {"uri": other}})  # malformed: ignored
    move(editor, other, 4, 0)
    editor.until(lambda: reads(editor))
    assert reads(editor) == ["import os\n\n\ndef first(a):\n"]
