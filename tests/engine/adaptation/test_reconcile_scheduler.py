"""When a folder is looked at: hints, the comparison now and then, and git's quiet. Real files; no model."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from c2l_lsp.engine.adaptation import reconcile_scheduler
from c2l_lsp.engine.adaptation.reconcile_scheduler import ReconcileRequest, ReconcileScheduler
from c2l_lsp.repo.filter.files import FileFilter


@pytest.fixture
def told():
    return []


@pytest.fixture
def made(folder, settings, told):
    attending = ReconcileScheduler(folder, settings, told.append)
    yield attending
    attending.stop()


def now(attending: ReconcileScheduler, timeout_s: float = 20.0) -> float:
    """Wait until a look is due."""
    deadline = time.monotonic() + timeout_s
    while attending.due_in(time.monotonic()) > 0:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return time.monotonic()


def test_the_first_look_is_at_everything_and_the_next_at_what_was_hinted(made):
    assert made.next_request(now(made), first=True) == ReconcileRequest(None)
    assert reconcile_scheduler.RECONCILE_S - 5 < made.due_in(time.monotonic()) <= reconcile_scheduler.RECONCILE_S
    made.hint("pkg/m1.py")
    made.hint("pkg/m2.py")
    assert made.hinted == 2
    assert made.due_in(time.monotonic()) <= 0.2
    assert made.next_request(now(made), first=False) == ReconcileRequest(frozenset({"pkg/m1.py", "pkg/m2.py"}))
    assert made.hinted == 0


def test_everything_is_compared_when_that_is_due_whatever_was_hinted(made, monkeypatch):
    monkeypatch.setattr(reconcile_scheduler, "RECONCILE_S", 0.1)
    made.next_request(now(made), first=True)
    made.hint("pkg/m1.py")
    time.sleep(0.15)
    assert made.next_request(time.monotonic(), first=False) == ReconcileRequest(None)


def test_a_look_can_be_asked_for_and_is_never_put_off_by_that(made):
    made.next_request(now(made), first=True)
    made.soon(60)
    assert 55 < made.due_in(time.monotonic()) <= 60
    made.soon(90)
    assert made.due_in(time.monotonic()) <= 60
    made.soon()
    assert made.due_in(time.monotonic()) <= 0


@pytest.fixture
def lock(folder: Path) -> Path:
    """Git's lock, as it takes it before it writes files."""
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    path = folder / ".git" / "index.lock"
    path.write_text("")
    return path


def test_while_git_is_at_work_hints_wait(made, lock):
    made.hint("pkg/m1.py")
    due = now(made)
    assert made.next_request(due, first=False) is None
    assert made.waits
    assert made.hinted == 1
    assert 0.4 < made._next_full - due < 0.6  # it is looked again soon, not at once
    lock.unlink()
    time.sleep(0.5)
    assert made.next_request(now(made), first=False) == ReconcileRequest(None)
    assert not made.waits


def test_only_the_first_index_does_not_wait_for_ever(made, lock, monkeypatch):
    assert made.next_request(now(made), first=True) is None
    monkeypatch.setattr(reconcile_scheduler, "FIRST_WAIT_S", 0.1)
    due = now(made)
    assert made.next_request(due, first=False) is None
    assert made.next_request(now(made), first=True) == ReconcileRequest(None)
    assert lock.exists()


def test_changes_on_disk_are_hints_and_a_folder_that_came_back_is_watched_again(made, folder, settings, told):
    assert made.filter is None
    made.start(FileFilter(folder, settings.files))
    assert not made.filter.is_ignored("pkg/m1.py")
    made.next_request(now(made), first=True)
    (folder / "pkg" / "m1.py").write_text("a = 1\n")
    look = made.next_request(now(made), first=False)
    assert look is not None
    assert look.paths is None or "pkg/m1.py" in look.paths
    aside = folder.with_name("aside")
    folder.rename(aside)
    deadline = time.monotonic() + 20
    while made._watcher.alive:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    made._watch()
    assert "not there any more" in str(told[-1])
    aside.rename(folder)
    made.soon()
    made.next_request(now(made), first=False)  # a look at everything begins to watch again
    assert made._watcher.alive
