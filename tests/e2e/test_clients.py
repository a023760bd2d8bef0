"""Capabilities offered to different clients, and acceptance of completions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from c2l_lab.clients.lsp import Plain
from lsprotocol import types as t

from tests.e2e.conftest import Start
from tests.support.editor import AUTOMATIC, Editor


def popup(editor: Editor, uri: str, character: int) -> list[Plain] | None:
    """The entries for the completion popup."""
    position = {"line": 0, "character": character}
    result = editor.request("textDocument/completion", {"textDocument": {"uri": uri}, "position": position})
    return None if result is None else result["items"]


@pytest.mark.parametrize("inline", [True, False])
def test_popup_completion_only_for_clients_without_inline_completion(
    start: Start, folder: Path, uri: str, inline: bool
) -> None:
    editor = start()
    result = editor.initialize([folder], inline=inline)
    assert result.capabilities.text_document_sync.change == t.TextDocumentSyncKind.Incremental
    assert "c2l.didAcceptCompletion" in result.capabilities.execute_command_provider.commands
    editor.ready()
    editor.open(uri, "foo")
    assert (result.capabilities.completion_provider is None) is inline
    assert result.capabilities.inline_completion_provider is not None
    answer = popup(editor, uri, 3)
    if inline:
        assert answer is None
    else:
        assert [item["textEdit"]["newText"] for item in answer] == ["foo_foo_g1_0()"]
        assert answer[0]["command"]["command"] == "c2l.didAcceptCompletion"
    assert editor.texts(uri, 0, 3)


def test_popup_entry_starts_with_the_word_at_the_cursor(start: Start, folder: Path) -> None:
    """As Helix, eglot and VS Code do: what the edit's range holds up to the cursor must begin the filter text."""
    editor = start()
    editor.initialize([folder], inline=False)
    editor.ready()
    for number, text in enumerate(("x = foo", "größe", "foo(", "")):
        uri = (folder / f"{number}.py").as_uri()
        editor.open(uri, text)
        item = popup(editor, uri, len(text))[0]
        edit = item["textEdit"]
        typed = text[edit["range"]["start"]["character"] :]
        assert typed == re.search(r"\w*$", text)[0]
        assert item["filterText"].startswith(typed)
        assert edit["newText"].startswith(typed)
        assert edit["range"]["end"]["character"] == len(text)


def test_acceptance_is_counted_and_explained(editor: Editor, uri: str) -> None:
    item = (editor.complete(uri, 0, 3, AUTOMATIC))[0]
    name = item.command.arguments[0]
    explained = editor.request("c2l/explain", {"id": name})
    assert (explained["promptTokens"], explained["generation"], explained["source"]) == (7, 1, "engine")
    editor.change(uri, ((0, 3), (0, 3), item.insert_text))
    assert editor.command(item.command.command, *item.command.arguments) is None
    report = editor.request("c2l/statistics", {})
    assert report["withAdapter"]["accepted"] == 1
    assert report["withAdapter"]["shown"] == 1
    assert report["latencyMs"]["count"] == 1
    assert (editor.request("c2l/explain", {"id": name}))["acceptedChars"] == len(item.insert_text)
    with pytest.raises(Exception, match="no recent completion"):
        editor.request("c2l/explain", {"id": "nonsense"})


def test_trigger_kinds_of_old_clients(editor: Editor, uri: str) -> None:
    plain = {"textDocument": {"uri": uri}, "position": {"line": 0, "character": 3}}
    for kind in (0, 7, "x"):
        result = editor.request("textDocument/inlineCompletion", {**plain, "context": {"triggerKind": kind}})
        assert len(result["items"]) == 3
