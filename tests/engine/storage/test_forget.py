"""Deletion on disk: everything of a folder (`clear`), or data of files that are excluded now (`purge`)."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from c2l_lsp.engine.storage import disk
from c2l_lsp.engine.storage.store import FolderStore
from c2l_lsp.errors import StorageError
from tests.support.store_builders import embedding, saved, state


@pytest.fixture
def store(tmp_path):
    made = FolderStore(tmp_path / "state")
    yield made
    made.close()


def test_a_cleared_store_is_empty_and_can_be_used_again(store):
    assert store.save(saved(1), state(1), {})
    store.cache.put({b"a": embedding(1)}, "rule")
    store.clear()
    assert not store.root.exists()
    assert (store.load(), store.cache.get([b"a"], "rule")) == (None, {})
    assert store.save(saved(1), state(1), {})
    assert store.load()[0].generation == 1


@pytest.mark.parametrize("how", ["clear", "purge"])
@pytest.mark.parametrize("when", ["make_private", "sync_directory"], ids=["before writing", "before the rename"])
def test_a_save_that_began_before_a_deletion_leaves_nothing(store, monkeypatch, how, when):
    assert store.acquire()
    real, epoch = getattr(disk, when), store.epoch

    def delete_meanwhile(directory: Path) -> None:
        monkeypatch.setattr(disk, when, real)
        real(directory)
        getattr(store, how)()

    monkeypatch.setattr(disk, when, delete_meanwhile)
    assert store.save(saved(1), state(1), {}) is False
    assert store.epoch == epoch + 1
    assert store.load() is None
    assert not [path.name for path in store.root.iterdir() if "gen-" in path.name or "CURRENT" in path.name]


def test_a_purge_is_pending_until_it_is_finished(store):
    store.save(saved(1), state(1), {})
    store.save(saved(2), state(2), {})
    store.quarantine()
    (store.root / ".gen-interrupted.tmp").mkdir()
    assert not store.purge_pending
    earlier = store.epoch
    store.purge()
    assert store.purge_pending
    assert FolderStore(store.root).purge_pending  # also after a restart
    assert not [path for path in store.root.iterdir() if "gen-" in path.name]
    assert not store.finish_purge(earlier)  # that was another purge
    assert store.purge_pending
    store.save(saved(3), state(3), {})
    (store.root / "gen-00000002-0.bad").mkdir()
    (store.root / ".gen-interrupted.tmp").mkdir()
    assert store.finish_purge(store.epoch)
    assert not (store.root / ".gen-interrupted.tmp").exists()
    assert not store.purge_pending
    assert store.load()[0].generation == 3
    assert len(list(store.root.glob("gen-*"))) == 1


def test_a_purge_is_not_finished_while_a_reader_uses_the_log(store):
    store.cache.put({b"a": embedding(1)}, "rule")
    reader = sqlite3.connect(store.root / "readings.sqlite", isolation_level=None)
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM reading").fetchone()
        store.purge()
        store.cache.prune(set(), "rule")
        with pytest.raises(StorageError, match=r"cannot be deleted from .* yet"):
            store.finish_purge(store.epoch)
        assert store.purge_pending
    finally:
        reader.close()
    assert store.finish_purge(store.epoch)


def test_a_purge_is_not_finished_with_a_damaged_pointer(store):
    store.purge()
    (store.root / "CURRENT").write_text("elsewhere")
    with pytest.raises(StorageError, match=f"cannot be saved in {store.root}: the file CURRENT is damaged"):
        store.finish_purge(store.epoch)
    assert store.purge_pending


def test_a_purge_that_cannot_start_raises(store):
    assert store.acquire()
    (store.root / "CURRENT").mkdir()
    with pytest.raises(
        StorageError, match=f"cannot be saved in {store.root}: (Is a directory|Operation not permitted)"
    ):
        store.purge()


def test_every_deletion_starts_another_epoch(store):
    assert store.acquire()
    epochs = [store.epoch]
    for forget in (store.purge, store.purge, store.clear, store.clear):
        forget()
        epochs.append(store.epoch)
    assert epochs == [0, 1, 2, 3, 4]
