"""A folder's texts reach the drafts behind everything else, follow edits and unsaved buffers, and leave with it."""

from __future__ import annotations

import time
from pathlib import Path

from c2l_lsp.engine.session import Session

NEW = "\n\nzebra_crossing_light = giraffe_neck_length + zebra_crossing_light\n"


def settled(session: Session, folder: Path, done) -> bool:
    """Work as the scheduler does until something is true of the folder's hoard."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if done(session.engine._hoards[str(folder)]):
            return True
        due = session.engine.due_in()
        if due is not None and due <= 0:
            session.engine.idle_step()
        else:
            time.sleep(0.01)
    return False


def test_texts_are_known_when_nothing_else_is_due_and_follow_changes(session: Session, folder: Path):
    session.open(folder)
    engine, path = session.engine, folder / "pkg" / "m3.py"
    run = engine.model.encode(NEW)[-12:]
    assert settled(session, folder, lambda hoard: hoard.size > 1000)
    assert engine._hoards[str(folder)].continuation(run[:3], 4) == []
    path.write_text(path.read_text() + NEW)
    engine.workspace(str(folder)).regenerate()
    assert settled(session, folder, lambda hoard: hoard.after(run[:3], 4) == run[3:7])
    engine.workspace(str(folder)).set_buffer("pkg/m3.py", "x = 1\n")  # unsaved: it is not there any more
    assert settled(session, folder, lambda hoard: hoard.after(run[:3], 4) == [])
    engine.close_folder(str(folder))
    assert engine._hoards == {}
    assert engine.due_in() is None
