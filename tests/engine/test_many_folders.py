"""More open folders than are active at a time, state directories over the size limit, and one that is in use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from c2l_lsp.config import state_root
from c2l_lsp.engine import engine as engine_module
from c2l_lsp.engine import wire
from c2l_lsp.engine.session import Session
from c2l_lsp.engine.storage import inventory
from c2l_lsp.engine.storage.store import SCHEMA, FolderStore, SavedState, folder_key
from c2l_lsp.errors import RequestError, StorageError
from c2l_lsp.model.hypernet.protocol import RepoState


def write_state(root: Path, age: float) -> Path:
    """A small saved state, written `age` seconds ago."""
    store = FolderStore(root)
    saved = SavedState(
        schema=SCHEMA, folder=str(root), hypernetwork="", filter_digest="", generation=1, gate=1.0, files={}
    )  # fmt: skip
    store.save(saved, RepoState({"S": torch.zeros(64, 64)}), {})
    store.close()
    when = (root / "CURRENT").stat().st_mtime - age
    os.utime(root / "CURRENT", (when, when))
    return root


def test_the_least_recently_used_folders_are_suspended_and_resumed(
    session: Session, tmp_path: Path, monkeypatch, sources
):
    monkeypatch.setattr(engine_module, "MAX_FOLLOWED", 2)
    names = []
    for number in range(4):
        root = (tmp_path / f"f{number}").resolve()
        root.mkdir()
        (root / "a.py").write_text(sources[number], encoding="utf-8")
        names.append(str(root))
        session.open(root)
    engine = session.engine
    assert list(engine._followed) == names[2:]
    assert [info.folder for info in engine.status().folders] == [*names[2:], *names[:2]]
    suspended = [e.folder for e in session.events if isinstance(e, wire.Trouble)]
    assert suspended == names[:2]
    assert {e.severity for e in session.events if isinstance(e, wire.Trouble)} == {"info"}
    engine.workspace(names[2]).set_buffer("b.py", "value = 1\n")
    engine.workspace(names[2]).set_enabled(False)
    resumed = engine.workspace(names[0])  # as a completion does
    assert resumed.info().generation == 1  # loaded from disk, not indexed again
    assert list(engine._followed) == [names[2], names[0]]
    engine.workspace(names[1])
    assert resumed.info().enabled
    assert engine.workspace(names[2]).buffers == {"b.py": "value = 1\n"}
    assert not engine.workspace(names[2]).info().enabled, "a resumed folder must keep its adapter off"
    for name in names:
        engine.close_folder(name)
    assert not engine._followed
    assert not engine._sleeping
    with pytest.raises(RequestError, match="not open"):
        engine.workspace(names[0])


def test_prune_deletes_the_oldest_states_that_are_not_in_use(tmp_path: Path):
    roots = [write_state(tmp_path / f"s{age}", age) for age in (50, 10, 90, 30)]
    size = sum(path.stat().st_size for path in roots[0].rglob("*") if path.is_file()) / 2**20
    assert inventory.prune(tmp_path, 5 * size) == []
    held = FolderStore(tmp_path / "s90")
    assert held.acquire()
    assert [path.name for path in inventory.prune(tmp_path, 2.5 * size)] == ["s50", "s30"]  # the oldest is in use
    held.close()
    assert sorted(path.name for path in tmp_path.iterdir() if (path / "CURRENT").exists()) == ["s10", "s90"]
    assert inventory.prune(tmp_path / "nowhere", 0.0) == []


def test_forget_does_not_delete_the_state_of_a_running_server(tmp_path: Path):
    folder = tmp_path / "work"
    folder.mkdir()
    root = write_state(state_root() / folder_key(folder), 0)
    held = FolderStore(root)
    assert held.acquire()
    with pytest.raises(StorageError, match="open in a running server"):
        inventory.forget(folder)
    held.close()
    assert inventory.forget(folder) > 0
    assert not root.exists()
    assert inventory.forget(folder) == 0
