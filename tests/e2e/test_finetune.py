"""Fine-tuning on request from an editor: progress, completions meanwhile, cancellation."""

from __future__ import annotations

from pathlib import Path

import pytest
from c2l_lab.clients.lsp import Plain

from tests.e2e.conftest import Start
from tests.support.editor import AUTOMATIC, Editor


def start_editor(start: Start, folder: Path, uri: str) -> Editor:
    editor = start()
    editor.initialize([folder], progress=True)
    editor.ready()
    editor.open(uri, "foo")
    return editor


def bars(editor: Editor, kind: str) -> list[tuple[object, Plain]]:
    """Tokens and values of the bars of training, of one kind of message."""
    reports = editor.progress()
    ours = {token for token, value in reports if "Fine-tuning" in value.get("title", "")}
    return [(token, value) for token, value in reports if token in ours and value["kind"] == kind]


def test_finetuning_reports_progress_and_goes_live(start: Start, folder: Path, uri: str) -> None:
    editor = start_editor(start, folder, uri)
    adapter = editor.command("c2l.deepenAdapter", {"steps": 12})
    assert adapter["deep"] == "waiting"
    training = editor.status(lambda status: status["adapter"]["deep"].startswith("training, "))
    assert training["state"] == "ready", "completions continue meanwhile"
    assert editor.texts(uri, 0, 3, AUTOMATIC) == ["_foo_g1_0()"]
    editor.until(lambda: editor.adapters[-1]["trigger"] == "deep")
    assert editor.adapters[-1]["adapter"]["deep"].startswith("live: -0.100")
    editor.change(uri, "bar")
    assert editor.texts(uri, 0, 3, AUTOMATIC) == ["_bar_g2_0()"]
    editor.until(lambda: bars(editor, "end"))
    assert bars(editor, "begin")[0][1]["cancellable"]


@pytest.mark.parametrize("how", ["command", "bar"])
def test_finetuning_can_be_cancelled(start: Start, folder: Path, uri: str, how: str) -> None:
    editor = start_editor(start, folder, uri)
    editor.request("c2l/adapter/deepen", {})
    editor.until(lambda: bars(editor, "begin"))
    if how == "command":
        assert (editor.command("c2l.deepenAdapter", {"cancel": True}))["deep"] == ""
    else:
        token = bars(editor, "begin")[0][0]
        editor.notify("window/workDoneProgress/cancel", {"token": token})
    editor.until(lambda: bars(editor, "end"))
    editor.status(lambda status: not status["adapter"]["deep"].startswith("training"))
    assert editor.adapters[-1]["generation"] == 1
