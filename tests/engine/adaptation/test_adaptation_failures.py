"""Failures while a workspace adapts: no files, git at work, a device that fails, NaN."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import msgspec
import pytest

from c2l_lsp.engine import engine as engine_module
from c2l_lsp.engine import wire
from c2l_lsp.engine.adaptation import reconcile_scheduler, workspace_adapter
from c2l_lsp.engine.adaptation.adapter_state import LiveAdapter
from c2l_lsp.engine.session import Session
from tests.support.engine_driver import at_work, changes, live, question, troubles, wait
from tests.support.engine_loop import run_until


def test_empty_folder_is_reported_and_adapts_once_a_file_appears(session, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    info = session.open(empty)
    assert "no readable python file" in info.message
    assert live(session, empty).adapter is None
    (empty / "a.py").write_text("def hello(name):\n    return 'hello ' + name\n" * 5)
    assert wait(session, empty, 1).files == 1


def test_folder_without_python_files_is_reported(session, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.md").write_text("# hello\n")
    assert "no readable python file" in session.open(tmp_path / "docs").message
    assert troubles(session)[0].code == "nothing-to-learn"


def test_missing_folder_is_reported(session, tmp_path):
    info = session.open(tmp_path / "nowhere")
    assert "not a folder" in info.message
    assert troubles(session)[0].code == "folder"


def test_removed_folder_is_reported_and_adapts_again_when_it_returns(session, folder):
    session.open(folder)
    aside = folder.with_name("aside")
    folder.rename(aside)
    workspace = session.engine.workspace(str(folder.resolve()))
    workspace.regenerate()
    session.run_until_idle(str(folder.resolve()))
    assert workspace.info().state == "failed"
    assert workspace.live.adapter is None
    aside.rename(folder)
    workspace.regenerate()
    assert session.run_until_idle(str(folder.resolve())).state == "ready"
    generation = workspace.info().generation
    (folder / "pkg" / "m0.py").write_text("def watched_again():\n    return 2\n")
    assert wait(session, folder, generation + 1).state == "ready"


@pytest.mark.parametrize("how", ["moved", "parent moved", "deleted and made anew"])
def test_folder_that_returns_unchanged_is_followed_again_by_itself(
    accept_every_adapter, settings, folder, tmp_path, how
):
    """Regression: it stayed degraded and without its adapter until a file changed, and nothing was watched."""
    root = tmp_path / "mount" / "project"
    shutil.copytree(folder, root)
    with Session(settings) as session:
        session.open(root)
        workspace = session.engine.workspace(str(root))
        generation = workspace.info().generation
        assert workspace.live.adapter is not None
        away = root.parent if how == "parent moved" else root
        away.rename(tmp_path / "aside")
        run_until(session, lambda: workspace.info().state == "failed")
        assert workspace.live.adapter is None
        assert [trouble.code for trouble in troubles(session)] == ["folder"] * 2, "not watched, not read"
        if how == "deleted and made anew":
            shutil.copytree(tmp_path / "aside", root)
        else:
            (tmp_path / "aside").rename(away)
        returned = time.monotonic()
        run_until(session, lambda: workspace.live.adapter is not None)
        assert time.monotonic() - returned < 5
        assert (workspace.info().state, workspace.info().generation) == ("ready", generation)
        assert workspace.info().message == ""
        assert changes(session)[-1].trigger == "restore", "the server takes its warning back"
        (root / "pkg" / "later.py").write_text("def watched_again():\n    return 2\n")
        run_until(session, lambda: workspace.info().files == 13)


def test_folder_that_was_missing_at_the_start_is_opened_when_it_appears(
    accept_every_adapter, settings, folder, tmp_path, monkeypatch
):
    """A network drive is mounted later than the editor starts."""
    monkeypatch.setattr(engine_module, "MISSING_CHECK_S", 0.1)
    root = tmp_path / "drive" / "project"
    with Session(settings) as session:
        assert "not a folder" in session.open(root).message
        session.engine.workspace(str(root)).set_buffer("pkg/open.py", "def unsaved():\n    pass\n")
        assert session.engine.due_in() is not None
        shutil.copytree(folder, root)
        run_until(session, lambda: session.engine.workspace(str(root)).info().files == 13)
        run_until(session, lambda: session.engine.workspace(str(root)).live.adapter is not None)


def test_missing_untrusted_folder_is_not_looked_for(session, tmp_path):
    root = tmp_path / "later"
    session.engine.open_folder(wire.OpenFolder(folder=str(root), settings=session.settings, trusted=False))
    assert session.engine.workspace(str(root)).info().state == "off"
    assert session.engine._missing() == {}


def test_hypernetwork_without_weights_names_the_setting(session, folder, settings):
    evo = msgspec.structs.replace(settings, adapter=msgspec.structs.replace(settings.adapter, hypernetwork="evo"))
    name = str(folder.resolve())
    session.engine.open_folder(wire.OpenFolder(folder=name, settings=evo))
    info = session.run_until_idle(name)
    assert "no evo weights" in info.message
    assert live(session, folder).adapter is None


def test_nothing_is_read_while_git_writes(session, folder):
    subprocess.run(["git", "init", "-q", str(folder)], check=True, timeout=20)
    session.open(folder)
    lock = folder / ".git" / "index.lock"
    lock.write_text("")
    (folder / "pkg" / "m0.py").write_text("def other():\n    return 2\n")
    workspace = session.engine.workspace(str(folder.resolve()))
    steps, until = 0, time.monotonic() + 1.5
    while time.monotonic() < until:
        due = workspace.due_in(time.monotonic())
        if due is not None and due <= 0:
            session.engine.idle_step()
            steps += 1
        else:
            time.sleep(0.005)
    assert workspace.info().generation == 1
    assert steps < 100  # it waits without busy looping
    lock.unlink()
    assert wait(session, folder, 2).generation == 2


def test_long_checkout_is_waited_for_while_files_change(session, folder):
    subprocess.run(["git", "init", "-q", str(folder)], check=True, timeout=20)
    session.open(folder)
    workspace = session.engine.workspace(str(folder.resolve()))
    lock, past = folder / ".git" / "index.lock", time.time() - 200
    lock.write_text("")
    for path in (lock, folder / ".git" / "HEAD"):
        os.utime(path, (past, past))
    (folder / "pkg" / "m0.py").write_text("def half_way():\n    return 2\n")
    at_work(session, folder, lambda: workspace.info().message)
    assert "git is at work" in workspace.info().message
    until = time.monotonic() + 1.0
    at_work(session, folder, lambda: time.monotonic() > until)
    assert workspace.info().generation == 1
    lock.unlink()
    assert wait(session, folder, 2).message == ""


def test_first_index_waits_for_git_with_a_message_and_a_limit(settings, folder, monkeypatch):
    subprocess.run(["git", "init", "-q", str(folder)], check=True, timeout=20)
    lock, name, events = folder / ".git" / "index.lock", str(folder.resolve()), []
    lock.write_text("")
    with Session(settings, events.append) as session:
        session.engine.open_folder(wire.OpenFolder(folder=name, settings=settings))
        workspace = session.engine.workspace(name)
        until = time.monotonic() + 1.5
        assert at_work(session, folder, lambda: time.monotonic() > until) < 100
        info = workspace.info()
        assert (info.generation, info.files, info.state) == (0, 0, "indexing")
        assert "git is at work" in info.message
        tasks = [event.task for event in events if isinstance(event, wire.Progress)]
        assert tasks == ["waiting for git"]
        monkeypatch.setattr(reconcile_scheduler, "FIRST_WAIT_S", 0.1)
        info = wait(session, folder, 1)
        assert (info.files, info.message) == (12, "")
        assert changes(session)[0].trigger == "index"
        assert lock.exists()


def test_device_failure_is_reported_and_the_last_adapter_stays(session, folder, monkeypatch):
    session.open(folder)
    workspace = session.engine.workspace(str(folder.resolve()))
    adapter = workspace.live.adapter
    real = workspace._learner.network.embed_in_slices

    def failing(chunks):
        raise RuntimeError("CUDA error: out of memory\nand a long trace")

    monkeypatch.setattr(workspace._learner.network, "embed_in_slices", failing)
    (folder / "pkg" / "m0.py").write_text("def other():\n    return 2\n")
    deadline = time.monotonic() + 20
    while not any("out of memory" in trouble.message for trouble in troubles(session)):
        assert time.monotonic() < deadline
        if (due := workspace.due_in(time.monotonic())) is not None and due <= 0:
            session.engine.idle_step()
    assert workspace.live.adapter is adapter
    monkeypatch.setattr(workspace._learner.network, "embed_in_slices", real)
    workspace.regenerate()
    assert wait(session, folder, 2).state == "ready"


def test_device_failure_in_the_batched_update_does_not_end_the_engine(session, folder, monkeypatch):
    session.open(folder)
    workspace = session.engine.workspace(str(folder.resolve()))
    monkeypatch.setattr(workspace_adapter, "RETRY_S", 0.1)
    real, calls = workspace._learner.network.update_in_slices, []

    def failing(states, changes):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("out of memory, the first time")
        return real(states, changes)

    monkeypatch.setattr(workspace._learner.network, "update_in_slices", failing)
    (folder / "pkg" / "m0.py").write_text("def other():\n    return 2\n")
    assert wait(session, folder, 2).state == "ready"
    assert "the first time" in troubles(session)[0].message


def test_lost_device_ends_the_work(session, folder, monkeypatch):
    session.open(folder)
    workspace = session.engine.workspace(str(folder.resolve()))

    def lost(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(workspace._learner.network, "update_in_slices", lost)
    (folder / "pkg" / "m0.py").write_text("def other():\n    return 2\n")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        wait(session, folder, 2)


def test_adapter_that_produces_nan_is_withdrawn(accept_every_adapter, session, folder):
    session.open(folder)
    workspace = session.engine.workspace(str(folder.resolve()))
    bad = live(session, folder).adapter.scaled(1.0)
    bad.final_map.fill_(float("nan"))
    workspace.live = LiveAdapter(7, bad)
    answer = session.complete(question(folder))
    assert (answer.generation, answer.new_tokens) == (workspace.info().generation, 4)
    assert "produced NaN" in workspace.info().message
    assert [t.severity for t in troubles(session)] == ["error"]
    assert session.complete(question(folder, adapter=False)).texts == answer.texts


def test_model_that_produces_nan_is_reported(session, monkeypatch, tmp_path):
    from c2l_lsp.engine.completion.greedy import GreedySelector

    real = GreedySelector.select
    monkeypatch.setattr(GreedySelector, "select", lambda self, logits, *rest: real(self, logits * float("nan"), *rest))
    with pytest.raises(FloatingPointError, match="NaN"):
        session.complete(msgspec.structs.replace(question(tmp_path), folder=""))
    monkeypatch.setattr(GreedySelector, "select", real)
    session.engine._decoder.clear_cache()
    assert session.complete(msgspec.structs.replace(question(tmp_path), folder="")).new_tokens == 4
