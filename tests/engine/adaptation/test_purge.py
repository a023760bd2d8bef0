"""Stricter ignore rules: newly excluded text is not used, does not come back, and does not stay on disk."""

from __future__ import annotations

import base64
import sqlite3
import struct
import subprocess
import time
from pathlib import Path

import msgspec
import pytest
import torch

from c2l_lsp.config import state_root
from c2l_lsp.cooperative import drain
from c2l_lsp.engine import wire
from c2l_lsp.engine.adaptation import finetune, workspace_adapter
from c2l_lsp.engine.session import Session
from c2l_lsp.engine.storage import disk
from c2l_lsp.engine.storage.decoding import SCHEMA, SavedState
from c2l_lsp.engine.storage.store import FolderStore, folder_key
from c2l_lsp.model.hypernet.protocol import RepoState
from c2l_lsp.model.runtime.lora_pair import LoraPair
from c2l_lsp.redaction import MARK
from c2l_lsp.repo.filter import rules
from tests.support.engine_loop import run_until

CANARY = "zq_canary_77_later_ignored"
SECRET = f"def {CANARY}(value):\n    return '{CANARY}' + str(value)\n" * 6
WAYS = [".gitignore", ".c2lignore", "files.exclude"]


def tighten(root: Path, settings, way: str, pattern: str):
    """Exclude a pattern: return changed settings, or write a rule file and return the same settings."""
    if way == "files.exclude":
        return msgspec.structs.replace(settings, files=msgspec.structs.replace(settings.files, exclude=[pattern]))
    (root / way).write_text(f"{pattern}\n")
    return settings


def forms(session: Session) -> list[bytes]:
    """The forms in which the canary could be saved: raw, base64 at each offset, token ids of each width."""
    raw = CANARY.encode()
    ids = session.engine.model.encode(f"def {CANARY}(")[2:-2]
    assert len(ids) > 5
    coded = [base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)]
    return [raw, b"later.py", *coded, *(struct.pack(f"<{len(ids)}{width}", *ids) for width in "Hiq")]


def saved_in(wanted: list[bytes], folder: Path) -> list[str]:
    """The files below the state directory that contain one of the forms."""
    files = [path for path in (state_root() / folder_key(folder)).rglob("*") if path.is_file()]
    return [path.name for path in files if any(form in path.read_bytes() for form in wanted)]


def workspace(session: Session, folder: Path) -> workspace_adapter.WorkspaceAdapter:
    return session.engine.workspace(str(folder.resolve()))


def publish_pairs(session: Session, folder: Path) -> None:
    """Publish and save LoRA pairs as finetuning does."""
    adapting = workspace(session, folder)
    pair = LoraPair(torch.randn(4, 128) * 0.01, torch.randn(64, 4) * 0.01, 0.1)
    adapting.adapters.set_finetuned(
        finetune.FinetuneResult({"model.layers.1.mlp.down_proj": pair}, "live: for this test")
    )
    adapting._make_live()
    adapting._persist(adapting._learner.network, adapting._learner.state)
    session.run_until_idle(str(folder.resolve()))


@pytest.mark.parametrize("only", [False, True], ids=["one of many", "the only one"])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_a_newly_excluded_file_remains(accept_every_adapter, settings, folder, way, only):
    if only:
        for path in (folder / "pkg").iterdir():
            path.unlink()
    (folder / "pkg" / "later.py").write_text(SECRET)
    with Session(settings) as session:
        session.open(folder)
        wanted = forms(session)
        assert saved_in(wanted, folder), "the canary must be saved first, or this test proves nothing"
        prior = workspace(session, folder)._learner.prior_tensors["P"]
        publish_pairs(session, folder)  # a generation beside the first one
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
        adapting = workspace(session, folder)
        assert not (
            adapting.adapters.finetuned.pairs or (adapting.live.adapter is not None and adapting.live.adapter.pairs)
        )
        assert CANARY not in "".join(drain(adapting.text_in_slices(path)) for path in adapting.text_digests())
        assert (adapting.live.adapter is None) == only
        assert only or not torch.equal(adapting._learner.prior_tensors["P"], prior)  # sums over the text
        assert saved_in(wanted, folder) == []
        assert not adapting._persistence.store.purge_pending
    assert saved_in(wanted, folder) == []
    with Session(tightened) as again:
        again.engine.open_folder(wire.OpenFolder(folder=str(folder.resolve()), settings=tightened))
        assert (workspace(again, folder).live.adapter is None) == only  # before any file is compared
        again.run_until_idle(str(folder.resolve()))
        assert not workspace(again, folder).adapters.finetuned.pairs
        assert (workspace(again, folder).live.adapter is None) == only
    assert saved_in(wanted, folder) == []


