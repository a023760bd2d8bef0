"""A slow disk: completions, edits and the status do not wait for it, and nothing is lost."""

from __future__ import annotations

import os
import threading
import time

import pytest

from c2l_lsp.engine import wire
from c2l_lsp.engine.session import Session
from tests.support.engine_loop import run_until


class SlowDisk:
    """An fsync that waits for `may`."""

    def __init__(self) -> None:
        self.may, self.waits = threading.Event(), threading.Event()
        self._real = os.fsync

    def fsync(self, descriptor: int) -> None:
        if not self.may.is_set():
            self.waits.set()
            self.may.wait(60)
        self._real(descriptor)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch):
    made = SlowDisk()
    monkeypatch.setattr(os, "fsync", made.fsync)
    yield made
    made.may.set()


def request(folder, **changes) -> wire.Complete:
    plain = {"folder": str(folder.resolve()), "path": "pkg/new.py", "language": "python", "suffix": ""}
    return wire.Complete(**{**plain, "prefix": "def f(a):\n    return ", "max_new_tokens": 2, **changes})


def test_completions_and_updates_do_not_wait_for_a_save(accept_every_adapter, settings, folder, slow):
    name = str(folder.resolve())
    with Session(settings) as session:
        session.engine.open_folder(wire.OpenFolder(folder=name, settings=settings))
        workspace = session.engine.workspace(name)
        longest = 0.0

        run_until(session, slow.waits.is_set, 40)
        for generation in (1, 2, 3):  # updates go on too
            run_until(session, lambda want=generation: workspace.info().generation == want, 40)
            started = time.monotonic()
            answer = session.complete(request(folder))
            longest = max(longest, time.monotonic() - started)
            assert (answer.generation, answer.new_tokens) == (generation, 2)
            assert (workspace.info().state, workspace.info().message) == ("ready", "")
            assert workspace.pending  # not saved yet
            (folder / "pkg" / "m0.py").write_text(f"def other_{generation}():\n    return {generation}\n" * 3)
        run_until(session, lambda: workspace.info().generation == 4, 40)
        assert not slow.may.is_set()
        assert longest < 20  # a save would have taken until the end of the test
        assert workspace._persistence.store.load() is None
        slow.may.set()
        session.run_until_idle(name)
        assert not [event for event in session.events if isinstance(event, wire.Trouble)]
        assert workspace._persistence.store.load()[0].generation == 4  # the waiting ones were replaced
    with Session(settings) as again:
        assert again.open(folder).generation == 4


def test_closing_a_folder_returns_soon_and_releases_the_lock_after_the_write(
    accept_every_adapter, settings, folder, slow
):
    name = str(folder.resolve())
    with Session(settings) as session:
        session.engine.open_folder(wire.OpenFolder(folder=name, settings=settings))
        workspace = session.engine.workspace(name)
        while not slow.waits.is_set():
            session.engine.idle_step()
        started = time.monotonic()
        session.engine.close_folder(name)
        assert time.monotonic() - started < 10
        assert workspace._persistence.store.lock.held
        slow.may.set()
        deadline = time.monotonic() + 30
        while workspace._persistence.store.lock.held:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert workspace._persistence.store.load_metadata().generation == 1


def test_a_failed_save_is_reported_once(accept_every_adapter, settings, folder, monkeypatch):
    real, left = os.fsync, [3]

    def failing(descriptor: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with Session(settings) as session:
        session.open(folder)
        warnings = [event for event in session.events if isinstance(event, wire.Trouble)]
        assert [(warning.code, warning.severity) for warning in warnings] == [("storage", "warning")]
        assert "No space left" in warnings[0].message
