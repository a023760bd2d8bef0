"""When a folder is compared with the disk: hints, regular comparisons, and waiting for git. Real files, no model."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from c2l_lsp.engine.adaptation import reconcile_scheduler
from c2l_lsp.engine.adaptation.reconcile_scheduler import ReconcileRequest, ReconcileScheduler
from c2l_lsp.repo.filter.files import FileFilter


@pytest.fixture
def events():
    return []


@pytest.fixture
def made(folder, settings, events):
    scheduler = ReconcileScheduler(folder, settings, events.append)
    yield scheduler
    scheduler.stop()


def now(scheduler: ReconcileScheduler, timeout_s: float = 20.0) -> float:
    """Wait until a comparison is due."""
    deadline = time.monotonic() + timeout_s
    while scheduler.due_in(time.monotonic()) > 0:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return time.monotonic()


def test_first_request_is_for_all_files_and_the_next_for_hinted_ones(made):
    assert made.next_request(now(made), first=True) == ReconcileRequest(None)
    assert reconcile_scheduler.RECONCILE_S - 5 < made.due_in(time.monotonic()) <= reconcile_scheduler.RECONCILE_S
    made.hint("pkg/m1.py")
    made.hint("pkg/m2.py")
    assert made.hinted == 2
    assert made.due_in(time.monotonic()) <= 0.2
    assert made.next_request(now(made), first=False) == ReconcileRequest(frozenset({"pkg/m1.py", "pkg/m2.py"}))
    assert made.hinted == 0


def test_full_comparison_takes_precedence_over_hints(made, monkeypatch):
    monkeypatch.setattr(reconcile_scheduler, "RECONCILE_S", 0.1)
    made.next_request(now(made), first=True)
    made.hint("pkg/m1.py")
    time.sleep(0.15)
    assert made.next_request(time.monotonic(), first=False) == ReconcileRequest(None)


def test_comparison_can_be_requested_earlier_but_not_later(made):
    made.next_request(now(made), first=True)
    made.soon(60)
    assert 55 < made.due_in(time.monotonic()) <= 60
    made.soon(90)
    assert made.due_in(time.monotonic()) <= 60
    made.soon()
    assert made.due_in(time.monotonic()) <= 0


@pytest.fixture
def lock(folder: Path) -> Path:
    """The lock that git takes before it writes files."""
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    path = folder / ".git" / "index.lock"
    path.write_text("")
    return path


def test_hints_wait_while_git_writes(made, lock):
    made.hint("pkg/m1.py")
    due = now(made)
    assert made.next_request(due, first=False) is None
    assert made.waits
    assert made.hinted == 1
    assert 0.4 < made._next_full - due < 0.6  # soon, but not at once
    lock.unlink()
    time.sleep(0.5)
    assert made.next_request(now(made), first=False) == ReconcileRequest(None)
    assert not made.waits


def test_only_the_first_index_has_a_limit_for_waiting(made, lock, monkeypatch):
    assert made.next_request(now(made), first=True) is None
    monkeypatch.setattr(reconcile_scheduler, "FIRST_WAIT_S", 0.1)
    due = now(made)
    assert made.next_request(due, first=False) is None
    assert made.next_request(now(made), first=True) == ReconcileRequest(None)
    assert lock.exists()


def test_changes_become_hints_and_a_restored_folder_is_watched_again(made, folder, settings, events):
    assert made.filter is None
    made.start(FileFilter(folder, settings.files))
    assert not made.filter.is_ignored("pkg/m1.py")
    made.next_request(now(made), first=True)
    (folder / "pkg" / "m1.py").write_text("a = 1\n")
    due_request = made.next_request(now(made), first=False)
    assert due_request is not None
    assert due_request.paths is None or "pkg/m1.py" in due_request.paths
    aside = folder.with_name("aside")
    folder.rename(aside)
    deadline = time.monotonic() + 20
    while made._watcher.alive:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    made._watch()
    assert "no longer exists" in str(events[-1])
    aside.rename(folder)
    made.soon()
    made.next_request(now(made), first=False)  # a full comparison restarts the watcher
    assert made._watcher.alive
