"""What a client is offered by its abilities, and what became of what it was given."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lsprotocol import types as t

from tests.e2e.conftest import Start
from tests.support.editor import AUTOMATIC, Editor


@pytest.mark.parametrize("inline", [True, False])
async def test_the_popup_gets_the_text_only_without_inline_completion(
    start: Start, folder: Path, uri: str, inline: bool
) -> None:
    editor = await start()
    result = await editor.initialize([folder], inline=inline)
    assert result.capabilities.text_document_sync.change == t.TextDocumentSyncKind.Incremental
    assert "c2l.didAcceptCompletion" in result.capabilities.execute_command_provider.commands
    await editor.ready()
    editor.open(uri, "foo")
    assert (result.capabilities.completion_provider is None) is inline
    assert result.capabilities.inline_completion_provider is not None
    place = t.CompletionParams(text_document=t.TextDocumentIdentifier(uri=uri), position=t.Position(0, 3))
    answer = await editor.client.text_document_completion_async(place)
    if inline:
        assert answer is None
    else:
        assert [item.text_edit.new_text for item in answer.items] == ["foo_foo_g1_0()"]
        assert answer.items[0].command.command == "c2l.didAcceptCompletion"
    assert await editor.texts(uri, 0, 3)


async def test_a_client_that_filters_by_the_word_at_the_cursor_keeps_the_entry(start: Start, folder: Path) -> None:
    """As Helix, eglot and VS Code do: what the edit's range holds up to the cursor must begin the filter text."""
    editor = await start()
    await editor.initialize([folder], inline=False)
    await editor.ready()
    for number, text in enumerate(("x = foo", "größe", "foo(", "")):
        uri = (folder / f"{number}.py").as_uri()
        editor.open(uri, text)
        place = t.CompletionParams(text_document=t.TextDocumentIdentifier(uri=uri), position=t.Position(0, len(text)))
        item = (await editor.client.text_document_completion_async(place)).items[0]
        typed = text[item.text_edit.range.start.character :]
        assert typed == re.search(r"\w*$", text)[0]
        assert item.filter_text.startswith(typed)
        assert item.text_edit.new_text.startswith(typed)
        assert item.text_edit.range.end.character == len(text)


async def test_acceptance_statistics_and_explanation(editor: Editor, uri: str) -> None:
    item = (await editor.complete(uri, 0, 3, AUTOMATIC))[0]
    name = item.command.arguments[0]
    explained = await editor.request("c2l/explain", {"id": name})
    assert (explained["promptTokens"], explained["generation"], explained["source"]) == (7, 1, "engine")
    editor.change(uri, ((0, 3), (0, 3), item.insert_text))
    assert await editor.command(item.command.command, *item.command.arguments) is None
    report = await editor.request("c2l/statistics", {})
    assert report["withAdapter"]["accepted"] == 1
    assert report["withAdapter"]["shown"] == 1
    assert report["latencyMs"]["count"] == 1
    assert (await editor.request("c2l/explain", {"id": name}))["acceptedChars"] == len(item.insert_text)
    with pytest.raises(Exception, match="No recent completion"):
        await editor.request("c2l/explain", {"id": "nonsense"})


async def test_trigger_kinds_of_older_clients(editor: Editor, uri: str) -> None:
    plain = {"textDocument": {"uri": uri}, "position": {"line": 0, "character": 3}}
    for kind in (0, 7, "x"):
        result = await editor.raw("textDocument/inlineCompletion", {**plain, "context": {"triggerKind": kind}})
        assert len(result["items"]) == 3
