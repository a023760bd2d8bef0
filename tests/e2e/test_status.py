"""Status, progress and messages on the way from start to ready, in trouble, and unloaded."""

from __future__ import annotations

from pathlib import Path

from lsprotocol import types as t

from tests.e2e.conftest import Start
from tests.support.editor import Editor


async def test_from_start_to_ready_with_progress(start: Start, folder: Path) -> None:
    editor = await start()
    await editor.initialize([folder], progress=True, process_id=None)
    await editor.ready()
    states = [status["state"] for status in editor.statuses]
    assert [state for at, state in enumerate(states) if states[:at][-1:] != [state]] == [
        "starting", "loading", "indexing", "ready",
    ]  # fmt: skip
    assert editor.statuses[-1]["adapter"]["generation"] == 1
    assert editor.statuses[-1]["busy"] is False
    assert editor.adapters[0]["trigger"] == "index"
    bars = editor.client.progress_reports
    await editor.until(lambda: bars and all(isinstance(bar[-1], t.WorkDoneProgressEnd) for bar in bars.values() if bar))
    for bar in bars.values():
        kinds = [type(value).__name__ for value in bar]
        assert kinds.count("WorkDoneProgressBegin") == kinds.count("WorkDoneProgressEnd") <= 1
    assert editor.client.messages == []


async def test_trouble_is_told_once_and_completions_go_on(start: Start, folder: Path, uri: str) -> None:
    editor = await start(FAKE_FOLDER="trouble")
    await editor.initialize([folder], options={"showNotifications": "onWarning"})
    status = await editor.status(lambda status: status["state"] == "degraded")
    assert (status["kind"], status["message"]) == ("Warning", "No space is left.")
    await editor.until(lambda: editor.client.messages)
    assert [message.message for message in editor.client.messages] == ["C2L: No space is left."]
    editor.open(uri, "foo")
    assert await editor.texts(uri, 0, 3) != []
    assert editor.client.progress_reports == {}  # this client cannot show bars


async def test_unloading_gives_the_memory_back_until_it_is_needed(start: Start, folder: Path, uri: str) -> None:
    editor = await start()
    await editor.initialize([folder])
    await editor.ready()
    editor.open(uri, "foo")
    assert len(editor.engines()) == 1
    await editor.command("c2l.unloadModel")
    assert (await editor.status(lambda s: s["state"] == "unloaded"))["kind"] == "Inactive"
    await editor.until(lambda: editor.engines() == [])
    assert await editor.texts(uri, 0, 3) != []  # an explicit request waits for the engine to come back
    await editor.ready()
    await editor.request("c2l/model/unload", {})
    await editor.request("c2l/model/load", {})
    await editor.ready()
    newest = editor.engines()[0].pid
    await editor.until(lambda: [n["params"]["path"] for n in editor.asked("buffer") if n["pid"] == newest] == ["a.py"])


async def test_why_a_request_was_in_vain(editor: Editor, uri: str) -> None:
    async def why() -> tuple[str | None, str | None]:
        told = await editor.request("c2l/status", {"textDocument": {"uri": uri}})
        return told.get("lastReason"), told.get("disabledReason")

    assert await why() == (None, None)
    editor.change(uri, "NOTHING")
    assert await editor.texts(uri, 0, 7) == []
    assert await why() == ("empty", None)
    editor.change(uri, "LEFT_OUT")
    for _ in range(2):
        assert await editor.texts(uri, 0, 8) == []
    assert await why() == ("left-out", "left-out"), "an ignored file is no poor guess, and stays ignored"
    assert len(editor.asked("complete")) == 3, "that it is left out is not kept: it may be let in"
    editor.change(uri, "foo")
    assert await editor.texts(uri, 0, 3) != []
    assert await why() == (None, None)


async def test_a_switch_of_one_document_is_told_too(editor: Editor, uri: str) -> None:
    before = len(editor.statuses)
    await editor.command("c2l.toggle", {"uri": uri})
    await editor.until(lambda: len(editor.statuses) > before)
