"""Rules that become stricter: nothing of what they leave out by now is used, comes back, or stays on the disk."""

from __future__ import annotations

import base64
import sqlite3
import struct
import time
from pathlib import Path

import msgspec
import pytest
import torch

from c2l_lsp.config import state_root
from c2l_lsp.engine import wire
from c2l_lsp.engine.adaptation import finetune, workspace_adapter
from c2l_lsp.engine.session import Session
from c2l_lsp.engine.storage import disk
from c2l_lsp.engine.storage.store import SCHEMA, FolderStore, SavedState, folder_key
from c2l_lsp.model.hypernet.protocol import RepoState
from c2l_lsp.model.runtime.lora_pair import LoraPair

CANARY = "zq_canary_77_later_ignored"
SECRET = f"def {CANARY}(value):\n    return '{CANARY}' + str(value)\n" * 6
WAYS = [".gitignore", ".c2lignore", "files.exclude"]


def tighten(root: Path, settings, way: str, pattern: str):
    """The settings under which a pattern is left out, or the rule file that says it written."""
    if way == "files.exclude":
        return msgspec.structs.replace(settings, files=msgspec.structs.replace(settings.files, exclude=[pattern]))
    (root / way).write_text(f"{pattern}\n")
    return settings


def forms(session: Session) -> list[bytes]:
    """The canary as it could be kept: raw, as base64 at each place, as token ids of each width."""
    raw = CANARY.encode()
    ids = session.engine.model.encode(f"def {CANARY}(")[2:-2]
    assert len(ids) > 5
    coded = [base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)]
    return [raw, b"later.py", *coded, *(struct.pack(f"<{len(ids)}{width}", *ids) for width in "Hiq")]


def kept(wanted: list[bytes], folder: Path) -> list[str]:
    """Files below the state directory that hold one of the forms."""
    files = [path for path in (state_root() / folder_key(folder)).rglob("*") if path.is_file()]
    return [path.name for path in files if any(form in path.read_bytes() for form in wanted)]


def workspace(session: Session, folder: Path) -> workspace_adapter.WorkspaceAdapter:
    return session.engine.workspace(str(folder.resolve()))


def go_deep(session: Session, folder: Path) -> None:
    """Pairs as training on request leaves them, live and kept."""
    one = workspace(session, folder)
    pair = LoraPair(torch.randn(4, 128) * 0.01, torch.randn(64, 4) * 0.01, 0.1)
    one.adapters.set_finetuned(finetune.FinetuneResult({"model.layers.1.mlp.down_proj": pair}, "live: for this test"))
    one._make_live()
    one._persist(one._learner.network, one._learner.state)
    session.run_until_idle(str(folder.resolve()))


@pytest.mark.parametrize("only", [False, True], ids=["one of many", "the only one"])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_a_file_that_is_left_out_by_now_stays(open_gate, settings, folder, way, only):
    if only:
        for path in (folder / "pkg").iterdir():
            path.unlink()
    (folder / "pkg" / "later.py").write_text(SECRET)
    with Session(settings) as session:
        session.open(folder)
        wanted = forms(session)
        assert kept(wanted, folder), "the canary must be kept before, or this test shows nothing"
        prior = workspace(session, folder)._learner.prior_tensors["P"]
        go_deep(session, folder)  # a generation beside the first one
        store = state_root() / folder_key(folder)
        (store / "gen-00000000-0.bad").mkdir()
        (store / "gen-00000000-0.bad" / "saved.msgpack").write_bytes(CANARY.encode())
        tightened = tighten(folder, settings, way, "later.py")
        if tightened is settings:
            workspace(session, folder).regenerate()
        else:
            session.engine.open_folder(wire.OpenFolder(folder=str(folder.resolve()), settings=tightened))
        info = session.run_until_idle(str(folder.resolve()))
        assert "dropped" in info.deep
        one = workspace(session, folder)
        assert not (one.adapters.finetuned.pairs or (one.live.adapter is not None and one.live.adapter.pairs))
        assert CANARY not in "".join(one.text(path) for path in one.text_digests())
        assert (one.live.adapter is None) == only
        assert only or not torch.equal(one._learner.prior_tensors["P"], prior)  # sums over the text: estimated again
        assert kept(wanted, folder) == []
        assert not one._persistence.store.purge_pending
    assert kept(wanted, folder) == []
    with Session(tightened) as again:
        again.engine.open_folder(wire.OpenFolder(folder=str(folder.resolve()), settings=tightened))
        assert (workspace(again, folder).live.adapter is None) == only  # before any look at the files
        again.run_until_idle(str(folder.resolve()))
        assert not workspace(again, folder).adapters.finetuned.pairs
        assert (workspace(again, folder).live.adapter is None) == only
    assert kept(wanted, folder) == []


