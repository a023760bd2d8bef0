"""What is answered to `initialize` at once, and that it is what the server then does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pygls.protocol import default_converter

from c2l_lsp.server import commands, features
from c2l_lsp.server.session import Session
from c2l_lsp.server.transport.greeting import early, encoding, result
from c2l_lsp.server.transport.rpc import Server

INLINE = {"textDocument": {"inlineCompletion": {}}}


def params(capabilities: dict, options: object = None) -> dict[str, Any]:
    return {"capabilities": capabilities, "processId": None, "rootUri": None, "initializationOptions": options}


def body(**message: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode()


@pytest.mark.parametrize("client", [{}, INLINE, {"general": {"positionEncodings": ["utf-8", "utf-16"]}}])
def test_pygls_would_say_the_same(client: dict) -> None:
    """Everything claimed is registered, and everything registered is claimed."""
    server = Server()
    session = Session(server.protocol.tell, server.create_bar)
    features.register(server, session)
    commands.register(server, session)
    server.protocol.receive(body(id=1, method="initialize", params=params(client)))
    theirs = default_converter().unstructure(server.server_capabilities)
    theirs["workspace"].pop("fileOperations", None)
    if "textDocument" in client:
        del theirs["completionProvider"]
    assert result(params(client))["capabilities"] == theirs


def test_a_client_with_inline_completion_is_offered_no_popup() -> None:
    assert "completionProvider" not in result(params(INLINE))["capabilities"]
    assert "completionProvider" in result(params({}))["capabilities"]
    assert result(params({}))["capabilities"]["inlineCompletionProvider"] == {}


def test_commands_of_the_client_are_not_advertised() -> None:
    own = {"clientCommands": ["c2l.toggle"]}
    listed = result(params({}, own))["capabilities"]["executeCommandProvider"]["commands"]
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
def test_encodings(offered: object, chosen: str) -> None:
    assert encoding(offered) == chosen


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
def test_what_is_no_sound_initialize_is_left_to_the_protocol(first: bytes) -> None:
    assert early(first) is None


def test_odd_options_do_not_hinder_the_greeting() -> None:
    for odd in (1, [], "x", {"clientCommands": "c2l.toggle"}, {"clientCommands": [{}]}):
        assert early(body(id="a", method="initialize", params=params({"general": 3, "textDocument": []}, odd)))


async def test_an_answer_given_before_is_not_given_again() -> None:
    class Sink:
        def write(self, data: bytes) -> None:
            raise AssertionError(data)

        def close(self) -> None: ...

    server = Server(asyncio.Event())
    server.protocol.set_writer(Sink())
    server.protocol.answered = 1
    server.protocol.receive(body(id=1, method="initialize", params=params({})))
    assert not server.protocol.ended.is_set()
    server = Server(asyncio.Event())
    server.protocol.answered = 1
    server.protocol.receive(body(id=1, method="initialize", params=params({"textDocument": 5})))
    assert server.protocol.ended.is_set()
    assert server.protocol.exit_code == 1
