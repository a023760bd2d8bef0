"""When state is saved: one warning for a failure, a later retry, a message when it works again. No model."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from c2l_lsp.engine import wire
from c2l_lsp.engine.adaptation import persistence
from c2l_lsp.engine.adaptation.persistence import Persistence
from c2l_lsp.engine.events import FolderEvents
from c2l_lsp.engine.storage import disk
from c2l_lsp.engine.storage.store import FolderStore
from c2l_lsp.errors import StorageError
from tests.support.store_builders import embedding, saved, state


class Owner:
    """Stands in for the learner: counts what is asked of it."""

    def __init__(self, pruned: bool = True) -> None:
        self.prunes = self.resumed = 0
        self.settled = True
        self._pruned = pruned

    def prune_cache(self) -> bool:
        self.prunes += 1
        return self._pruned

    def resume_cache(self) -> None:
        self.resumed += 1


@pytest.fixture
def events():
    return []


@pytest.fixture
def made(tmp_path, events):
    one = Persistence(
        "project", FolderStore(tmp_path / "states" / "folder"), FolderEvents(tmp_path / "project", events.append)
    )
    yield one
    one.close()


def said(events: list[wire.Trouble]) -> list[tuple[str, str]]:
    return [(trouble.severity, trouble.message) for trouble in events]


def written(one: Persistence, owner: Owner, generation: int) -> None:
    """Save a generation and wait for the write."""
    one.save(saved(generation), state(generation), {}, owner)
    deadline = time.monotonic() + 20
    while one.busy or not one.done:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    one.finish(owner)
    assert not one.done


def test_saved_state_can_be_loaded_and_the_cache_is_pruned_regularly(made, events):
    made.open()
    owner = Owner()
    for generation in (15, 16, 17):
        written(made, owner, generation)
    assert made.store.load()[0].generation == 17
    assert owner.prunes == 1
    assert (events, made.works, made.allowed) == ([], True, True)
    made.finish(owner)  # no write has ended since
    assert (owner.resumed, events) == (0, [])


def test_purge_ends_with_the_generation_that_replaces_the_deleted_ones(made):
    owner = Owner()
    written(made, owner, 1)
    made.purge()
    assert made.purge_pending
    assert made.store.load() is None
    written(made, owner, 2)
    assert (made.purge_pending, owner.prunes, made.store.purge_pending) == (False, 1, False)


def test_purge_stays_pending_if_the_cache_cannot_be_pruned(made):
    owner = Owner(pruned=False)
    made.purge()
    written(made, owner, 1)
    assert made.purge_pending
    assert made.store.purge_pending


def test_rules_that_exclude_every_file_leave_nothing_on_disk(made):
    made.store.cache.put({b"a": embedding(1)}, "rule")
    owner = Owner()
    written(made, owner, 1)
    made.purge_all()  # no purge is pending: the rules are the same, and the files may come back
    assert made.store.load_metadata() is not None
    made.purge()
    made.purge_all()
    assert (made.purge_pending, made.store.purge_pending, made.store.load_metadata()) == (False, False, None)
    assert made.store.cache.get([b"a"], "rule") == {}


def test_failed_write_is_reported_once_and_retried_later(made, events, monkeypatch):
    made.store.root.parent.write_text("a file where the folder should be")
    owner = Owner()
    made.open()
    ((severity, message),) = said(events)
    assert severity == "warning"
    assert "cannot be saved" in message
    assert not made.allowed  # not immediately
    made.purge()
    made.purge_all()
    written(made, owner, 1)
    assert made.purge_pending
    assert len(events) == 1
    monkeypatch.setattr(persistence, "RETRY_S", 0.05)
    made.failed(StorageError("once more"))
    time.sleep(0.1)
    assert made.allowed
    made.store.root.parent.unlink()
    written(made, owner, 2)
    assert said(events)[1:] == [("info", "The state of project is saved again.")]
    assert (made.works, owner.resumed) == (True, 1)


def test_nothing_is_saved_beside_another_server(made, events):
    other = FolderStore(made.store.root)
    assert other.acquire()
    try:
        made.open()
        assert said(events) == [("info", "Another server saves the state of project; this one does not.")]
        assert not made.allowed
    finally:
        other.close()


@pytest.mark.parametrize("how", ["clear", "purge"])
def test_waiting_write_is_discarded_too(made, monkeypatch, how):
    real, begun, may = disk.sync_directory, threading.Event(), threading.Event()

    def slow(directory: Path) -> None:
        begun.set()
        assert may.wait(20)
        real(directory)

    monkeypatch.setattr(disk, "sync_directory", slow)
    owner = Owner()
    made.save(saved(1), state(1), {}, owner)
    assert begun.wait(20)
    made.save(saved(2), state(2), {}, owner)
    getattr(made, how)()
    may.set()
    deadline = time.monotonic() + 20
    while made.busy:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert made.store.load() is None
    assert not list(made.store.root.glob("gen-*"))


def test_cache_is_cleaned_up_only_when_no_part_waits(made):
    """Embeddings of a part that was interrupted are in no state yet; they were deleted and computed again."""
    made.open()
    owner = Owner()
    owner.settled = False
    written(made, owner, 16)
    made.finish(owner)
    assert owner.prunes == 0
    owner.settled = True
    written(made, owner, 32)
    assert owner.prunes == 1