def test_nothing_of_a_file_that_git_no_longer_tracks_remains(accept_every_adapter, settings, folder):
    """A pattern ignores it, and only its place in the index had let it in. The digest of the rules is the same."""
    (folder / "pkg" / "later.py").write_text(SECRET)
    (folder / ".gitignore").write_text("later.py\n")

    def git(*args: str) -> None:
        subprocess.run(["git", *args], cwd=folder, check=True, capture_output=True)

    git("init", "-q")
    with Session(settings) as session:
        assert session.open(folder).files == 12
        wanted = forms(session)
        assert saved_in(wanted, folder) == []
        git("add", "-f", "pkg/later.py")
        run_until(session, lambda: workspace(session, folder).info().files == 13)
        generation = session.run_until_idle(str(folder.resolve())).generation
        assert saved_in(wanted, folder), "the canary must be saved first, or this test proves nothing"
    with Session(settings) as session:
        assert session.open(folder).files == 13
        assert workspace(session, folder).info().generation == generation, "a restart rebuilds nothing"
        git("rm", "-q", "--cached", "pkg/later.py")
        run_until(session, lambda: workspace(session, folder).info().files == 12)
        session.run_until_idle(str(folder.resolve()))
        assert not workspace(session, folder).permits("pkg/later.py")
        assert saved_in(wanted, folder) == []


def test_rules_tightened_while_the_engine_was_off_apply_at_the_next_start(accept_every_adapter, settings, folder):
    (folder / "pkg" / "later.py").write_text(SECRET)
    with Session(settings) as session:
        session.open(folder)
        wanted = forms(session)
        publish_pairs(session, folder)
    (folder / ".c2lignore").write_text("later.py\n")
    with Session(settings) as again:
        again.open(folder)
        assert not workspace(again, folder).adapters.finetuned.pairs
    assert saved_in(wanted, folder) == []


def test_file_that_a_newer_release_excludes_is_purged_though_the_rules_are_equal(
    accept_every_adapter, settings, folder, monkeypatch
):
    (folder / "pkg" / "later.py").write_text(SECRET)
    with Session(settings) as session:
        session.open(folder)
        wanted, rules_digest = forms(session), workspace(session, folder)._learner.rules
        assert saved_in(wanted, folder), "the canary must be saved first, or this test proves nothing"
    real = rules.is_secret_file
    monkeypatch.setattr(rules, "is_secret_file", lambda name: name == "later.py" or real(name))
    with Session(settings) as again:
        info = again.open(folder)
        assert workspace(again, folder)._learner.rules == rules_digest
        assert (info.files, info.state) == (12, "ready")
    assert saved_in(wanted, folder) == []


def test_secret_typed_after_the_comparison_is_not_embedded(session, folder):
    """A buffer changes between two slices: what is embedded is the text that the filter has checked."""
    session.open(folder)
    learner = workspace(session, folder)._learner
    learner.set_buffer("pkg/m1.py", "def typed():\n    return 1\n")
    reconciled = drain(learner.reconcile(frozenset({"pkg/m1.py"})))
    learner.set_buffer("pkg/m1.py", f'token = "ghp_{"a1B2c3D4e5F6" * 3}"\n')
    text = drain(learner.text_in_slices("pkg/m1.py"))
    assert MARK in text, "the planted text must be a secret to the filter"
    update = drain(learner.embed(reconciled, "diff"))
    assert [chunk.text for chunk in update.plan.new_chunks.values()] == ["def typed():\n    return 1\n"]


def test_interrupted_purge_is_completed_by_the_next_start(accept_every_adapter, settings, folder, monkeypatch):
    """Killed after the generations were deleted and before the cache was pruned."""
    (folder / "pkg" / "later.py").write_text(SECRET)
    with Session(settings) as session:
        session.open(folder)
        wanted = forms(session)
        (folder / ".c2lignore").write_text("later.py\n")
        adapting = workspace(session, folder)
        adapting.regenerate()
        while not adapting._persistence.store.purge_pending:
            adapting.step(time.monotonic())
        adapting._drop_stages()
        monkeypatch.setattr(adapting._persistence._writer, "submit", lambda job: None)
    assert saved_in(wanted, folder) != []
    with Session(settings) as again:
        again.open(folder)
    assert saved_in(wanted, folder) == []


def test_purged_texts_leave_the_database_and_its_log(tmp_path):
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


def test_save_in_progress_does_not_survive_a_purge(tmp_path, monkeypatch):
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
