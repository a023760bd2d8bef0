"""Training on request, from an editor: it is told how far that is, completes meanwhile, and can stop it."""

from __future__ import annotations

from pathlib import Path

import pytest
from lsprotocol import types as t

from tests.e2e.conftest import Start
from tests.support.editor import AUTOMATIC, Editor


async def begun(start: Start, folder: Path, uri: str) -> Editor:
    editor = await start()
    await editor.initialize([folder], progress=True)
    await editor.ready()
    editor.open(uri, "foo")
    return editor


def bars(editor: Editor, kind: str) -> list[tuple[object, object]]:
    """Tokens and values of the bars of training, of one kind of message."""
    reports = [(token, value) for token, values in editor.client.progress_reports.items() for value in values]
    ours = {token for token, value in reports if "deepening" in getattr(value, "title", "")}
    return [(token, value) for token, value in reports if token in ours and value.kind == kind]


async def test_it_is_told_and_goes_live(start: Start, folder: Path, uri: str) -> None:
    editor = await begun(start, folder, uri)
    told = await editor.command("c2l.deepenAdapter", {"steps": 12})
    assert told["deep"] == "waiting"
    training = await editor.status(lambda status: status["adapter"]["deep"].startswith("training, "))
    assert training["state"] == "ready", "completions go on meanwhile"
    assert await editor.texts(uri, 0, 3, AUTOMATIC) == ["_foo_g1_0()"]
    await editor.until(lambda: editor.adapters[-1]["trigger"] == "deep")
    assert editor.adapters[-1]["adapter"]["deep"].startswith("live: -0.100")
    editor.change(uri, "bar")
    assert await editor.texts(uri, 0, 3, AUTOMATIC) == ["_bar_g2_0()"]
    await editor.until(lambda: bars(editor, "end"))
    assert bars(editor, "begin")[0][1].cancellable


@pytest.mark.parametrize("how", ["command", "bar"])
async def test_it_is_stopped(start: Start, folder: Path, uri: str, how: str) -> None:
    editor = await begun(start, folder, uri)
    await editor.request("c2l/adapter/deepen", {})
    await editor.until(lambda: bars(editor, "begin"))
    if how == "command":
        assert (await editor.command("c2l.deepenAdapter", {"cancel": True}))["deep"] == ""
    else:
        token = bars(editor, "begin")[0][0]
        editor.client.window_work_done_progress_cancel(t.WorkDoneProgressCancelParams(token=token))
    await editor.until(lambda: bars(editor, "end"))
    await editor.status(lambda status: not status["adapter"]["deep"].startswith("training"))
    assert editor.adapters[-1]["generation"] == 1
