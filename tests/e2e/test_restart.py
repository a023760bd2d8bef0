"""The engine crashes, hangs or does not start: status, answers to requests, and no process left behind."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from tests.e2e.conftest import Start
from tests.support.editor import Editor


def test_failed_engine_is_replaced(editor: Editor, uri: str) -> None:
    editor.until(lambda: editor.engine_requests("buffer"))
    for word in ("DIE", "HANG", "GARBAGE"):
        before, seen = editor.engines()[0].pid, len(editor.statuses)
        editor.change(uri, word)
        assert editor.complete(uri, 0, len(word)) == []
        editor.until(lambda before=before: [engine.pid for engine in editor.engines()] not in ([], [before]))
        editor.until(lambda seen=seen: "ready" in [status["state"] for status in editor.statuses[seen:]])
        assert "starting" in [status["state"] for status in editor.statuses[seen:]]
        editor.change(uri, "foo")
        assert editor.texts(uri, 0, 3) != []
        replacement = editor.engines()[0].pid
        methods = [
            note["method"] for note in editor.engine_requests() if note["pid"] == replacement and "method" in note
        ]
        assert methods[:3] == ["hello", "open_folder", "buffer"]
        time.sleep(0.6)  # now it is stable: the next end is no failed start


def test_killed_engine_is_replaced(editor: Editor, uri: str) -> None:
    for _ in range(2):
        for engine in editor.engines():
            engine.kill()
            psutil.wait_procs([engine], timeout=5)
        editor.statuses.clear()
        editor.ready()
        assert editor.texts(uri, 0, 3) != []


def test_failed_state_names_the_reason_and_restart_leaves_it(start: Start, folder: Path, uri: str) -> None:
    editor = start(FAKE_START="die")
    editor.initialize([folder])
    status = editor.status(lambda status: status["state"] == "failed")
    assert status["kind"] == "Error"
    assert status["disabledReason"] == "failed"
    assert "No module named 'torch' at worker.py:12" in status["message"]
    assert len(editor.engine_requests("hello")) == 3
    assert ["No module named 'torch' at worker.py:12" in message for message in editor.shown()] == [True]
    editor.open(uri, "foo")
    assert editor.complete(uri, 0, 3) == []
    editor.statuses.clear()
    editor.command("c2l.restartServer")
    editor.status(lambda status: status["state"] == "failed")
    assert len(editor.engine_requests("hello")) == 6


def test_missing_model_is_reported_at_once(start: Start, folder: Path) -> None:
    editor = start(FAKE_START="error")
    editor.initialize([folder], progress=True)
    status = editor.status(lambda status: status["state"] == "failed")
    assert status["message"] == "The model auto cannot be found."
    assert len(editor.engine_requests("hello")) == 1
    assert editor.shown() == [f"C2L: {status['message']}"]


def test_structured_problems_name_code_and_setting(start: Start, folder: Path) -> None:
    for how, code in (("error", "model"), ("die", "engine")):
        editor = start(FAKE_START=how)
        editor.initialize([folder], options={"showsProblems": True, "completion": {"candidates": "many"}})
        editor.until(lambda editor=editor: len(editor.problems) > 1)
        problems = [(one["code"], one["setting"]) for one in editor.problems]
        assert problems == [("setting", "c2l.completion.candidates"), (code, "")]
        assert editor.shown() == []


def test_disabled_adapter_stays_disabled_in_the_next_engine(editor: Editor, uri: str, folder: Path) -> None:
    assert (editor.command("c2l.toggleAdapter"))["enabled"] is False
    for engine in editor.engines():
        engine.kill()
    editor.statuses.clear()
    assert (editor.ready())["adapter"]["enabled"] is False
    editor.command("c2l.unloadModel")
    editor.until(lambda: editor.engines() == [])
    assert (editor.command("c2l.toggleAdapter"))["enabled"] is True, "also without a running engine"
    assert (editor.command("c2l.toggleAdapter"))["enabled"] is False
    editor.statuses.clear()
    assert editor.texts(uri, 0, 3) == ["_foo_0()", "_foo_1()", "_foo_2()"]
    assert (editor.ready())["adapter"]["enabled"] is False
    sent = [note["params"] for note in editor.engine_requests("set_enabled")]
    assert sent == [{"folder": str(folder), "enabled": False}] * 3, "sent to each engine"


def test_switches_are_restored_in_the_next_server(start: Start, folder: Path, uri: str) -> None:
    switches = {"off": True, "documents": {uri: False}, "adaptersOff": [str(folder)], "languages": {"lua": False}}
    editor = start()
    editor.initialize([folder], options={"switches": switches})
    status = editor.status(lambda status: status["state"] == "disabled" and status["adapter"])
    assert (status["disabledReason"], status["adapter"]["enabled"]) == ("off", False)
    editor.open(uri, "foo")
    editor.command("c2l.toggle")
    assert (editor.command("c2l.showStatus", {"textDocument": {"uri": uri}}))["disabledReason"] == "buffer"
    broken = start()
    broken.initialize([folder], options={"switches": {"off": "perhaps"}})
    broken.ready()
