"""The response to `initialize`, and that the server supports what it announces."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pygls.protocol import default_converter

from c2l_lsp.server import commands, features, notebook_features
from c2l_lsp.server.session import Session
from c2l_lsp.server.transport.initialize import initialize_result, parse_initialize, position_encoding
from c2l_lsp.server.transport.rpc import Server

INLINE = {"textDocument": {"inlineCompletion": {}}}


def params(capabilities: dict, options: object = None) -> dict[str, Any]:
    return {"capabilities": capabilities, "processId": None, "rootUri": None, "initializationOptions": options}


def body(**message: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode()


@pytest.mark.parametrize(
    "client",
    [
        {},
        INLINE,
        {"notebookDocument": {"synchronization": {}}},
        {"general": {"positionEncodings": ["utf-8", "utf-16"]}},
    ],
)
def test_capabilities_equal_those_that_pygls_computes(client: dict) -> None:
    """Everything announced is registered, and everything registered is announced."""
    server = Server()
    session = Session(server.protocol.send_notification, server.create_progress)
    features.register(server, session)
    notebook_features.register(server, session)
    commands.register(server, session)
    server.protocol.receive(body(id=1, method="initialize", params=params(client)))
    theirs = default_converter().unstructure(server.server_capabilities)
    theirs["workspace"].pop("fileOperations", None)
    if "textDocument" in client:
        del theirs["completionProvider"]
    assert initialize_result(params(client))["capabilities"] == theirs


def test_client_with_inline_completion_is_offered_no_popup_completion() -> None:
    assert "completionProvider" not in initialize_result(params(INLINE))["capabilities"]
    assert "completionProvider" in initialize_result(params({}))["capabilities"]
    assert initialize_result(params({}))["capabilities"]["inlineCompletionProvider"] == {}


def test_commands_of_the_client_are_not_announced() -> None:
    own = {"clientCommands": ["c2l.toggle"]}
    listed = initialize_result(params({}, own))["capabilities"]["executeCommandProvider"]["commands"]
    assert "c2l.toggle" not in listed
    assert "c2l.snooze" in listed


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["utf-8", "utf-16"], "utf-8"),
        (["utf-32"], "utf-32"),
        (["utf-7"], "utf-16"),
        ([], "utf-16"),
        (None, "utf-16"),
        (8, "utf-16"),
        ([{}, None, "utf-8"], "utf-8"),
    ],
)
def test_position_encoding(offered: object, chosen: str) -> None:
    assert position_encoding(offered) == chosen


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"nonsense",
        b"[" * 100_000,
        b"[]",
        body(id=1, method="shutdown"),
        body(method="initialize", params={"capabilities": {}}),
        body(id=True, method="initialize", params={"capabilities": {}}),
        body(id=1, method="initialize", params=[]),
        body(id=1, method="initialize", params={}),
        b'{"id": 1, "method": "initialize", "params": {"capabilities": {}}}',
    ],
)
def test_other_first_messages_are_left_to_pygls(first: bytes) -> None:
    assert parse_initialize(first) is None


def test_malformed_options_are_tolerated() -> None:
    for options in (1, [], "x", {"clientCommands": "c2l.toggle"}, {"clientCommands": [{}]}):
        assert parse_initialize(
            body(id="a", method="initialize", params=params({"general": 3, "textDocument": []}, options))
        )


async def test_initialize_answered_before_is_not_answered_again() -> None:
    class Sink:
        def write(self, data: bytes) -> None:
            raise AssertionError(data)

        def close(self) -> None: ...

    server = Server(asyncio.Event())
    server.protocol.set_writer(Sink())
    server.protocol.answered_initialize_id = 1
    server.protocol.receive(body(id=1, method="initialize", params=params({})))
    assert not server.protocol.ended.is_set()
    server = Server(asyncio.Event())
    server.protocol.answered_initialize_id = 1
    server.protocol.receive(body(id=1, method="initialize", params=params({"textDocument": 5})))
    assert server.protocol.ended.is_set()
    assert server.protocol.exit_code == 1
