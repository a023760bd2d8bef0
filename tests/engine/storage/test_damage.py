"""A damaged state is rejected with a reason and never used. The process that holds the lock sets it aside."""

from __future__ import annotations

import json

import filelock
import msgspec
import pytest
import torch

from c2l_lsp.engine.storage import disk
from c2l_lsp.engine.storage.decoding import SCHEMA
from c2l_lsp.engine.storage.store import FolderStore
from c2l_lsp.errors import StateError
from tests.support.store_builders import saved, state


@pytest.fixture
def store(tmp_path):
    made = FolderStore(tmp_path / "state")
    yield made
    made.close()


@pytest.mark.parametrize("file", ["state.safetensors", "saved.msgpack", "extra.safetensors", "manifest.json"])
def test_a_generation_with_a_flipped_bit_is_set_aside(store, file):
    store.save(saved(), state(), {"P": torch.eye(3)})
    path = next(store.root.glob("gen-*")) / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(StateError, match="set aside"):
        store.load()
    assert store.load() is None  # the next start builds the state again
    assert list(store.root.glob("*.bad"))


def test_every_truncation_is_rejected(store):
    store.save(saved(), state(), {})
    path = next(store.root.glob("gen-*")) / "state.safetensors"
    content = path.read_bytes()
    pointer = (store.root / "CURRENT").read_bytes()
    directory = path.parent
    for size in range(0, len(content), 97):
        path.write_bytes(content[:size])
        with pytest.raises(StateError):
            store.load()
        (store.root / "CURRENT").write_bytes(pointer)
        directory.with_suffix(".bad").rename(directory)


@pytest.mark.parametrize("where", ["state", "extra"])
def test_tensors_that_are_not_finite_are_rejected(store, where):
    bad = state()
    bad.tensors["S"][0, 0] = float("nan")
    store.save(saved(), *((bad, {}) if where == "state" else (state(), bad.tensors)))
    with pytest.raises(StateError, match=r"damaged \(a number is negative or not finite\)"):
        store.load()


@pytest.mark.parametrize(
    "wrong",
    [{"gate": float("inf")}, {"gate": -0.1}, {"gate_recall": float("nan")}, {"gate_recall": -1.0}, {"generation": -1}],
)
def test_negative_and_infinite_numbers_are_rejected(store, wrong):
    store.save(saved(**wrong), state(), {})
    with pytest.raises(StateError, match="is negative or not finite"):
        store.load()


def test_zeros_are_accepted(store):
    store.save(saved(0, gate=0.0, gate_recall=0.0), state(), {})
    assert store.load()[0] == saved(0, gate=0.0, gate_recall=0.0)


def test_another_schema_is_rejected(store):
    store.save(saved(), state(), {})
    manifest = next(store.root.glob("gen-*")) / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"schema": {SCHEMA}', '"schema": 0'))
    with pytest.raises(StateError, match="schema 0"):
        store.load()


@pytest.mark.parametrize("pointer", [b"gen-../../elsewhere", b"elsewhere", b"", b".gen-1.tmp", b"gen-\xff"])
def test_a_pointer_to_no_generation_is_rejected(store, pointer):
    store.save(saved(), state(), {})
    (store.root / "elsewhere").mkdir()
    (store.root / "CURRENT").write_bytes(pointer)
    with pytest.raises(StateError, match=r"CURRENT is damaged|can't decode byte"):
        store.load()
    assert store.load() is None
    assert (store.root / "elsewhere").is_dir()  # not a generation, so it is not renamed


def test_without_the_lock_a_damaged_state_is_not_set_aside(store, monkeypatch):
    store.save(saved(), state(), {})
    store.close()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    assert store.load()[0] == saved()
    (store.root / "CURRENT").write_text("elsewhere")
    with pytest.raises(StateError):
        store.load()
    assert (store.root / "CURRENT").exists()


def test_metadata_of_other_types_is_rejected(store):
    """The checksums agree, as if another program had written the state."""
    store.save(saved(), state(), {})
    generation = next(store.root.glob("gen-*"))
    content = msgspec.msgpack.encode({**msgspec.to_builtins(saved(), builtin_types=(bytes,)), "generation": "1"})
    (generation / "saved.msgpack").write_bytes(content)
    manifest = json.loads((generation / "manifest.json").read_text())
    manifest["sums"]["saved.msgpack"] = disk.checksum(content).hex()
    (generation / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StateError, match="Expected `int`, got `str`"):
        store.load()


def test_the_error_names_the_changed_file(store):
    store.save(saved(), state(), {})
    (next(store.root.glob("gen-*")) / "extra.safetensors").write_bytes(b"")
    with pytest.raises(StateError, match=r"extra\.safetensors does not match its checksum"):
        store.load()


def test_a_manifest_with_a_path_outside_the_directory_is_rejected(store):
    store.save(saved(), state(), {})
    (store.root / "elsewhere").write_bytes(b"")
    manifest = next(store.root.glob("gen-*")) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"saved.msgpack"', '"../elsewhere"'))
    with pytest.raises(StateError, match="is not in the directory"):
        store.load()


def test_only_the_last_generation_set_aside_is_kept(store):
    for number in (1, 2):
        store.save(saved(number), state(number), {})
        store.quarantine()
        assert store.load() is None
    (bad,) = store.root.glob("*.bad")
    assert bad.name.startswith("gen-00000002-")
    assert len(list(store.root.glob("gen-*"))) == 1
    store.quarantine()  # there is no current generation, so nothing happens
    assert bad.is_dir()


def test_a_generation_set_aside_does_not_count_as_an_old_one(store):
    store.save(saved(1), state(1), {})
    store.quarantine()
    for number in range(2, 5):
        store.save(saved(number), state(number), {})
    kept = sorted(path.name[:12] for path in store.root.glob("gen-*"))
    assert kept == ["gen-00000001", "gen-00000003", "gen-00000004"]


def test_a_process_that_only_reads_sets_nothing_aside(store):
    store.save(saved(1), state(1), {})
    (store.root / "CURRENT").write_text("gen-nowhere")
    other = FolderStore(store.root)
    with pytest.raises(StateError):
        other.load()
    assert (store.root / "CURRENT").exists()
    with pytest.raises(StateError):
        store.load()
    assert not (store.root / "CURRENT").exists()
