"""What pops up: by level, once per problem."""

from __future__ import annotations

import pytest

from c2l_lsp.errors import ModelError, SettingError, Severity
from c2l_lsp.server.messages import Messages


@pytest.mark.parametrize(("level", "shown"), [("off", 0), ("onError", 1), ("onWarning", 2), ("always", 3)])
def test_levels(level: str, shown: int) -> None:
    sent: list[tuple[str, dict]] = []
    messages = Messages(lambda method, params: sent.append((method, params)), lambda: level)
    for _ in range(3):
        messages.error(ModelError("No model."))
        messages.error(SettingError("No such key."))
        messages.tell(Severity.INFO, "By the way.")
    assert [method for method, _ in sent].count("window/showMessage") == shown
    assert [method for method, _ in sent].count("window/logMessage") == 9
