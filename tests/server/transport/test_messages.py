"""Which messages pop up: by level, each problem once."""

from __future__ import annotations

from pathlib import Path

import pytest

from c2l_lsp.config import Settings, load_user, merge
from c2l_lsp.errors import FolderError, ModelError, SettingError, Severity
from c2l_lsp.server.transport.messages import Messages


@pytest.mark.parametrize(("level", "shown"), [("off", 0), ("onError", 2), ("onWarning", 3), ("always", 4)])
def test_popups_by_notification_level(level: str, shown: int) -> None:
    sent: list[tuple[str, dict]] = []
    messages = Messages(lambda method, params: sent.append((method, params)), lambda: level)
    for _ in range(3):
        messages.error(ModelError("No model."))
        messages.error(SettingError("No such key."))
        messages.error(FolderError("No such folder."))
        messages.error(FolderError("For information."), Severity.INFO)
    assert [method for method, _ in sent].count("window/showMessage") == shown
    assert [method for method, _ in sent].count("window/logMessage") == 12


def test_structured_problem_names_setting_and_file(tmp_path: Path) -> None:
    sent: list[tuple[str, dict]] = []
    messages = Messages(lambda method, params: sent.append((method, params)), lambda: "onError")
    messages.structured = True
    file = tmp_path / "config.toml"
    file.write_text("[completion]\ncolour = 1\n", encoding="utf-8")
    wrong = merge(Settings(), {"model.id": "x"}, source="the workspace settings", machine=False)[1] + load_user(file)[1]
    for error in [*wrong, ModelError("No model.")]:
        messages.error(error)
    problems = [params for method, params in sent if method == "c2l/problem"]
    assert [(one["code"], one["severity"], one["setting"], one["file"]) for one in problems] == [
        ("setting", "warning", "c2l.model.id", ""),
        ("setting", "warning", "c2l.completion.colour", str(file)),
        ("model", "error", "", ""),
    ]
    assert "window/showMessage" not in [method for method, _ in sent]
