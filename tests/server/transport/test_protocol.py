"""The editor contract: every command and request has an operation; payloads and parameters."""

from __future__ import annotations

import pytest

from c2l_lsp.errors import RequestError
from c2l_lsp.server import commands
from c2l_lsp.server.transport.protocol import (
    BUSY,
    CLIENT_COMMANDS,
    KIND,
    Command,
    ExportParams,
    FolderParams,
    Latency,
    Method,
    State,
    Status,
    ToggleParams,
    parse,
    plain,
)

CONTRACT = """triggerCompletion, toggle, toggleLanguage, snooze, showMenu, showStatus, showStatistics, showReport,
regenerateAdapter, resetAdapter, exportAdapter, deepenAdapter, toggleAdapter, selectModel,
unloadModel, restartServer, showLogs"""


def test_commands_are_those_of_the_contract() -> None:
    named = {f"c2l.{name.strip()}" for name in CONTRACT.split(",")} | {"c2l.didAcceptCompletion"}
    assert {command.value for command in Command} | set(CLIENT_COMMANDS) == named


def test_every_command_and_request_has_an_operation() -> None:
    assert set(commands.REQUESTS) == set(Method)
    assert set(commands.COMMANDS) == set(Command)


def test_status_payload() -> None:
    status = Status(kind="Normal", busy=False, message="Ready.", state=State.READY, latency_ms=Latency(p50=1.0))
    assert plain(status) == {
        "kind": "Normal",
        "busy": False,
        "message": "Ready.",
        "state": "ready",
        "model": None,
        "device": "",
        "adapter": None,
        "latencyMs": {"p50": 1.0, "p95": 0.0},
    }
    assert not BUSY & KIND.keys()


def test_parameters_are_validated_and_unknown_ones_ignored() -> None:
    found = parse({"folder": "file:///w", "textDocument": {"uri": "u", "version": 3}, "later": 1}, FolderParams)
    assert (found.folder, found.text_document.uri) == ("file:///w", "u")
    assert parse(None, ToggleParams) == ToggleParams()
    assert parse([], ToggleParams) == ToggleParams()  # an empty Lua table
    with pytest.raises(RequestError, match=r"\$\.rank"):
        parse({"rank": "8"}, ExportParams)
    with pytest.raises(RequestError):
        parse([1], ToggleParams)
