"""Settings: pulled by folder, changed live, wrong ones named once, machine keys out of a workspace's reach."""

from __future__ import annotations

from pathlib import Path

from lsprotocol import types as t

from tests.e2e.conftest import Start
from tests.support.editor import AUTOMATIC, fake_command


async def test_settings_of_a_folder_are_pulled_and_followed_live(
    start: Start, tmp_path: Path, folder: Path, uri: str, user_file: Path
) -> None:
    user_file.write_text("[completion]\ncandidates = 2\nmaxNewTokens = 11\n", encoding="utf-8")
    other = tmp_path / "other"
    other.mkdir()
    elsewhere = (other / "b.py").as_uri()
    editor = await start()
    await editor.initialize([folder, other], configuration={folder.as_uri(): {"completion": {"maxNewTokens": 22}}})
    await editor.ready()
    assert [one.method for one in editor.registered] == ["workspace/didChangeConfiguration"]
    for name in (uri, elsewhere):
        editor.open(name, "foo")
    assert len(await editor.texts(uri, 0, 3)) == 2
    assert editor.asked("complete")[-1]["params"]["max_new_tokens"] == 22
    await editor.complete(elsewhere, 0, 3)
    assert editor.asked("complete")[-1]["params"]["max_new_tokens"] == 11

    changed = {"enable": {"python": False}, "completion": {"colour": 1, "debounceMs": "soon"}, "model": {"path": "/x"}}
    editor.configure({folder.as_uri(): changed})
    for _ in range(2):
        editor.client.workspace_did_change_configuration(t.DidChangeConfigurationParams(settings=None))
        await editor.until(lambda: len(editor.client.log_messages) >= 3)
    assert await editor.complete(uri, 0, 3) == []
    assert await editor.complete(elsewhere, 0, 3) != []
    logged = [message.message for message in editor.client.log_messages]
    assert len(logged) == len(set(logged)) == 3
    assert [key for key in ("c2l.completion.colour", "c2l.completion.debounceMs", "c2l.model.path")
            if not any(key in line for line in logged)] == []  # fmt: skip
    shown = [message.message.removeprefix("C2L: ") for message in editor.client.messages]
    assert shown == logged, "only the user can correct them: each pops up once"


async def test_a_client_that_pushes_and_starts_with_options(start: Start, folder: Path, uri: str) -> None:
    editor = await start()
    options = {
        "completion": {"candidates": 1},
        "showNotifications": "onWarning",
        "nonsense": 1,
        "trusted": False,
        "userSettings": {"model": {"id": "mine"}},
        "clientCommands": ["c2l.toggle"],
    }
    result = await editor.initialize([folder], options=options)
    commands = result.capabilities.execute_command_provider.commands
    assert "c2l.toggle" not in commands
    assert "c2l.snooze" in commands
    assert (await editor.ready())["model"] == "mine"
    assert editor.asked("open_folder")[0]["params"]["trusted"] is False
    assert ["c2l.nonsense" in message.message for message in editor.client.messages] == [True]
    editor.open(uri, "foo")
    assert len(await editor.texts(uri, 0, 3)) == 1
    assert await editor.command("c2l.toggle") == {"enabled": False}
    await editor.command("c2l.toggle")
    manual = {"c2l": {"completion": {"trigger": "manual"}}}
    editor.client.workspace_did_change_configuration(t.DidChangeConfigurationParams(settings=manual))
    assert await editor.complete(uri, 0, 3, AUTOMATIC) == []
    assert await editor.complete(uri, 0, 3) != []
    editor.client.protocol.notify("c2l/didChangeTrust", {"trusted": True})
    await editor.until(lambda: editor.asked("open_folder")[-1]["params"]["trusted"])


async def test_no_language_on_means_no_engine(start: Start, folder: Path, uri: str) -> None:
    editor = await start()
    await editor.initialize([folder], options={"enable": {"*": False}})
    assert (await editor.status(lambda s: s["state"] == "disabled"))["kind"] == "Inactive"
    editor.open(uri, "foo")
    assert await editor.complete(uri, 0, 3) == []
    assert editor.engines() == []
    await editor.command("c2l.toggleLanguage", "python")
    await editor.ready()
    assert len(await editor.texts(uri, 0, 3)) == 3


async def test_an_editor_that_never_answers_does_not_stop_the_start(start: Start, folder: Path) -> None:
    editor = await start(fake_command())
    editor.client.protocol.fm.features.pop("workspace/configuration")
    await editor.initialize([folder], configuration={})
    await editor.ready()
