"""What is kept is listed whole and while others write, and what cannot be deleted is said."""

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
def stuck(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files that the system does not delete."""
    names: list[str] = []
    real = os.unlink

    def unlink(path, *args: object, **more: object) -> None:
        if Path(path).name in names:
            raise PermissionError(13, "Permission denied", str(path))
        real(path, *args, **more)

    monkeypatch.setattr(os, "unlink", unlink)
    return names


def test_a_state_without_a_whole_generation_is_listed_counted_and_pruned():
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


def test_where_nothing_was_ever_kept_nothing_is_listed():
    assert not state_root().exists()
    assert inventory.inventory() == {"root": str(state_root()), "folders": []}


def test_a_state_that_is_damaged_is_listed_with_what_is_wrong():
    store = FolderStore(state_root() / "one-0")
    save(store, 3)
    store.close()
    next(store.root.glob("gen-*/manifest.json")).write_text("{}")
    (row,) = inventory.inventory()["folders"]
    assert (row["key"], row["readable"], row["generation"]) == ("one-0", False, 0)
    assert "is damaged (schema None, not 1)" in row["error"]
    assert (store.root / "CURRENT").exists()  # looking sets nothing aside


def test_a_state_that_cannot_be_deleted_does_not_keep_the_next_from_being_deleted(stuck):
    for age, name in ((90, "stuck-0"), (50, "old-0")):
        store = FolderStore(state_root() / name)
        save(store, 1)
        store.close()
        past = time.time() - age
        os.utime(store.root / "CURRENT", (past, past))
    held = state_root() / "stuck-0"
    (held / "readings.sqlite").write_bytes(b"")
    stuck.append("readings.sqlite")
    assert inventory.prune(state_root(), 0.0) == [state_root() / "old-0"]
    assert held.exists()
    assert FolderStore(held).acquire()  # nobody holds it by now


def test_states_are_looked_at_while_a_server_saves():
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


def test_forget_says_what_is_still_there(tmp_path, stuck):
    root = state_root() / folder_key(tmp_path)
    store = FolderStore(root)
    save(store, 1)
    store.close()
    stuck.append("state.safetensors")
    with pytest.raises(StorageError, match=r"state\.safetensors cannot be deleted: Permission denied"):
        inventory.forget(tmp_path)
    assert FolderStore(root).load_metadata() is None  # what is left is not loaded again
    stuck.clear()
    assert inventory.forget(tmp_path) > 0
    assert not root.exists()


def test_reset_says_what_is_still_there_and_learns_again(session: Session, folder, stuck):
    session.open(folder)
    workspace = session.engine.workspace(str(folder.resolve()))
    stuck.append("saved.msgpack")
    with pytest.raises(StorageError, match=r"saved\.msgpack cannot be deleted"):
        workspace.reset()
    told = [event for event in session.events if isinstance(event, wire.Trouble)]
    assert [(trouble.code, trouble.severity) for trouble in told] == [("storage", "warning")]
    assert workspace.live.adapter is None
    assert session.run_until_idle(str(folder.resolve())).files == 12


def test_deleting_goes_on_after_what_cannot_be_deleted(tmp_path, stuck):
    for name in ("a", "b", "c"):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / name).write_text("x")
    (tmp_path / "outside").write_text("stays")
    (tmp_path / "d" / "a" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "d" / "linked").symlink_to(tmp_path)
    stuck.append("b")
    with pytest.raises(StorageError, match="b cannot be deleted"):
        disk.delete(tmp_path / "d", tmp_path / "not there")
    assert [path.name for path in (tmp_path / "d").rglob("*")] == ["b", "b"]
    assert (tmp_path / "outside").exists()
