"""The inventory of state directories, also while a server writes; errors name what cannot be deleted."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
import torch

from c2l_lsp.config import state_root
from c2l_lsp.engine import wire
from c2l_lsp.engine.session import Session
from c2l_lsp.engine.storage import inventory
from c2l_lsp.engine.storage.decoding import SCHEMA, SavedState
from c2l_lsp.engine.storage.store import FolderStore, folder_key
from c2l_lsp.errors import StorageError
from c2l_lsp.model.hypernet.protocol import RepoState


def save(store: FolderStore, generation: int) -> None:
    about = {"folder": "/some/where", "hypernetwork": "h", "filter_digest": "f", "gate": 1.0, "files": {}}
    store.save(SavedState(schema=SCHEMA, generation=generation, **about), RepoState(), {})


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
    assert "is damaged (the manifest cannot be read: Object missing required field `schema`)" in row["error"]
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
