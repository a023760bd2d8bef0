"""What is kept on disk: whole generations or none, readings by content, private to the user."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest
import torch

from c2l_lsp.engine.store import SCHEMA, FolderStore, InUse, Saved, folder_key
from c2l_lsp.errors import StateError, StorageError
from c2l_lsp.model.hypernet import RepoState


@pytest.fixture
def store(tmp_path):
    made = FolderStore(tmp_path / "state")
    yield made
    made.close()


def saved(generation=1, **changes):
    plain = {
        "schema": SCHEMA,
        "folder": "/some/where",
        "hypernetwork": "h",
        "filter_digest": "f",
        "generation": generation,
        "gate": 0.7,
        "files": {"a.py": (b"d" * 16, 10, 5, [b"k" * 16])},
    }
    return Saved(**{**plain, **changes})


def state(seed=0):
    torch.manual_seed(seed)
    return RepoState({"S": torch.randn(8, 8, dtype=torch.float64), "n": torch.tensor(3.0, dtype=torch.float64)})


def reading(seed):
    torch.manual_seed(seed)
    return {"q": torch.randint(-127, 127, (8, 8), dtype=torch.int8), "n": torch.tensor(4.0)}


def test_a_generation_comes_back_bit_equal(store):
    store.save(saved(), state(), {"P": torch.eye(3)})
    back, tensors, extra = store.load()
    assert back == saved()
    assert torch.equal(tensors.tensors["S"], state().tensors["S"])
    assert torch.equal(extra["P"], torch.eye(3))


def test_nothing_yet_is_none(store):
    assert store.load() is None
    assert store.peek() is None


def test_the_newest_counts_and_few_are_kept(store):
    for number in range(1, 6):
        store.save(saved(number), state(number), {})
    assert store.load()[0].generation == 5
    assert len(list(store.root.glob("gen-*"))) == 2


@pytest.mark.parametrize("file", ["state.safetensors", "saved.msgpack", "extra.safetensors", "manifest.json"])
def test_a_flipped_bit_anywhere_is_set_aside(store, file):
    store.save(saved(), state(), {"P": torch.eye(3)})
    path = next(store.root.glob("gen-*")) / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(StateError, match="set aside"):
        store.load()
    assert store.load() is None  # the next start begins anew
    assert list(store.root.glob("*.bad"))


def test_every_truncation_is_refused(store):
    store.save(saved(), state(), {})
    path = next(store.root.glob("gen-*")) / "state.safetensors"
    whole = path.read_bytes()
    pointer = (store.root / "CURRENT").read_bytes()
    directory = path.parent
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(StateError):
            store.load()
        (store.root / "CURRENT").write_bytes(pointer)
        directory.with_suffix(".bad").rename(directory)


def test_not_finite_is_refused(store):
    bad = state()
    bad.tensors["S"][0, 0] = float("nan")
    store.save(saved(), bad, {})
    with pytest.raises(StateError, match="not finite"):
        store.load()


def test_an_older_schema_is_refused(store):
    store.save(saved(), state(), {})
    manifest = next(store.root.glob("gen-*")) / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"schema": {SCHEMA}', '"schema": 0'))
    with pytest.raises(StateError, match="schema 0"):
        store.load()


def test_a_pointer_that_leaves_the_directory_is_refused(store, tmp_path):
    store.save(saved(), state(), {})
    (store.root / "CURRENT").write_text("gen-../../elsewhere")
    with pytest.raises(StateError):
        store.load()


def test_an_interrupted_save_leaves_the_old_generation(store, monkeypatch):
    store.save(saved(1), state(1), {})
    real = os.fsync
    calls = []

    def failing(descriptor):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StorageError, match="No space left"):
        store.save(saved(2), state(2), {})
    monkeypatch.setattr(os, "fsync", real)
    assert store.load()[0].generation == 1
    store.save(saved(3), state(3), {})
    assert not list(store.root.glob(".gen-*"))


def test_readings_come_back_exactly_and_by_rule(store):
    store.put({b"a": reading(1), b"b": reading(2)}, "rule")
    found = store.get([b"a", b"b", b"c"], "rule")
    assert set(found) == {b"a", b"b"}
    assert torch.equal(found[b"a"]["q"], reading(1)["q"])
    assert store.get([b"a"], "other rule") == {}


def test_a_damaged_reading_is_as_good_as_none(store):
    store.put({b"a": reading(1)}, "rule")
    store.close()
    with sqlite3.connect(store.root / "readings.sqlite") as db:
        db.execute("UPDATE reading SET value = substr(value, 1, length(value) - 1) || x'00'")
    db.close()
    assert store.get([b"a"], "rule") == {}


def test_a_file_that_is_no_database_is_replaced(store):
    store.root.mkdir(parents=True)
    (store.root / "readings.sqlite").write_bytes(b"not a database at all" * 100)
    store.put({b"a": reading(1)}, "rule")
    assert store.get([b"a"], "rule")


def test_pruning_keeps_what_is_alive(store):
    store.put({b"a": reading(1), b"b": reading(2)}, "rule")
    store.put({b"a": reading(3)}, "old rule")
    store.prune({b"a"}, "rule")
    assert set(store.get([b"a", b"b"], "rule")) == {b"a"}
    assert store.get([b"a"], "old rule") == {}


@pytest.mark.skipif(os.name == "nt", reason="modes")
def test_only_the_user_can_read_it(store):
    store.save(saved(), state(), {})
    store.put({b"a": reading(1)}, "rule")
    for path in [store.root, *store.root.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0 or path.name.endswith(("-wal", "-shm")), path


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    store = FolderStore(tmp_path / "file" / "state")
    with pytest.raises(StorageError, match="cannot be kept"):
        store.save(saved(), state(), {})
    with pytest.raises(StorageError, match="cannot be kept"):
        store.put({b"a": reading(1)}, "rule")


def test_a_folder_has_one_key_however_it_is_named(tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    assert folder_key(real) == folder_key(tmp_path / "link")
    assert folder_key(real) != folder_key(tmp_path)


def test_one_of_two_writes_and_the_other_reads(store):
    store.save(saved(1), state(1), {})
    store.put({b"a": reading(1)}, "rule")
    other = FolderStore(store.root)
    try:
        assert not other.own()
        assert other.load()[0].generation == 1
        assert set(other.get([b"a", b"b"], "rule")) == {b"a"}
        for write in (
            lambda: other.save(saved(9), state(9), {}),
            lambda: other.put({b"b": reading(2)}, "rule"),
            lambda: other.put_texts({b"d": "text"}, {b"d"}),
            lambda: other.prune(set(), "rule"),
            other.clear,
        ):
            with pytest.raises(InUse, match="Another server"):
                write()
        store.save(saved(2), state(2), {})
        assert other.load()[0].generation == 2
        store.close()
        other.save(saved(3), state(3), {})  # the first has gone: now it may
        with pytest.raises(InUse):
            store.put({b"c": reading(3)}, "rule")
    finally:
        other.close()
    assert store.load()[0].generation == 3


def test_a_reader_sets_nothing_aside(store):
    store.save(saved(1), state(1), {})
    (store.root / "CURRENT").write_text("gen-nowhere")
    other = FolderStore(store.root)
    with pytest.raises(StateError):
        other.load()
    assert (store.root / "CURRENT").exists()
    with pytest.raises(StateError):
        store.load()
    assert not (store.root / "CURRENT").exists()


def test_a_cache_that_is_locked_is_not_deleted(store):
    """sqlite says "locked" by a subclass of what it says of a damaged file."""
    store.put({b"a": reading(1)}, "rule")
    store.close()
    blocker = sqlite3.connect(store.root / "readings.sqlite", isolation_level=None)
    blocker.execute("PRAGMA locking_mode=EXCLUSIVE")
    blocker.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(StorageError):
            store.put({b"b": reading(2)}, "rule")
    finally:
        blocker.close()
    assert set(store.get([b"a"], "rule")) == {b"a"}


KEPT = Path(__file__).parent / "kept_state_1"
"""A state as the first version wrote it, before `seen`, `touched` and `first` were kept."""


def test_a_state_of_the_first_version_is_read(tmp_path):
    root = tmp_path / "state"
    shutil.copytree(KEPT, root)
    store = FolderStore(root)
    back, kept, extra = store.load()
    assert (back.generation, back.gate, back.seen, back.touched, back.first) == (41, 0.7, {}, [], {})
    assert back.files == {"a.py": (b"d" * 16, 10, 5, [b"k" * 16])}
    assert torch.equal(kept.tensors["S"], 3 * torch.eye(4, dtype=torch.float64))
    assert torch.equal(extra["P"], torch.eye(2))
    store.close()
