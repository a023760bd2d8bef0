"""What is deleted on disk: everything of a folder, or what its rules leave out by now."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from c2l_lsp.engine.storage import disk
from c2l_lsp.engine.storage.store import FolderStore
from c2l_lsp.errors import StorageError
from tests.support.store_builders import reading, saved, state


@pytest.fixture
def store(tmp_path):
    made = FolderStore(tmp_path / "state")
    yield made
    made.close()


def test_clearing_forgets_everything_and_begins_anew(store):
    assert store.save(saved(1), state(1), {})
    store.cache.put({b"a": reading(1)}, "rule")
    store.clear()
    assert not store.root.exists()
    assert (store.load(), store.cache.get([b"a"], "rule")) == (None, {})
    assert store.save(saved(1), state(1), {})
    assert store.load()[0].generation == 1


@pytest.mark.parametrize("how", ["clear", "purge"])
@pytest.mark.parametrize("when", ["make_private", "sync_directory"], ids=["before it wrote", "before it counted"])
def test_a_save_begun_before_all_was_forgotten_leaves_nothing(store, monkeypatch, how, when):
    assert store.acquire()
    real, epoch = getattr(disk, when), store.epoch

    def forgotten_meanwhile(directory: Path) -> None:
        monkeypatch.setattr(disk, when, real)
        real(directory)
        getattr(store, how)()

    monkeypatch.setattr(disk, when, forgotten_meanwhile)
    assert store.save(saved(1), state(1), {}) is False
    assert store.epoch == epoch + 1
    assert store.load() is None
    assert not [path.name for path in store.root.iterdir() if "gen-" in path.name or "CURRENT" in path.name]


def test_a_purge_lasts_until_it_is_ended(store):
    store.save(saved(1), state(1), {})
    store.save(saved(2), state(2), {})
    store.quarantine()
    (store.root / ".gen-interrupted.tmp").mkdir()
    assert not store.purge_pending
    begun = store.epoch
    store.purge()
    assert store.purge_pending
    assert FolderStore(store.root).purge_pending  # the next process sees it too
    assert not [path for path in store.root.iterdir() if "gen-" in path.name]
    assert not store.finish_purge(begun)  # it ends an earlier one
    assert store.purge_pending
    store.save(saved(3), state(3), {})
    (store.root / "gen-00000002-0.bad").mkdir()
    (store.root / ".gen-interrupted.tmp").mkdir()
    assert store.finish_purge(store.epoch)
    assert not (store.root / ".gen-interrupted.tmp").exists()
    assert not store.purge_pending
    assert store.load()[0].generation == 3
    assert len(list(store.root.glob("gen-*"))) == 1


def test_a_purge_does_not_end_while_somebody_reads_what_is_to_go(store):
    store.cache.put({b"a": reading(1)}, "rule")
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


def test_a_purge_beside_a_damaged_pointer_is_not_ended(store):
    store.purge()
    (store.root / "CURRENT").write_text("elsewhere")
    with pytest.raises(StorageError, match=f"cannot be kept in {store.root}: a damaged pointer"):
        store.finish_purge(store.epoch)
    assert store.purge_pending


def test_a_purge_that_cannot_begin_says_so(store):
    assert store.acquire()
    (store.root / "CURRENT").mkdir()
    with pytest.raises(StorageError, match=f"cannot be kept in {store.root}: (Is a directory|Operation not permitted)"):
        store.purge()


def test_every_time_all_is_forgotten_is_another_epoch(store):
    assert store.acquire()
    epochs = [store.epoch]
    for forget in (store.purge, store.purge, store.clear, store.clear):
        forget()
        epochs.append(store.epoch)
    assert epochs == [0, 1, 2, 3, 4]
