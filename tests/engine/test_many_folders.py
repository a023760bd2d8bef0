"""More open folders than are active at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from c2l_lsp.engine import engine as engine_module
from c2l_lsp.engine import wire
from c2l_lsp.engine.session import Session
from c2l_lsp.errors import RequestError


def test_the_least_recently_used_folders_are_suspended_and_resumed(
    session: Session, tmp_path: Path, monkeypatch, sources
):
    monkeypatch.setattr(engine_module, "MAX_FOLLOWED", 2)
    names = []
    for number in range(4):
        root = (tmp_path / f"f{number}").resolve()
        root.mkdir()
        (root / "a.py").write_text(sources[number], encoding="utf-8")
        names.append(str(root))
        session.open(root)
    engine = session.engine
    assert list(engine._followed) == names[2:]
    assert [info.folder for info in engine.status().folders] == [*names[2:], *names[:2]]
    suspended = [e.folder for e in session.events if isinstance(e, wire.Trouble)]
    assert suspended == names[:2]
    assert {e.severity for e in session.events if isinstance(e, wire.Trouble)} == {"info"}
    engine.workspace(names[2]).set_buffer("b.py", "value = 1\n")
    engine.workspace(names[2]).set_enabled(False)
    resumed = engine.workspace(names[0])  # as a completion does
    assert resumed.info().generation == 1  # loaded from disk, not indexed again
    assert list(engine._followed) == [names[2], names[0]]
    engine.workspace(names[1])
    assert resumed.info().enabled
    assert engine.workspace(names[2]).buffers == {"b.py": "value = 1\n"}
    assert not engine.workspace(names[2]).info().enabled, "a resumed folder must keep its adapter off"
    for name in names:
        engine.close_folder(name)
    assert not engine._followed
    assert not engine._sleeping
    with pytest.raises(RequestError, match="not open"):
        engine.workspace(names[0])
