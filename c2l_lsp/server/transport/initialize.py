"""The response to `initialize`: the server's capabilities as plain values, built without importing pygls.

Importing the LSP types takes half a second on a small machine; the editor gets its response before that. These are the
only capabilities that are sent: the ones that pygls computes are not used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from c2l_lsp import __version__
from c2l_lsp.server.transport.protocol import FOLLOW_UP_KIND, Command

_ENCODINGS = ("utf-8", "utf-16", "utf-32")
_INCREMENTAL = 2
EVERY_NOTEBOOK = "*"


class InitializeRequest(NamedTuple):
    """An `initialize` request: its id, the result to send, and the pid of the editor if it was given."""

    id: int | str
    result: dict[str, Any]
    editor_pid: int | None


def parse_initialize(body: bytes) -> InitializeRequest | None:
    """The request in a message body if it is a well-formed `initialize`; None leaves the message to pygls."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0" or message.get("method") != "initialize":
        return None
    msg_id, params = message.get("id"), message.get("params")
    if isinstance(msg_id, bool) or not isinstance(msg_id, int | str) or not isinstance(params, dict):
        return None
    if not isinstance(params.get("capabilities"), dict):
        return None
    pid = params.get("processId")
    editor_pid = pid if isinstance(pid, int) and not isinstance(pid, bool) else None
    return InitializeRequest(msg_id, initialize_result(params), editor_pid)


def initialize_result(params: Mapping[str, Any]) -> dict[str, Any]:
    """The InitializeResult for a client's parameters."""
    capabilities: dict[str, Any] = {
        "positionEncoding": position_encoding(_at(params, "capabilities", "general", "positionEncodings")),
        "textDocumentSync": {"openClose": True, "change": _INCREMENTAL, "save": {"includeText": False}},
        "inlineCompletionProvider": {},  # for all clients: some support it without announcing it
        "codeActionProvider": {"codeActionKinds": [FOLLOW_UP_KIND], "resolveProvider": False},
        "executeCommandProvider": {"commands": _commands(params)},
        "workspace": {"workspaceFolders": {"supported": True, "changeNotifications": True}},
    }
    if _at(params, "capabilities", "textDocument", "inlineCompletion") is None:
        # A client with inline completion would show every suggestion twice, and an empty answer would replace its own
        # word list. The handler is registered for all clients: one that asks anyway still gets a response.
        capabilities["completionProvider"] = {}
    if _at(params, "capabilities", "notebookDocument") is not None:
        capabilities["notebookDocumentSync"] = {"notebookSelector": [{"notebook": EVERY_NOTEBOOK}]}
    return {"capabilities": capabilities, "serverInfo": {"name": "c2l-lsp", "version": __version__}}


def position_encoding(offered: object) -> str:
    """The first position encoding offered by the client that is supported; utf-16 if there is none."""
    names = offered if isinstance(offered, Sequence) else ()
    return next((known for name in names for known in _ENCODINGS if name == known), "utf-16")


def _commands(params: Mapping[str, Any]) -> list[str]:
    # vscode-languageclient registers each advertised command, which fails if the extension has registered it already.
    own = _at(params, "initializationOptions", "clientCommands")
    own = own if isinstance(own, list) else []
    return [command.value for command in Command if command.value not in own]


def _at(values: object, *path: str) -> Any:  # noqa: ANN401 - JSON
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values
