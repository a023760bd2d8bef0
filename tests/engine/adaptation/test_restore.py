"""Restarts: a saved state is restored, a damaged or lost one is built again."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from c2l_lsp.config import state_root
from c2l_lsp.engine import wire
from c2l_lsp.engine.adaptation import persistence
from c2l_lsp.engine.session import Session
from c2l_lsp.engine.storage.store import folder_key
from tests.support.engine_driver import changes, live, troubles, wait
from tests.support.engine_loop import run_until


def test_second_start_reads_nothing_and_is_bit_identical(settings, folder):
    with Session(settings) as first:
        first.open(folder)
        digest = live(first, folder).adapter.digest
    with Session(settings) as second:
        reads = []
        second.engine.open_folder(wire.OpenFolder(folder=str(folder.resolve()), settings=settings))
        network = second.engine.workspace(str(folder.resolve()))._learner.network
        network.embed_in_slices = lambda chunks: reads.append(chunks)  # type: ignore[method-assign]
        assert live(second, folder).adapter.digest == digest  # before any file is compared
        info = second.run_until_idle(str(folder.resolve()))
        assert info.generation == 1
        assert live(second, folder).adapter.digest == digest
        assert reads == []
        assert changes(second)[0].trigger == "restore"


def test_changes_made_while_the_engine_was_off_are_applied_at_the_next_start(settings, folder):
    with Session(settings) as first:
        first.open(folder)
    (folder / "pkg" / "m5.py").write_text("def made_while_off():\n    return 1\n")
    (folder / "pkg" / "m6.py").unlink()
    with Session(settings) as second:
        info = second.open(folder)
        assert (info.generation, info.files) == (2, 11)


def test_damaged_state_is_moved_aside_and_rebuilt(settings, folder):
    with Session(settings) as first:
        first.open(folder)
    for path in (state_root() / folder_key(folder)).glob("gen-*/state.safetensors"):
        path.write_bytes(path.read_bytes()[:-5])
    with Session(settings) as second:
        info = second.open(folder)
        assert info.state == "ready"
        assert live(second, folder).adapter is not None
        assert any(trouble.code == "state" for trouble in troubles(second))


def test_lost_embeddings_are_computed_again(settings, folder):
    with Session(settings) as first:
        first.open(folder)
    (state_root() / folder_key(folder) / "readings.sqlite").unlink()
    (folder / "pkg" / "m0.py").write_text("def other():\n    return 2\n")
    with Session(settings) as second:
        assert second.open(folder).state == "ready"
        assert live(second, folder).adapter is not None


def test_state_of_the_first_version_is_accepted(settings, folder):
    """It belongs to another hypernetwork: the state is rebuilt, and the generation counter continues."""
    kept = Path(__file__).parent / "kept_state_1"
    shutil.copytree(kept, state_root() / folder_key(folder))
    with Session(settings) as session:
        info = session.open(folder)
        assert (info.generation, info.files, info.state) == (42, 12, "ready")
        assert troubles(session) == []


@pytest.mark.skipif(os.name == "nt" or (os.geteuid() == 0 and not shutil.which("true")), reason="needs a plain file")
def test_failed_save_is_reported_once_and_adaptation_continues(settings, folder):
    state_root().parent.mkdir(parents=True, exist_ok=True)
    state_root().write_text("a file where the folder should be")
    with Session(settings) as session:
        info = session.open(folder)
        assert (info.generation, info.state) == (1, "ready")
        assert live(session, folder).adapter is not None
        assert [trouble.code for trouble in troubles(session)] == ["storage"]
        (folder / "pkg" / "m0.py").write_text("def other():\n    return 2\n")
        assert wait(session, folder, 2).state == "ready"


def test_state_is_saved_as_soon_as_the_disk_allows(settings, folder, monkeypatch):
    """One full disk must not lose everything learned afterwards."""
    monkeypatch.setattr(persistence, "RETRY_S", 0.2)
    state_root().parent.mkdir(parents=True, exist_ok=True)
    state_root().write_text("a file where the folder should be")
    with Session(settings) as session:
        assert session.open(folder).generation == 1
        state_root().unlink()
        time.sleep(0.2)
        (folder / "pkg" / "m0.py").write_text("def other():\n    return 2\n")
        wait(session, folder, 2)
        severities = ["warning", "info"]
        run_until(session, lambda: [t.severity for t in troubles(session) if t.code == "storage"] == severities)
    with Session(settings) as second:
        second.engine.open_folder(wire.OpenFolder(folder=str(folder.resolve()), settings=settings))
        workspace = second.engine.workspace(str(folder.resolve()))
        assert workspace.info().generation == 2
        keys = [key for record in workspace._learner.records.values() for key in record.keys]
        workspace._learner._embeddings = None
        assert len(workspace._persistence.store.cache.get(keys, workspace._learner.network.digest)) == len(
            set(keys)
        )  # they were in memory meanwhile


def test_second_server_on_a_folder_adapts_but_writes_nothing(settings, folder):
    with Session(settings) as first, Session(settings) as second:
        first.open(folder)
        kept = sorted((p.name, p.stat().st_mtime_ns) for p in (state_root() / folder_key(folder)).glob("gen-*/*"))
        info = second.open(folder)
        assert (info.generation, info.state) == (1, "ready")
        assert live(second, folder).adapter.digest == live(first, folder).adapter.digest
        (folder / "pkg" / "m0.py").write_text("def other():\n    return 2\n")
        assert wait(second, folder, 2).state == "ready"
        assert [(t.code, t.severity) for t in troubles(second)] == [("storage", "info")]
        after = sorted((p.name, p.stat().st_mtime_ns) for p in (state_root() / folder_key(folder)).glob("gen-*/*"))
        assert after == kept


def test_reset_discards_the_state_and_builds_it_again(session, folder):
    session.open(folder)
    session.engine.workspace(str(folder.resolve())).reset()
    info = wait(session, folder, 2)
    assert info.files == 12
    assert changes(session)[-1].trigger == "reset"
