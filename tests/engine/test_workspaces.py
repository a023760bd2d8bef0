"""A folder opens as one that adapts, or as an inactive one with a reason. Inactive folders need no model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

import msgspec
import pytest

from c2l_lsp.config import Settings
from c2l_lsp.engine import wire
from c2l_lsp.engine.adaptation.adapter_state import UNADAPTED
from c2l_lsp.engine.adaptation.workspace_adapter import Environment
from c2l_lsp.engine.storage.store import FolderStore
from c2l_lsp.engine.workspaces import InactiveWorkspace, open_workspace
from c2l_lsp.errors import AdapterError
from tests.support.store_builders import saved, state


def without_adapter(settings: Settings, **changes: object) -> Settings:
    return msgspec.structs.replace(settings, adapter=msgspec.structs.replace(settings.adapter, **changes))


@pytest.fixture
def events() -> list[object]:
    return []


def opened(folder: Path, settings: Settings, store: FolderStore, events: list, trusted: bool = True):
    environment = Environment(cast("object", None), cast("object", None), events.append)
    workspace = open_workspace(folder, settings, store, environment, trusted=trusted)
    assert isinstance(workspace, InactiveWorkspace)
    return workspace


@pytest.mark.parametrize(
    ("case", "state", "message", "enabled"),
    [
        ("untrusted", "off", "not trusted", False),
        ("disabled", "off", "adapter is off", False),
        ("no hypernetwork", "off", "adapter is off", False),
        ("missing", "failed", "not a folder that can be read", True),
        ("invalid rules", "failed", "c2l.files.exclude", True),
    ],
)
def test_folder_that_cannot_adapt_is_inactive_with_a_reason(tmp_path, events, case, state, message, enabled):
    folder, settings = tmp_path / "project", Settings()
    if case != "missing":
        folder.mkdir()
    if case == "disabled":
        settings = without_adapter(settings, enable=False)
    if case == "no hypernetwork":
        settings = without_adapter(settings, hypernetwork="none")
    if case == "invalid rules":
        settings = msgspec.structs.replace(settings, files=msgspec.structs.replace(settings.files, exclude=["!"]))
    workspace = opened(folder, settings, FolderStore(tmp_path / "state"), events, trusted=case != "untrusted")
    info = workspace.info()
    assert (info.state, info.generation, info.enabled) == (state, 0, enabled)
    assert message in info.message
    assert [isinstance(event, wire.Trouble) for event in events] == ([True] if state == "failed" else [])
    assert (workspace.live, workspace.due_in(time.monotonic()), workspace.pending) == (UNADAPTED, None, False)
    workspace.stop()


def test_unforeseen_error_while_opening_fails_this_folder_only(tmp_path, events, monkeypatch):
    def broken(*_: object) -> None:
        raise OSError("too many levels of symbolic links in a secret path")

    monkeypatch.setattr("c2l_lsp.engine.workspaces.WorkspaceAdapter", broken)
    workspace = opened(tmp_path, Settings(), FolderStore(tmp_path / "state"), events)
    assert workspace.info().state == "failed"
    assert "could not be opened" in workspace.info().message
    assert "secret" not in workspace.info().message
    assert len(events) == 1
    workspace.stop()


def test_inactive_folder_keeps_no_buffer_and_refuses_finetuning(tmp_path, events):
    workspace = opened(tmp_path, Settings(), FolderStore(tmp_path / "state"), events, trusted=False)
    workspace.set_buffer("a.py", "x = 1\n")
    workspace.regenerate()
    workspace.cancel_finetuning()
    assert workspace.buffers == {}
    with pytest.raises(AdapterError, match="Nothing is learned"):
        workspace.finetune()
    workspace.stop()


def test_prompts_of_an_inactive_folder_follow_the_filter(tmp_path, events):
    (tmp_path / ".c2lignore").write_text("hidden.py\n")
    workspace = opened(tmp_path, Settings(), FolderStore(tmp_path / "state"), events, trusted=False)
    assert workspace.permits("shown.py")
    assert not workspace.permits("hidden.py")
    workspace.stop()


def test_reset_of_an_inactive_folder_deletes_its_saved_state(tmp_path, events):
    store = FolderStore(tmp_path / "state")
    store.save(saved(1), state(1), {})
    workspace = opened(tmp_path, Settings(), store, events, trusted=False)
    workspace.reset()
    assert store.load() is None
    workspace.stop()
