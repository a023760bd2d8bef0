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


class Learner:
    """Stands where what learns does."""

    def __init__(self) -> None:
        self.purge = False
        self.prunes = self.resumed = 0

    def prune(self) -> bool:
        self.prunes += 1
        return True

    def resume_keeping(self) -> None:
        self.resumed += 1


@pytest.fixture
def told():
    return []


@pytest.fixture
def made(tmp_path, told):
    one = Persistence("project", FolderStore(tmp_path / "state"), True, FolderEvents(tmp_path / "project", told.append))
    yield one
    one.end()


def said(told: list[wire.Trouble]) -> list[tuple[str, str]]:
    return [(trouble.severity, trouble.message) for trouble in told]


def written(one: Persistence, learner: Learner, generation: int) -> None:
    """Keep a generation and wait for it."""
    one.keep(learner, saved(generation), state(generation), {})
    deadline = time.monotonic() + 20
    while one.busy or not one.done:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    one.settle(learner)
    assert not one.done


def test_what_is_kept_can_be_read_and_readings_are_pruned_now_and_then(made, told):
    made.begin()
    learner = Learner()
    for generation in (15, 16, 17):
        written(made, learner, generation)
    assert made.store.load()[0].generation == 17
    assert learner.prunes == 1
    assert (told, made.works, made.may) == ([], True, True)
    made.settle(learner)  # nothing was written since
    assert (learner.resumed, told) == (0, [])


def test_a_purge_ends_with_the_generation_that_takes_the_place_of_what_went(made):
    learner = Learner()
    written(made, learner, 1)
    learner.purge = True
    made.purge()
    assert made.store.load() is None
    written(made, learner, 2)
    assert (learner.purge, learner.prunes, made.store.purge_pending) == (False, 1, False)


def test_a_purge_that_cannot_prune_goes_on(made):
    learner = Learner()
    learner.purge, learner.prune = True, lambda: False
    made.purge()
    written(made, learner, 1)
    assert learner.purge
    assert made.store.purge_pending


def test_rules_that_leave_nothing_leave_nothing_on_the_disk(made):
    made.store.cache.put({b"a": embedding(1)}, "rule")
    learner = Learner()
    written(made, learner, 1)
    made.nothing(learner)  # the rules are the same: the files may come back
    assert made.store.load_metadata() is not None
    learner.purge = True
    made.nothing(learner)
    assert (learner.purge, made.store.purge_pending, made.store.load_metadata()) == (False, False, None)
    assert made.store.cache.get([b"a"], "rule") == {}


def test_what_cannot_be_kept_is_told_once_and_tried_again_later(made, told, monkeypatch):
    made.store.root.write_text("a file where the folder should be")
    learner = Learner()
    made.begin()
    ((severity, message),) = said(told)
    assert severity == "warning"
    assert "cannot be saved" in message
    assert not made.may  # not at once
    learner.purge = True
    made.purge()
    made.nothing(learner)
    written(made, learner, 1)
    assert learner.purge
    assert len(told) == 1
    monkeypatch.setattr(persistence, "KEEP_AGAIN_S", 0.05)
    made.failed(StorageError("once more"))
    time.sleep(0.1)
    assert made.may
    made.store.root.unlink()
    written(made, learner, 2)
    assert said(told)[1:] == [("info", "What is learned of project is kept again.")]
    assert (made.works, learner.resumed) == (True, 1)


def test_beside_another_server_nothing_is_kept(made, told):
    other = FolderStore(made.store.root)
    assert other.acquire()
    try:
        made.begin()
        assert said(told) == [("info", "Another server keeps what is learned of project; this one does not.")]
        assert not made.may
    finally:
        other.close()


def test_of_a_folder_that_is_not_trusted_nothing_is_ever_kept(tmp_path: Path):
    one = Persistence("project", FolderStore(tmp_path / "state"), False, FolderEvents(tmp_path, lambda event: None))
    assert (one.cache, one.may, one.works) == (None, False, False)
    one.end()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("how", ["clear", "purge"])
def test_what_waits_to_be_written_is_forgotten_too(made, monkeypatch, how):
    real, begun, may = disk.sync_directory, threading.Event(), threading.Event()

    def slow(directory: Path) -> None:
        begun.set()
        assert may.wait(20)
        real(directory)

    monkeypatch.setattr(disk, "sync_directory", slow)
    learner = Learner()
    made.keep(learner, saved(1), state(1), {})
    assert begun.wait(20)
    made.keep(learner, saved(2), state(2), {})
    getattr(made, how)()
    may.set()
    deadline = time.monotonic() + 20
    while made.busy:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert made.store.load() is None
    assert not list(made.store.root.glob("gen-*"))


def test_the_same_trouble_is_told_again_after_all_was_well(tmp_path: Path, told):
    telling = FolderEvents(tmp_path, told.append)
    for _ in range(2):
        telling.warn_once(StorageError("full"))
    telling.warn_once(StorageError("fuller"))
    telling.clear_warnings()
    telling.warn_once(StorageError("full"))
    assert [trouble.message for trouble in told] == ["full", "fuller", "full"]
    assert {(trouble.folder, trouble.code, trouble.severity) for trouble in told} == {
        (str(tmp_path), "storage", "warning")
    }
