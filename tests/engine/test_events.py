"""Events of one folder."""

from __future__ import annotations

from pathlib import Path

from c2l_lsp.engine import wire
from c2l_lsp.engine.events import FolderEvents
from c2l_lsp.errors import StorageError


def test_a_warning_is_sent_again_only_after_clear_warnings(tmp_path: Path):
    sent: list[wire.Trouble] = []
    events = FolderEvents(tmp_path, sent.append)
    for _ in range(2):
        events.warn_once(StorageError("full"))
    events.warn_once(StorageError("fuller"))
    events.clear_warnings()
    events.warn_once(StorageError("full"))
    assert [warning.message for warning in sent] == ["full", "fuller", "full"]
    assert {(warning.folder, warning.code, warning.severity) for warning in sent} == {
        (str(tmp_path), "storage", "warning")
    }
