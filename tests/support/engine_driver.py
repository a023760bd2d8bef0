"""Drives an in-process engine step by step and reads its events."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from c2l_lsp.engine import wire
from c2l_lsp.engine.adaptation.adapter_state import LiveAdapter
from c2l_lsp.engine.session import Session


def changes(session: Session) -> list[wire.AdapterChanged]:
    return [event for event in session.events if isinstance(event, wire.AdapterChanged)]


def troubles(session: Session) -> list[wire.Trouble]:
    return [event for event in session.events if isinstance(event, wire.Trouble)]


def live(session: Session, folder: Path) -> LiveAdapter:
    return session.engine.workspace(str(folder.resolve())).live


def wait(session: Session, folder: Path, generation: int, timeout_s: float = 30.0) -> wire.AdapterInfo:
    """Run the engine until a generation is live."""
    workspace = session.engine.workspace(str(folder.resolve()))
    deadline = time.monotonic() + timeout_s
    while workspace.info().generation < generation or workspace.pending:
        assert time.monotonic() < deadline, workspace.info()
        due = workspace.due_in(time.monotonic())
        if due is None or due > 0:
            time.sleep(0.01)
        else:
            session.engine.idle_step()
    return workspace.info()


def at_work(session: Session, folder: Path, holds: Callable[[], object], timeout_s: float = 30.0) -> int:
    """Run the engine until `holds()` is true; the number of steps."""
    steps, deadline = 0, time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        due = session.engine.due_in()
        if due is not None and due <= 0:
            session.engine.idle_step()
            steps += 1
        else:
            time.sleep(0.005)
    return steps


def question(folder: Path, **changes: Any) -> wire.Complete:
    plain: dict[str, Any] = {"folder": str(folder.resolve()), "path": "pkg/new.py", "language": "python", "suffix": ""}
    return wire.Complete(**{**plain, "prefix": "def f(a):\n    return ", "max_new_tokens": 4, **changes})
