"""What a folder does about keeping: told once, tried again after a while, told when it works again. No model."""

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
        self._pruned = pruned

    def prune_cache(self) -> bool:
        self.prunes += 1
        return self._pruned

    def resume_cache(self) -> None:
        self.resumed += 1


@pytest.fixture
def told():
    return []


@pytest.fixture
def made(tmp_path, told):
    one = Persistence("project", FolderStore(tmp_path / "state"), FolderEvents(tmp_path / "project", told.append))
    yield one
    one.close()


def said(told: list[wire.Trouble]) -> list[tuple[str, str]]:
    return [(trouble.severity, trouble.message) for trouble in told]


def written(one: Persistence, owner: Owner, generation: int) -> None:
    """Keep a generation and wait for it."""
    one.save(saved(generation), state(generation), {}, owner)
    deadline = time.monotonic() + 20
    while one.busy or not one.done:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    one.finish(owner)
    assert not one.done


def test_what_is_kept_can_be_read_and_readings_are_pruned_now_and_then(made, told):
    made.open()
    owner = Owner()
    for generation in (15, 16, 17):
        written(made, owner, generation)
    assert made.store.load()[0].generation == 17
    assert owner.prunes == 1
    assert (told, made.works, made.allowed) == ([], True, True)
    made.finish(owner)  # nothing was written since
    assert (owner.resumed, told) == (0, [])


def test_a_purge_ends_with_the_generation_that_takes_the_place_of_what_went(made):
    owner = Owner()
    written(made, owner, 1)
    made.purge()
    assert made.purge_pending
    assert made.store.load() is None
    written(made, owner, 2)
    assert (made.purge_pending, owner.prunes, made.store.purge_pending) == (False, 1, False)


def test_a_purge_that_cannot_prune_goes_on(made):
    owner = Owner(pruned=False)
    made.purge()
    written(made, owner, 1)
    assert made.purge_pending
    assert made.store.purge_pending


def test_rules_that_leave_nothing_leave_nothing_on_the_disk(made):
    made.store.cache.put({b"a": embedding(1)}, "rule")
    owner = Owner()
    written(made, owner, 1)
    made.purge_all()  # no purge is pending: the rules are the same, and the files may come back
    assert made.store.load_metadata() is not None
    made.purge()
    made.purge_all()
    assert (made.purge_pending, made.store.purge_pending, made.store.load_metadata()) == (False, False, None)
    assert made.store.cache.get([b"a"], "rule") == {}


def test_what_cannot_be_kept_is_told_once_and_tried_again_later(made, told, monkeypatch):
    made.store.root.write_text("a file where the folder should be")
    owner = Owner()
    made.open()
    ((severity, message),) = said(told)
    assert severity == "warning"
    assert "cannot be saved" in message
    assert not made.allowed  # not at once
    made.purge()
    made.purge_all()
    written(made, owner, 1)
    assert made.purge_pending
    assert len(told) == 1
    monkeypatch.setattr(persistence, "RETRY_S", 0.05)
    made.failed(StorageError("once more"))
    time.sleep(0.1)
    assert made.allowed
    made.store.root.unlink()
    written(made, owner, 2)
    assert said(told)[1:] == [("info", "The state of project is saved again.")]
    assert (made.works, owner.resumed) == (True, 1)


def test_beside_another_server_nothing_is_kept(made, told):
    other = FolderStore(made.store.root)
    assert other.acquire()
    try:
        made.open()
        assert said(told) == [("info", "Another server saves the state of project; this one does not.")]
        assert not made.allowed
    finally:
        other.close()


@pytest.mark.parametrize("how", ["clear", "purge"])
def test_what_waits_to_be_written_is_forgotten_too(made, monkeypatch, how):
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
