"""Text and positions in the three encodings, with characters that break `str.splitlines`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.support.editor import AUTOMATIC, Editor

UNIT = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}
ALPHABET = "ab \n\r\x0b\x0c\x1c\x85\u2028é漢𝄞\u0301"


def offsets(text: str, encoding: str) -> list[tuple[int, int]]:
    """The editor's position of every offset where a position can be (not between \\r and \\n)."""
    codec, size = UNIT[encoding]
    line, units, found = 0, 0, []
    for at, char in enumerate(text):
        found.append((line, units))
        if char == "\n" or (char == "\r" and text[at : at + 2] != "\r\n"):
            line, units = line + 1, 0
        elif char != "\r":
            units += len(char.encode(codec)) // size
    return [*found, (line, units)]


@pytest.mark.parametrize("encoding", sorted(UNIT))
def test_edits_keep_server_and_editor_in_sync(start: Start, folder: Path, uri: str, encoding: str) -> None:
    editor = start()
    result = editor.initialize([folder], encodings=[encoding])
    assert result.capabilities.position_encoding == encoding
    editor.ready()
    seed = random.Random(encoding)
    text = "one\x0ctwo\u2028three\r\nfour𝄞\rfive\n"
    editor.open(uri, text)
    for round_number in range(6):
        for _ in range(15):
            places = offsets(text, encoding)
            start_at = seed.randrange(len(places))
            end_at = min(len(places) - 1, start_at + seed.choice([0, 0, 1, 3]))
            while text[start_at - 1 : start_at + 1] == "\r\n":
                start_at -= 1
            while text[end_at - 1 : end_at + 1] == "\r\n":
                end_at += 1
            new = "".join(seed.choices(ALPHABET, k=seed.randrange(4)))
            editor.change(uri, (places[start_at], places[end_at], new))
            text = text[:start_at] + new + text[end_at:]
        mark = f"MARK{round_number} = "
        line, units = offsets(text, encoding)[-1]
        editor.change(uri, ((line, units), (line, units), mark))
        text += mark
        line, units = offsets(text, encoding)[-1]
        editor.complete(uri, line, units)
        seen = editor.engine_requests("complete")[-1]["params"]["prefix"]
        assert seen == text.replace("\r\n", "\n").replace("\r", "\n")


def test_positions_past_the_end_are_clamped(editor: Editor, uri: str) -> None:
    items = editor.complete(uri, 99, 99)
    assert (items[0].range.start.line, items[0].range.start.character) == (0, 3)
    editor.change(uri, ((5, 0), (9, 9), "bar"))
    assert (editor.texts(uri, 0, 6, AUTOMATIC))[0] == "_foobar_g1_0()"

    editor.change("file:///never.py", ((0, 0), (0, 0), "x"))
    editor.close("file:///never.py")
    editor.open(uri, "opened again")
    assert (editor.texts(uri, 0, 12))[0].startswith("_again")


def test_unsaved_text_is_sent_to_the_engine_and_withdrawn(editor: Editor, uri: str) -> None:
    def texts() -> list[str | None]:
        return [note["params"]["text"] for note in editor.engine_requests("buffer")]

    editor.until(lambda: texts() == ["foo"])
    for at in range(20):
        editor.change(uri, ((0, 3 + at), (0, 3 + at), "x"))
    editor.until(lambda: texts() == ["foo", "foo" + "x" * 20])
    assert editor.engine_requests("buffer")[-1]["params"]["path"] == "a.py"
    editor.close(uri)
    editor.until(lambda: texts()[-1] is None)


def test_unreadable_change_stops_suggestions_until_the_next_whole_text(editor: Editor, uri: str) -> None:
    """Regression: a change that lsprotocol refused was dropped, and the server suggested for another text."""

    def change(*changes: object) -> None:
        editor.notify("textDocument/didChange", {"textDocument": {"uri": uri}, "contentChanges": list(changes)})

    def why() -> object:
        return editor.request("c2l/status", {"textDocument": {"uri": uri}}).get("disabledReason")

    assert editor.texts(uri, 0, 3)
    change({"range": {"start": {"line": 0, "character": 0.5}, "end": {"line": 0, "character": 3}}, "text": "bar"})
    assert editor.texts(uri, 0, 3) == []
    assert why() == "out-of-step"
    report = editor.command("c2l.showReport", {"textDocument": {"uri": uri}})
    assert "open it again" in str(report)
    editor.change(uri, ((0, 0), (0, 0), "x"))
    assert editor.texts(uri, 0, 4) == [], "an edit of an unknown text gives another unknown text"
    change({"range": None, "text": "bar"})
    assert editor.texts(uri, 0, 3)
    assert (why(), editor.engine_requests("complete")[-1]["params"]["prefix"]) == (None, "bar")


def test_unreadable_opening_puts_the_document_out_of_step(editor: Editor, uri: str) -> None:
    editor.notify("textDocument/didOpen", {"textDocument": {"uri": uri, "languageId": "python", "text": None}})
    assert editor.texts(uri, 0, 3) == []
    editor.open(uri, "foo")
    assert editor.texts(uri, 0, 3)


def test_notification_that_names_no_document_puts_all_out_of_step(editor: Editor, uri: str) -> None:
    editor.notify("textDocument/didChange", {"contentChanges": [{"text": "bar"}]})
    assert editor.texts(uri, 0, 3) == []
