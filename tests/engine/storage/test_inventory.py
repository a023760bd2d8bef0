"""The inventory of state directories, also while a server writes; errors name what cannot be deleted."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from c2l_lsp.config import state_root
from c2l_lsp.engine import wire
from c2l_lsp.engine.session import Session
from c2l_lsp.engine.storage import disk, inventory
from c2l_lsp.engine.storage.store import SCHEMA, FolderStore, SavedState, folder_key
from c2l_lsp.errors import StorageError
from c2l_lsp.model.hypernet.protocol import RepoState


def save(store: FolderStore, generation: int) -> None:
    about = {"folder": "/some/where", "hypernetwork": "h", "filter_digest": "f", "gate": 1.0, "files": {}}
    store.save(SavedState(schema=SCHEMA, generation=generation, **about), RepoState(), {})


@pytest.fixture
def undeletable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files for which unlink fails."""
    names: list[str] = []
    real = os.unlink

    def unlink(path, *args: object, **more: object) -> None:
        if Path(path).name in names:
            raise PermissionError(13, "Permission denied", str(path))
        real(path, *args, **more)

    monkeypatch.setattr(os, "unlink", unlink)
    return names


def test_a_state_without_a_complete_generation_is_listed_and_pruned():
    half = FolderStore(state_root() / "half-0")
    half.cache.put({b"k": {}}, "rule")
    half.close()
    (state_root() / "hypernetworks").mkdir()
    (state_root() / "hypernetworks" / "weights").write_bytes(b"w" * 5000)
    (row,) = inventory.inventory()["folders"]
    assert (row["folder"], row["readable"], row["generation"]) == ("half-0", False, 0)
    assert row["mb"] > 0
    assert inventory.prune(state_root(), 0.0) == [state_root() / "half-0"]
    assert not (state_root() / "half-0").exists()
    assert (state_root() / "hypernetworks" / "weights").exists()


def test_without_a_state_root_the_inventory_is_empty():
    assert not state_root().exists()
    assert inventory.inventory() == {"root": str(state_root()), "folders": []}


def test_a_damaged_state_is_listed_with_its_error():
    store = FolderStore(state_root() / "one-0")
    save(store, 3)
    store.close()
    next(store.root.glob("gen-*/manifest.json")).write_text("{}")
    (row,) = inventory.inventory()["folders"]
    assert (row["key"], row["readable"], row["generation"]) == ("one-0", False, 0)
    assert "is damaged (schema None, not 1)" in row["error"]
    assert (store.root / "CURRENT").exists()  # the inventory sets nothing aside


def test_prune_goes_on_after_a_state_that_cannot_be_deleted(undeletable):
    for age, name in ((90, "stuck-0"), (50, "old-0")):
        store = FolderStore(state_root() / name)
        save(store, 1)
        store.close()
        past = time.time() - age
        os.utime(store.root / "CURRENT", (past, past))
    held = state_root() / "stuck-0"
    (held / "readings.sqlite").write_bytes(b"")
    undeletable.append("readings.sqlite")
    assert inventory.prune(state_root(), 0.0) == [state_root() / "old-0"]
    assert held.exists()
    assert FolderStore(held).acquire()  # prune has released its lock


def test_the_inventory_is_complete_while_a_server_saves():
    store, stop = FolderStore(state_root() / "busy-0"), threading.Event()
    save(store, 1)

    def saving() -> None:
        generation = 1
        while not stop.is_set():
            generation += 1
            save(store, generation)

    thread = threading.Thread(target=saving)
    thread.start()
    try:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            (row,) = inventory.inventory()["folders"]
            assert row["mb"] > 0
            assert inventory.prune(state_root(), 0.0) == []
    finally:
        stop.set()
        thread.join(30)
        store.close()


def test_forget_names_the_file_that_cannot_be_deleted(tmp_path, undeletable):
    root = state_root() / folder_key(tmp_path)
    store = FolderStore(root)
    save(store, 1)
    store.close()
    undeletable.append("state.safetensors")
    with pytest.raises(StorageError, match=r"state\.safetensors cannot be deleted: Permission denied"):
        inventory.forget(tmp_path)
    assert FolderStore(root).load_metadata() is None  # the rest is not loaded again
    undeletable.clear()
    assert inventory.forget(tmp_path) > 0
    assert not root.exists()


def test_reset_names_the_file_that_cannot_be_deleted_and_indexes_again(session: Session, folder, undeletable):
    session.open(folder)
    workspace = session.engine.workspace(str(folder.resolve()))
    undeletable.append("saved.msgpack")
    with pytest.raises(StorageError, match=r"saved\.msgpack cannot be deleted"):
        workspace.reset()
    warnings = [event for event in session.events if isinstance(event, wire.Trouble)]
    assert [(warning.code, warning.severity) for warning in warnings] == [("storage", "warning")]
    assert workspace.live.adapter is None
    assert session.run_until_idle(str(folder.resolve())).files == 12


def test_delete_goes_on_after_a_file_that_cannot_be_deleted(tmp_path, undeletable):
    for name in ("a", "b", "c"):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / name).write_text("x")
    (tmp_path / "outside").write_text("stays")
    (tmp_path / "d" / "a" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "d" / "linked").symlink_to(tmp_path)
    undeletable.append("b")
    with pytest.raises(StorageError, match="b cannot be deleted"):
        disk.delete(tmp_path / "d", tmp_path / "not there")
    assert [path.name for path in (tmp_path / "d").rglob("*")] == ["b", "b"]
    assert (tmp_path / "outside").exists()
