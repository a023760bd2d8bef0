"""Status, progress and messages: from start to ready, after a warning, and unloaded."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import Start
from tests.support.editor import Editor


def bars(editor: Editor) -> dict[object, list[str]]:
    """The kinds of the reports of every progress bar, in order."""
    found: dict[object, list[str]] = {}
    for token, value in editor.progress():
        found.setdefault(token, []).append(value["kind"])
    return found


def test_states_and_progress_from_start_to_ready(start: Start, folder: Path) -> None:
    editor = start()
    editor.initialize([folder], progress=True, process_id=None)
    editor.ready()
    states = [status["state"] for status in editor.statuses]
    assert [state for at, state in enumerate(states) if states[:at][-1:] != [state]] == [
        "starting", "loading", "indexing", "ready",
    ]  # fmt: skip
    assert editor.statuses[-1]["adapter"]["generation"] == 1
    assert editor.statuses[-1]["busy"] is False
    assert editor.adapters[0]["trigger"] == "index"
    editor.until(lambda: {kind for kinds in bars(editor).values() for kind in kinds[-1:]} == {"end"})
    for kinds in bars(editor).values():
        assert kinds.count("begin") == kinds.count("end") <= 1
    assert editor.shown() == []


def test_warning_is_shown_once_and_completions_continue(start: Start, folder: Path, uri: str) -> None:
    editor = start(FAKE_FOLDER="trouble")
    editor.initialize([folder], options={"showNotifications": "onWarning"})
    status = editor.status(lambda status: status["state"] == "degraded")
    assert (status["kind"], status["message"]) == ("Warning", "No space is left.")
    editor.until(lambda: editor.shown())
    assert editor.shown() == ["C2L: No space is left."]
    editor.open(uri, "foo")
    assert editor.texts(uri, 0, 3) != []
    assert editor.progress() == []  # this client does not support progress


def test_unloaded_engine_starts_with_the_next_request(start: Start, folder: Path, uri: str) -> None:
    editor = start()
    editor.initialize([folder])
    editor.ready()
    editor.open(uri, "foo")
    assert len(editor.engines()) == 1
    editor.command("c2l.unloadModel")
    assert (editor.status(lambda s: s["state"] == "unloaded"))["kind"] == "Inactive"
    editor.until(lambda: editor.engines() == [])
    assert editor.texts(uri, 0, 3) != []  # an explicit request waits for the engine
    editor.ready()
    editor.request("c2l/model/unload", {})
    editor.request("c2l/model/load", {})
    editor.ready()
    newest = editor.engines()[0].pid
    editor.until(
        lambda: [n["params"]["path"] for n in editor.engine_requests("buffer") if n["pid"] == newest] == ["a.py"]
    )


def test_last_reason_of_a_document(editor: Editor, uri: str) -> None:
    def why() -> tuple[str | None, str | None]:
        status = editor.request("c2l/status", {"textDocument": {"uri": uri}})
        return status.get("lastReason"), status.get("disabledReason")

    assert why() == (None, None)
    editor.change(uri, "NOTHING")
    assert editor.texts(uri, 0, 7) == []
    assert why() == ("empty", None)
    editor.change(uri, "LEFT_OUT")
    for _ in range(2):
        assert editor.texts(uri, 0, 8) == []
    assert why() == ("left-out", "left-out"), "an excluded file stays excluded"
    assert len(editor.engine_requests("complete")) == 3, "exclusion is not cached, because the user may lift it"
    editor.change(uri, "foo")
    assert editor.texts(uri, 0, 3) != []
    assert why() == (None, None)


def test_toggle_of_one_document_sends_the_status(editor: Editor, uri: str) -> None:
    before = len(editor.statuses)
    editor.command("c2l.toggle", {"uri": uri})
    editor.until(lambda: len(editor.statuses) > before)
