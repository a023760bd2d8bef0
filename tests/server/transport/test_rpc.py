"""Every request gets a response, even if it is malformed; trigger kinds of old clients are recognised."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from lsprotocol import types as t

from c2l_lsp.server.transport.rpc import Server, converter

INLINE = {"textDocument": {"uri": "u"}, "position": {"line": 0, "character": 0}}
INITIALIZE = {"capabilities": {}, "processId": None, "rootUri": None}


class Sink:
    def __init__(self) -> None:
        self.messages: list[dict] = []

    def write(self, data: bytes) -> None:
        self.messages.append(json.loads(data.partition(b"\r\n\r\n")[2]))

    def close(self) -> None: ...


@pytest.fixture
def server() -> Server:
    server = Server()
    server.protocol.set_writer(Sink())
    return server


def ask(server: Server, message: Any) -> dict | None:
    sink = server.protocol.writer
    sink.messages.clear()
    server.protocol.receive(message if isinstance(message, bytes) else json.dumps(message).encode())
    return sink.messages[-1] if sink.messages else None


def request(method: str, params: object, number: int = 1) -> dict:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def kinds(*values: object) -> list[t.InlineCompletionTriggerKind]:
    structure = converter().structure
    return [
        structure(
            request("textDocument/inlineCompletion", {**INLINE, "context": {"triggerKind": value}}),
            t.InlineCompletionRequest,
        ).params.context.trigger_kind
        for value in values
    ]


def test_trigger_kinds_of_old_and_new_clients() -> None:
    invoked, automatic = t.InlineCompletionTriggerKind.Invoked, t.InlineCompletionTriggerKind.Automatic
    assert kinds(1, 2) == [invoked, automatic]
    assert kinds(0, 1, 0, 2) == [invoked, automatic, invoked, automatic]
    assert kinds(9, "x", None) == [invoked] * 3


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"not json", -32700),
        (b"\xff\xfe", -32700),
        (b"[" * 100_000, -32700),
        (b"[]", -32600),
        (b"1", -32600),
        ({"id": 1, "method": "initialize"}, -32600),
        ({"jsonrpc": "1.0", "id": 1, "method": "initialize"}, -32600),
        ({"jsonrpc": "2.0", "id": {}, "method": "x"}, -32600),
        (request("textDocument/inlineCompletion", {}), -32002),
        (request("c2l/status", {}), -32002),
        (request("initialize", {"capabilities": 1}), -32602),
        (request("initialize", None), -32602),
    ],
)
def test_malformed_and_early_messages_get_an_error(server: Server, message: object, code: int) -> None:
    answer = ask(server, message)
    assert answer is not None
    assert answer["error"]["code"] == code
    assert ask(server, request("initialize", INITIALIZE))["result"]["capabilities"]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (request("textDocument/inlineCompletion", {"position": 3}), -32602),
        (request("unknown/knows", None), -32601),
        (request("initialize", INITIALIZE), -32600),
        (request("workspace/executeCommand", {"command": "rm"}), -32602),
    ],
)
def test_invalid_requests_get_an_error(server: Server, message: object, code: int) -> None:
    ask(server, request("initialize", INITIALIZE))
    assert ask(server, message)["error"]["code"] == code


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "method": "textDocument/didChange", "params": {}},
        {"jsonrpc": "2.0", "method": "unknown/knows", "params": [1, {"a": 2}]},
        {"jsonrpc": "2.0", "method": 7},
        {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 99}},
        {"jsonrpc": "2.0", "id": 12, "result": None},
        {"jsonrpc": "2.0", "id": 12, "error": {"code": 1, "message": "x"}},
        {"jsonrpc": "2.0"},
    ],
)
def test_malformed_notifications_are_ignored(server: Server, message: object) -> None:
    ask(server, request("initialize", INITIALIZE))
    ask(server, message)
    assert ask(server, request("unknown/knows", None))["error"]["code"] == -32601


def test_requests_after_shutdown_are_refused(server: Server) -> None:
    ask(server, request("initialize", INITIALIZE))
    assert ask(server, request("shutdown", None))["result"] is None
    assert ask(server, request("shutdown", None))["error"]["code"] == -32600


async def test_shutdown_cancels_running_commands(server: Server) -> None:
    @server.command("slow")
    async def slow(*_: Any) -> None:
        await asyncio.sleep(60)

    ask(server, request("initialize", INITIALIZE))
    for number in range(5, 8):
        ask(server, request("workspace/executeCommand", {"command": "slow"}, number))
    sink = server.protocol.writer
    ask(server, request("shutdown", None, 9))
    await asyncio.sleep(0.05)
    found = {message["id"]: message for message in sink.messages}
    assert found[9]["result"] is None
    assert [found[number]["error"]["code"] for number in range(5, 8)] == [-32800] * 3


def test_custom_requests_get_plain_parameters(server: Server) -> None:
    seen: list[object] = []

    @server.feature("c2l/test")
    def handle(params: Any) -> object:
        seen.append(params)
        return {"class": {"def": [1, None]}}

    ask(server, request("initialize", INITIALIZE))
    answer = ask(server, request("c2l/test", {"class": 1, "a b": {"c": []}}))
    assert seen == [{"class": 1, "a b": {"c": []}}]
    assert answer["result"] == {"class": {"def": [1, None]}}


@pytest.fixture
async def waiting(server: Server) -> Server:
    """A server with an open request, id 5."""

    @server.feature("c2l/slow")
    async def slow(_: Any) -> None:
        await asyncio.sleep(60)

    ask(server, request("initialize", INITIALIZE))
    assert ask(server, request("c2l/slow", {}, 5)) is None
    await asyncio.sleep(0)
    return server


async def settled(server: Server) -> list[dict]:
    for _ in range(5):
        await asyncio.sleep(0)
    return server.protocol.writer.messages


@pytest.mark.parametrize("answer", [{"result": 1}, {"error": {"code": 1, "message": "x"}}, {}])
@pytest.mark.parametrize("number", [5, "5", None, {}])
async def test_response_cannot_end_a_request_of_the_editor(waiting: Server, answer: dict, number: object) -> None:
    assert ask(waiting, {"jsonrpc": "2.0", "id": number, **answer}) is None
    ask(waiting, {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 5}})
    assert [(m["id"], m["error"]["code"]) for m in await settled(waiting)] == [(5, -32800)]


async def test_two_requests_with_one_id_get_two_responses(waiting: Server) -> None:
    assert ask(waiting, request("unknown/knows", None, 5))["error"]["code"] == -32600
    assert ask(waiting, request("unknown/knows", None, 5))["error"]["code"] == -32600
    ask(waiting, {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 5}})
    assert [(m["id"], m["error"]["code"]) for m in await settled(waiting)] == [(5, -32800)]
    assert ask(waiting, request("unknown/knows", None, 5))["error"]["code"] == -32601


async def test_handled_messages_are_released(waiting: Server) -> None:
    """pygls keeps the future of every message, so a week of typing would fill the memory."""

    @waiting.feature("c2l/soon")
    async def soon(_: Any) -> None: ...

    held = set(waiting.protocol._request_futures)
    document = {"uri": "file:///a.py", "languageId": "python", "version": 1, "text": "a"}
    ask(waiting, {"jsonrpc": "2.0", "method": "textDocument/didOpen", "params": {"textDocument": document}})
    for number in range(30):
        change = {"textDocument": {"uri": "file:///a.py", "version": number + 2}, "contentChanges": [{"text": "b"}]}
        ask(waiting, {"jsonrpc": "2.0", "method": "textDocument/didChange", "params": change})
        ask(waiting, {"jsonrpc": "2.0", "method": "c2l/soon", "params": {}})
        ask(waiting, request("c2l/soon", {}, number + 10))
    await settled(waiting)
    assert set(waiting.protocol._request_futures) == held


def test_long_error_messages_are_truncated(server: Server) -> None:
    """A response larger than MAX_UNSENT would look like a lost editor."""
    ask(server, request("initialize", INITIALIZE))
    assert len(ask(server, request("unknown/" + "x" * 100_000, None))["error"]["message"]) < 1100


def test_notification_with_an_id_gets_an_error(server: Server) -> None:
    ask(server, request("initialize", INITIALIZE))
    item = {"uri": "file:///a", "languageId": "python", "version": 1, "text": ""}
    for method, params in (("textDocument/didOpen", {"textDocument": item}), ("$/cancelRequest", {"id": 1})):
        assert ask(server, request(method, params, 7))["error"]["code"] == -32600


async def test_late_response_of_the_editor_is_ignored(server: Server) -> None:
    """The editor responds after the request has timed out."""
    ask(server, request("initialize", INITIALIZE))
    response = server.protocol.send_request_async("workspace/configuration", t.ConfigurationParams(items=[]))
    (sent,) = server.protocol.writer.messages[-1:]
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(response, 0.01)
    ask(server, {"jsonrpc": "2.0", "id": sent["id"], "result": [{}]})
    assert ask(server, request("unknown/knows", None))["error"]["code"] == -32601
    assert server.protocol._request_futures == {}
