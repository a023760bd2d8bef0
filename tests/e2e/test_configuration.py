"""Settings: pulled by folder, changed at run time, invalid ones reported once, machine scope enforced."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import Start
from tests.support.editor import AUTOMATIC, Editor, fake_command


def test_settings_of_a_folder_are_pulled_and_updated(
    start: Start, tmp_path: Path, folder: Path, uri: str, user_file: Path
) -> None:
    user_file.write_text("[completion]\ncandidates = 2\nmaxNewTokens = 11\n", encoding="utf-8")
    other = tmp_path / "other"
    other.mkdir()
    elsewhere = (other / "b.py").as_uri()
    editor = start()
    editor.initialize([folder, other], configuration={folder.as_uri(): {"completion": {"maxNewTokens": 22}}})
    editor.ready()
    assert [
        one["method"] for params in editor.params_of("client/registerCapability") for one in params["registrations"]
    ] == ["workspace/didChangeConfiguration"]
    for name in (uri, elsewhere):
        editor.open(name, "foo")
    assert len(editor.texts(uri, 0, 3)) == 2
    assert editor.engine_requests("complete")[-1]["params"]["max_new_tokens"] == 22
    editor.complete(elsewhere, 0, 3)
    assert editor.engine_requests("complete")[-1]["params"]["max_new_tokens"] == 11

    changed = {"enable": {"python": False}, "completion": {"colour": 1, "debounceMs": "soon"}, "model": {"path": "/x"}}
    editor.settings = {folder.as_uri(): changed}
    for _ in range(2):
        editor.notify("workspace/didChangeConfiguration", {"settings": None})
        editor.until(lambda: len(editor.logged()) >= 3)
    assert editor.complete(uri, 0, 3) == []
    assert editor.complete(elsewhere, 0, 3) != []
    logged = editor.logged()
    assert len(logged) == len(set(logged)) == 3
    assert [key for key in ("c2l.completion.colour", "c2l.completion.debounceMs", "c2l.model.path")
            if not any(key in line for line in logged)] == []  # fmt: skip
    shown = [message.removeprefix("C2L: ") for message in editor.shown()]
    assert shown == logged, "only the user can fix them, so each pops up once"


def test_client_that_pushes_settings_and_sends_options(start: Start, folder: Path, uri: str) -> None:
    editor = start()
    options = {
        "completion": {"candidates": 1},
        "showNotifications": "onWarning",
        "nonsense": 1,
        "trusted": False,
        "userSettings": {"model": {"id": "mine"}},
        "clientCommands": ["c2l.toggle"],
    }
    result = editor.initialize([folder], options=options)
    commands = result.capabilities.execute_command_provider.commands
    assert "c2l.toggle" not in commands
    assert "c2l.snooze" in commands
    assert (editor.ready())["model"] == "mine"
    editor.until(lambda: editor.engine_requests("open_folder"))
    assert editor.engine_requests("open_folder")[0]["params"]["trusted"] is False
    assert ["c2l.nonsense" in message for message in editor.shown()] == [True]
    editor.open(uri, "foo")
    assert len(editor.texts(uri, 0, 3)) == 1
    assert editor.command("c2l.toggle") == {"enabled": False}
    editor.command("c2l.toggle")
    manual = {"c2l": {"completion": {"trigger": "manual"}}}
    editor.notify("workspace/didChangeConfiguration", {"settings": manual})
    assert editor.complete(uri, 0, 3, AUTOMATIC) == []
    assert editor.complete(uri, 0, 3) != []
    editor.notify("c2l/didChangeTrust", {"trusted": True})
    editor.until(lambda: editor.engine_requests("open_folder")[-1]["params"]["trusted"])


def test_engine_does_not_start_without_an_enabled_language(start: Start, folder: Path, uri: str) -> None:
    editor = start()
    editor.initialize([folder], options={"enable": {"*": False}})
    assert (editor.status(lambda s: s["state"] == "disabled"))["kind"] == "Inactive"
    editor.open(uri, "foo")
    assert editor.complete(uri, 0, 3) == []
    assert editor.engines() == []
    editor.command("c2l.toggleLanguage", "python")
    editor.ready()
    assert len(editor.texts(uri, 0, 3)) == 3


def test_editor_that_never_sends_settings_does_not_block_the_start(start: Start, folder: Path) -> None:
    editor = start(fake_command())
    editor.handlers["workspace/configuration"] = lambda params: Editor.NO_REPLY
    editor.initialize([folder], configuration={})
    editor.ready()


def test_client_that_sends_no_initialized_gets_completions(start: Start, folder: Path, uri: str) -> None:
    """Regression: only `initialized` started the engine."""
    editor = start()
    editor.request("initialize", {"processId": None, "rootUri": folder.as_uri(), "capabilities": {}})
    editor.open(uri, "foo")
    editor.ready()
    assert editor.texts(uri, 0, 3)


def test_folder_of_a_client_that_knows_only_paths_is_opened(start: Start, folder: Path, uri: str) -> None:
    editor = start()
    editor.request("initialize", {"processId": None, "rootPath": str(folder), "capabilities": {}})
    editor.notify("initialized", {})
    editor.ready()
    editor.open(uri, "foo")
    assert editor.texts(uri, 0, 3)
    assert editor.engine_requests("complete")[-1]["params"]["folder"] == str(folder)
