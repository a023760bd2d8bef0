"""Generations on disk: complete or none, written by one process at a time, private to the user."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch

from c2l_lsp.engine.storage import disk
from c2l_lsp.engine.storage.state_lock import StateInUse
from c2l_lsp.engine.storage.store import FolderStore, folder_key
from c2l_lsp.errors import StateError, StorageError
from c2l_lsp.model.hypernet.protocol import RepoState
from tests.support.store_builders import embedding, saved, state


@pytest.fixture
def store(tmp_path):
    made = FolderStore(tmp_path / "state")
    yield made
    made.close()


def test_a_generation_is_loaded_bit_equal(store):
    store.save(saved(), state(), {"P": torch.eye(3)})
    metadata, loaded, extra = store.load()
    assert metadata == saved()
    assert torch.equal(loaded.tensors["S"], state().tensors["S"])
    assert torch.equal(extra["P"], torch.eye(3))


def test_without_a_generation_load_returns_none(store):
    assert store.load() is None
    assert store.load_metadata() is None


def test_the_newest_generation_is_loaded_and_one_older_one_is_kept(store):
    for number in range(1, 6):
        store.save(saved(number), state(number), {})
    assert store.load()[0].generation == 5
    assert len(list(store.root.glob("gen-*"))) == 2


def test_a_directory_that_cannot_be_deleted_does_not_prevent_a_save(store, monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "manifest.json")

    for number in (1, 2):
        store.save(saved(number), state(number), {})
    store.quarantine()
    store.save(saved(3), state(3), {})
    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", refused)
        assert store.save(saved(4), state(4), {})
        assert store.load()[0].generation == 4
        store.quarantine()
        assert store.load() is None


def test_metadata_is_read_without_lock_and_without_changes(store):
    store.save(saved(7), state(), {})
    store.close()
    other = FolderStore(store.root)
    assert other.load_metadata() == saved(7)
    assert store.acquire()  # load_metadata took no lock
    manifest = next(store.root.glob("gen-*")) / "manifest.json"
    manifest.unlink()
    with pytest.raises(StateError, match=r"is damaged \(.*manifest.json"):
        other.load_metadata()
    assert (store.root / "CURRENT").exists()


def test_a_reader_tries_again_if_its_generation_was_replaced_meanwhile(store, monkeypatch):
    store.save(saved(1), state(1), {})
    other = FolderStore(store.root)
    real = FolderStore._read

    def replaced_meanwhile(self: FolderStore, directory: Path):
        monkeypatch.setattr(FolderStore, "_read", real)
        for number in (2, 3):
            store.save(saved(number), state(number), {})
        return real(self, directory)

    monkeypatch.setattr(FolderStore, "_read", replaced_meanwhile)
    assert other.load()[0].generation == 3


def test_views_of_tensors_are_saved(store):
    square = torch.arange(9.0).reshape(3, 3)
    store.save(saved(), RepoState({"S": square.T}), {"P": square[:, :2]})
    _, loaded, extra = store.load()
    assert torch.equal(loaded.tensors["S"], square.T)
    assert torch.equal(extra["P"], square[:, :2])


def test_a_failed_save_leaves_the_previous_generation(store, monkeypatch):
    store.save(saved(1), state(1), {})
    real = os.fsync
    calls = []

    def failing(descriptor):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StorageError, match=f"cannot be saved in {store.root}: No space left"):
        store.save(saved(2), state(2), {})
    monkeypatch.setattr(os, "fsync", real)
    assert store.load()[0].generation == 1
    store.save(saved(3), state(3), {})
    assert not list(store.root.glob(".gen-*"))


@pytest.mark.skipif(os.name == "nt", reason="modes")
def test_only_the_user_can_read_the_files(store):
    store.save(saved(), state(), {})
    store.cache.put({b"a": embedding(1)}, "rule")
    store.purge()
    store.save(saved(), state(), {})
    for path in [store.root, *store.root.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0 or path.name.endswith(("-wal", "-shm")), path


def test_a_directory_that_cannot_be_written_raises(tmp_path):
    (tmp_path / "file").write_text("")
    store = FolderStore(tmp_path / "file" / "state")
    with pytest.raises(StorageError, match="cannot be saved"):
        store.save(saved(), state(), {})
    with pytest.raises(StorageError, match="cannot be saved"):
        store.cache.put({b"a": embedding(1)}, "rule")


def test_a_folder_has_the_same_key_through_a_link(tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    assert folder_key(real) == folder_key(tmp_path / "link")
    assert folder_key(real) != folder_key(tmp_path)


def test_the_key_of_a_folder_is_readable_and_a_valid_file_name(tmp_path):
    assert folder_key(tmp_path / "my-proj_1.2").startswith("my-proj_1.2-")
    assert folder_key(tmp_path / "a b:c/ü*").startswith("ü--")
    name, _, digest = folder_key(tmp_path / ("x" * 99)).rpartition("-")
    assert (name, len(digest)) == ("x" * 40, 20)
    assert folder_key(Path("/")).startswith("root-")
    assert folder_key(Path("/srv/a")) == "a-" + hashlib.blake2b(b"/srv/a", digest_size=10).hexdigest()


@pytest.mark.skipif(os.name == "nt", reason="names are bytes")
def test_a_folder_name_that_is_not_unicode_has_a_key():
    key = folder_key(Path(os.fsdecode(b"/srv/a\xff")))
    assert key.startswith("a--")
    assert key.isascii()
    assert key != folder_key(Path(os.fsdecode(b"/srv/a\xfe")))


def test_of_two_processes_one_writes_and_the_other_reads(store):
    store.save(saved(1), state(1), {})
    store.cache.put({b"a": embedding(1)}, "rule")
    other = FolderStore(store.root)
    try:
        assert not other.acquire()
        assert other.load()[0].generation == 1
        assert set(other.cache.get([b"a", b"b"], "rule")) == {b"a"}
        for write in (
            lambda: other.save(saved(9), state(9), {}),
            lambda: other.cache.put({b"b": embedding(2)}, "rule"),
            lambda: other.cache.put_texts({b"d": "text"}, {b"d"}),
            lambda: other.cache.prune(set(), "rule"),
            other.clear,
            other.purge,
            lambda: other.finish_purge(other.epoch),
        ):
            with pytest.raises(StateInUse, match="Another server"):
                write()
        store.save(saved(2), state(2), {})
        assert other.load()[0].generation == 2
        store.close()
        other.save(saved(3), state(3), {})  # the first has released the lock
        with pytest.raises(StateInUse):
            store.cache.put({b"c": embedding(3)}, "rule")
    finally:
        other.close()
    assert store.load()[0].generation == 3


VERSION_1 = Path(__file__).parents[1] / "adaptation" / "kept_state_1"
"""A state written by the first version, which did not save `seen`, `touched` and `first`."""


def test_a_state_of_the_first_version_is_loaded(tmp_path):
    root = tmp_path / "state"
    shutil.copytree(VERSION_1, root)
    store = FolderStore(root)
    metadata, loaded, extra = store.load()
    assert (metadata.generation, metadata.gate, metadata.seen, metadata.touched, metadata.first) == (
        41,
        0.7,
        {},
        [],
        {},
    )
    assert metadata.files == {"a.py": (b"d" * 16, 10, 5, [b"k" * 16])}
    assert torch.equal(loaded.tensors["S"], 3 * torch.eye(4, dtype=torch.float64))
    assert torch.equal(extra["P"], torch.eye(2))
    store.close()


def test_generation_shares_the_extra_tensors_of_the_one_before(store):
    for generation in (1, 2, 3):
        extra = {"P": torch.eye(3)} if generation == 1 else None
        assert store.save(saved(generation), state(), extra)
        metadata, _, found = store.load()
        assert metadata.generation == generation
        assert torch.equal(found["P"], torch.eye(3))
    files = {path.stat().st_ino for path in store.root.glob("gen-*/extra.safetensors")}
    assert len(files) == 1, "written once"
    assert disk.directory_size(store.root) < sum(
        path.stat().st_size for path in store.root.rglob("*") if path.is_file()
    )


def test_sharing_without_a_current_generation_is_an_error(store):
    with pytest.raises(StorageError):
        store.save(saved(1), state(), None)
    assert store.save(saved(1), state(), {})
