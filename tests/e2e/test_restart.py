"""The engine dies, hangs or never starts: the editor sees a status, requests are answered, nothing is left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil

from .conftest import Start
from .editor import Editor


async def test_a_broken_engine_is_replaced(editor: Editor, uri: str) -> None:
    await editor.until(lambda: editor.asked("buffer"))
    for word in ("DIE", "HANG", "GARBAGE"):
        before, told = editor.engines()[0].pid, len(editor.statuses)
        editor.change(uri, word)
        assert await editor.complete(uri, 0, len(word)) == []
        await editor.until(lambda before=before: [engine.pid for engine in editor.engines()] not in ([], [before]))
        await editor.until(lambda told=told: "ready" in [status["state"] for status in editor.statuses[told:]])
        assert "starting" in [status["state"] for status in editor.statuses[told:]]
        editor.change(uri, "foo")
        assert await editor.texts(uri, 0, 3) != []
        replacement = editor.engines()[0].pid
        methods = [note["method"] for note in editor.asked() if note["pid"] == replacement and "method" in note]
        assert methods[:3] == ["hello", "open_folder", "buffer"]
        await asyncio.sleep(0.6)  # it has settled: the next end is no failed start


async def test_an_engine_killed_from_outside(editor: Editor, uri: str) -> None:
    for _ in range(2):
        for engine in editor.engines():
            engine.kill()
            psutil.wait_procs([engine], timeout=5)
        editor.statuses.clear()
        await editor.ready()
        assert await editor.texts(uri, 0, 3) != []


async def test_safe_mode_says_why_and_can_be_left(start: Start, folder: Path, uri: str) -> None:
    editor = await start(FAKE_START="die")
    await editor.initialize([folder])
    status = await editor.status(lambda status: status["state"] == "failed")
    assert status["kind"] == "Error"
    assert status["disabledReason"] == "failed"
    assert "No module named 'torch' at worker.py:12" in status["message"]
    assert len(editor.asked("hello")) == 3
    assert ["No module named 'torch' at worker.py:12" in message.message for message in editor.client.messages] == [
        True
    ]
    editor.open(uri, "foo")
    assert await editor.complete(uri, 0, 3) == []
    editor.statuses.clear()
    await editor.command("c2l.restartServer")
    await editor.status(lambda status: status["state"] == "failed")
    assert len(editor.asked("hello")) == 6


async def test_a_model_that_cannot_be_found_is_said_at_once(start: Start, folder: Path) -> None:
    editor = await start(FAKE_START="error")
    await editor.initialize([folder], progress=True)
    status = await editor.status(lambda status: status["state"] == "failed")
    assert status["message"] == "The model c2l-default cannot be found."
    assert len(editor.asked("hello")) == 1
