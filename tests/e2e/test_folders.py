"""Several workspace folders: one adapter each, innermost first, added and removed while running."""

from __future__ import annotations

from pathlib import Path

import pytest
from lsprotocol import types as t

from tests.e2e.conftest import Start


def event(added: list[Path] = [], removed: list[Path] = []) -> t.DidChangeWorkspaceFoldersParams:  # noqa: B006
    def named(paths: list[Path]) -> list[t.WorkspaceFolder]:
        return [t.WorkspaceFolder(uri=path.as_uri(), name=path.name) for path in paths]

    return t.DidChangeWorkspaceFoldersParams(
        event=t.WorkspaceFoldersChangeEvent(added=named(added), removed=named(removed))
    )


async def test_folders_come_and_go(start: Start, folder: Path, uri: str) -> None:
    inner = folder / "inner dir"
    inner.mkdir()
    editor = await start()
    await editor.initialize([folder])
    await editor.ready()
    name = (inner / "b.py").as_uri()
    editor.open(name, "foo")
    assert await editor.texts(name, 0, 3) != []
    assert editor.asked("complete")[-1]["params"]["folder"] == str(folder)
    assert editor.asked("complete")[-1]["params"]["path"] == "inner dir/b.py"

    editor.client.workspace_did_change_workspace_folders(event(added=[inner]))
    await editor.until(lambda: len(editor.adapters) == 2)
    assert editor.adapters[-1]["folder"] == str(inner)
    await editor.complete(name, 0, 3)
    assert editor.asked("complete")[-1]["params"]["folder"] == str(inner)
    await editor.until(lambda: any(n["params"]["folder"] == str(inner) for n in editor.asked("buffer")))
    status = await editor.request("c2l/status", {"textDocument": {"uri": name}})
    assert status["adapter"]["folder"] == str(inner)
    assert {one["folder"] for one in status["folders"]} == {str(folder), str(inner)}

    editor.client.workspace_did_change_workspace_folders(event(removed=[inner, folder]))
    await editor.until(lambda: len(editor.asked("close_folder")) == 2)
    assert (await editor.texts(name, 0, 3))[0] == "_foo_0()"
    with pytest.raises(Exception, match="No workspace folder is open"):
        await editor.request("c2l/adapter/info", {})


async def test_the_adapters_operations(start: Start, folder: Path, uri: str, tmp_path: Path) -> None:
    editor = await start()
    await editor.initialize([folder])
    await editor.ready()
    editor.open(uri, "foo")
    assert (await editor.texts(uri, 0, 3))[0] == "_foo_g1_0()"
    info = await editor.request("c2l/adapter/info", {"folder": folder.as_uri()})
    assert (info["generation"], info["enabled"], info["files"]) == (1, True, 3)
    await editor.command("c2l.regenerateAdapter")
    await editor.until(lambda: editor.adapters[-1]["generation"] == 2)
    assert (await editor.texts(uri, 0, 3))[0] == "_foo_g2_0()"
    assert (await editor.command("c2l.toggleAdapter"))["enabled"] is False
    assert (await editor.texts(uri, 0, 3))[0] == "_foo_0()"
    await editor.request("c2l/adapter/setEnabled", {"folder": str(folder), "enabled": True})
    assert (await editor.texts(uri, 0, 3))[0] == "_foo_g2_0()"
    await editor.request("c2l/adapter/reset", {})
    await editor.until(lambda: editor.adapters[-1]["trigger"] == "reset")
    exported = await editor.request("c2l/adapter/export", {"out": str(tmp_path / "out"), "rank": 4})
    assert exported == {"out": str(tmp_path / "out"), "rank": 4, "error": 0.0, "generation": 1}
    with pytest.raises(Exception, match="Say where"):
        await editor.command("c2l.exportAdapter")
    with pytest.raises(Exception, match="no such workspace folder"):
        await editor.request("c2l/adapter/info", {"folder": "file:///nowhere"})