def test_rules_that_became_stricter_while_it_was_off_are_seen_at_the_next_start(open_gate, settings, folder):
    (folder / "pkg" / "later.py").write_text(SECRET)
    with Session(settings) as session:
        session.open(folder)
        wanted = forms(session)
        go_deep(session, folder)
    (folder / ".c2lignore").write_text("later.py\n")
    with Session(settings) as again:
        again.open(folder)
        assert not workspace(again, folder).adapters.finetuned.pairs
    assert kept(wanted, folder) == []


def test_a_purge_that_was_interrupted_is_ended_by_the_next_start(open_gate, settings, folder, monkeypatch):
    """Killed after the generations went and before readings were pruned."""
    (folder / "pkg" / "later.py").write_text(SECRET)
    with Session(settings) as session:
        session.open(folder)
        wanted = forms(session)
        (folder / ".c2lignore").write_text("later.py\n")
        one = workspace(session, folder)
        one.regenerate()
        while not one._persistence.store.purge_pending:
            one.step(time.monotonic())
        one._drop_stages()
        monkeypatch.setattr(one._persistence._writer, "submit", lambda job: None)
    assert kept(wanted, folder) != []
    with Session(settings) as again:
        again.open(folder)
    assert kept(wanted, folder) == []


def test_texts_of_files_go_from_the_database_and_its_log(tmp_path):
    store = FolderStore(tmp_path / "state")
    text = "".join(f"{CANARY}{number * 7919}\n" for number in range(400))
    store.cache.put_texts({b"a": text, b"b": "other"}, {b"a", b"b"})
    with sqlite3.connect(tmp_path / "state" / "readings.sqlite") as db:
        packed = db.execute("SELECT value FROM text WHERE digest = ?", [b"a"]).fetchone()[0]
    db.close()
    chunks = [packed[start : start + 24] for start in range(0, len(packed) - 24, 24)]

    def found() -> bool:
        files = [path.read_bytes() for path in (tmp_path / "state").iterdir() if path.is_file()]
        return any(chunk in content for chunk in chunks for content in files)

    assert found()
    store.purge()
    store.cache.prune(set(), "rule", {b"b"})
    assert store.finish_purge(store.epoch)
    assert not found()
    assert store.cache.get_texts([b"a", b"b"]) == {b"b": "other"}
    store.close()


def test_a_save_that_is_under_way_does_not_outlive_a_purge(tmp_path, monkeypatch):
    def save(generation: int) -> bool:
        about = {"folder": "/f", "hypernetwork": "h", "filter_digest": "f", "gate": 1.0, "files": {}}
        return store.save(SavedState(schema=SCHEMA, generation=generation, **about), RepoState(), {})

    store = FolderStore(tmp_path / "state")
    assert save(1)
    real = disk.sync_directory

    def purged_meanwhile(directory: Path) -> None:
        monkeypatch.setattr(disk, "sync_directory", real)
        store.purge()

    monkeypatch.setattr(disk, "sync_directory", purged_meanwhile)
    assert not save(2)
    assert store.load() is None
    assert not [path for path in store.root.iterdir() if "gen-" in path.name]
    store.close()
