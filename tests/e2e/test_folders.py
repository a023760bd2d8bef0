"""Several workspace folders: one adapter each, innermost first, added and removed at run time."""

from __future__ import annotations

from pathlib import Path

import pytest
from c2l_lab.clients.lsp import Plain

from tests.e2e.conftest import Start


def event(added: list[Path] = [], removed: list[Path] = []) -> Plain:  # noqa: B006
    def named(paths: list[Path]) -> list[Plain]:
        return [{"uri": path.as_uri(), "name": path.name} for path in paths]

    return {"event": {"added": named(added), "removed": named(removed)}}


def test_folders_are_added_and_removed(start: Start, folder: Path, uri: str) -> None:
    inner = folder / "inner dir"
    inner.mkdir()
    editor = start()
    editor.initialize([folder])
    editor.ready()
    name = (inner / "b.py").as_uri()
    editor.open(name, "foo")
    assert editor.texts(name, 0, 3) != []
    assert editor.engine_requests("complete")[-1]["params"]["folder"] == str(folder)
    assert editor.engine_requests("complete")[-1]["params"]["path"] == "inner dir/b.py"

    editor.notify("workspace/didChangeWorkspaceFolders", event(added=[inner]))
    editor.until(lambda: len(editor.adapters) == 2)
    assert editor.adapters[-1]["folder"] == str(inner)
    editor.complete(name, 0, 3)
    assert editor.engine_requests("complete")[-1]["params"]["folder"] == str(inner)
    editor.until(lambda: any(n["params"]["folder"] == str(inner) for n in editor.engine_requests("buffer")))
    status = editor.request("c2l/status", {"textDocument": {"uri": name}})
    assert status["adapter"]["folder"] == str(inner)
    assert {one["folder"] for one in status["folders"]} == {str(folder), str(inner)}

    editor.notify("workspace/didChangeWorkspaceFolders", event(removed=[inner, folder]))
    editor.until(lambda: len(editor.engine_requests("close_folder")) == 2)
    assert (editor.texts(name, 0, 3))[0] == "_foo_0()"
    with pytest.raises(Exception, match="No workspace folder is open"):
        editor.request("c2l/adapter/info", {})


def test_adapter_operations(start: Start, folder: Path, uri: str, tmp_path: Path) -> None:
    editor = start()
    editor.initialize([folder])
    editor.ready()
    editor.open(uri, "foo")
    assert (editor.texts(uri, 0, 3))[0] == "_foo_g1_0()"
    info = editor.request("c2l/adapter/info", {"folder": folder.as_uri()})
    assert (info["generation"], info["enabled"], info["files"]) == (1, True, 3)
    editor.command("c2l.regenerateAdapter")
    editor.until(lambda: editor.adapters[-1]["generation"] == 2)
    assert (editor.texts(uri, 0, 3))[0] == "_foo_g2_0()"
    assert (editor.command("c2l.toggleAdapter"))["enabled"] is False
    assert (editor.texts(uri, 0, 3))[0] == "_foo_0()"
    editor.request("c2l/adapter/setEnabled", {"folder": str(folder), "enabled": True})
    assert (editor.texts(uri, 0, 3))[0] == "_foo_g2_0()"
    editor.request("c2l/adapter/reset", {})
    editor.until(lambda: editor.adapters[-1]["trigger"] == "reset")
    exported = editor.request("c2l/adapter/export", {"out": str(tmp_path / "out"), "rank": 4})
    assert exported == {"out": str(tmp_path / "out"), "rank": 4, "error": 0.0, "generation": 1}
    with pytest.raises(Exception, match="out is missing"):
        editor.command("c2l.exportAdapter")
    with pytest.raises(Exception, match="This workspace folder is not open"):
        editor.request("c2l/adapter/info", {"folder": "file:///nowhere"})
