"""The answer to `initialize`: what this server can do, as plain values, without loading pygls.

The LSP types take half a second to import on a small machine; an editor has its answer long before. This is the one
statement of our capabilities: pygls keeps its own for itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from c2l_lsp import __version__
from c2l_lsp.server.transport.protocol import Command

_ENCODINGS = ("utf-8", "utf-16", "utf-32")
_INCREMENTAL = 2


class Greeting(NamedTuple):
    """An `initialize`: its id, our result, and the editor's process if it names one."""

    id: int | str
    result: dict[str, Any]
    editor: int | None


def early(body: bytes) -> Greeting | None:
    """The greeting of a first message that is a sound `initialize`; None leaves it to the full protocol."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0" or message.get("method") != "initialize":
        return None
    number, params = message.get("id"), message.get("params")
    if isinstance(number, bool) or not isinstance(number, int | str) or not isinstance(params, dict):
        return None
    editor = params.get("processId")
    known = editor if isinstance(editor, int) and not isinstance(editor, bool) else None
    return Greeting(number, result(params), known) if isinstance(params.get("capabilities"), dict) else None


def result(params: Mapping[str, Any]) -> dict[str, Any]:
    """The InitializeResult for a client."""
    capabilities: dict[str, Any] = {
        "positionEncoding": encoding(_at(params, "capabilities", "general", "positionEncodings")),
        "textDocumentSync": {"openClose": True, "change": _INCREMENTAL, "save": {"includeText": False}},
        "inlineCompletionProvider": {},  # for every client: some support it and do not say so
        "executeCommandProvider": {"commands": _commands(params)},
        "workspace": {"workspaceFolders": {"supported": True, "changeNotifications": True}},
    }
    if _at(params, "capabilities", "textDocument", "inlineCompletion") is None:
        # A client with inline completion would get every suggestion twice and lose its word list to an empty answer.
        # The handler is there for all: a client that asks unasked still gets a reply.
        capabilities["completionProvider"] = {}
    return {"capabilities": capabilities, "serverInfo": {"name": "c2l-lsp", "version": __version__}}


def encoding(offered: object) -> str:
    """The first position encoding of the client that we know; utf-16 if it names none."""
    wished = offered if isinstance(offered, Sequence) else ()
    return next((known for one in wished for known in _ENCODINGS if one == known), "utf-16")


def _commands(params: Mapping[str, Any]) -> list[str]:
    # vscode-languageclient registers each advertised command itself, and fails if its extension did so, too.
    own = _at(params, "initializationOptions", "clientCommands")
    own = own if isinstance(own, list) else []
    return [command.value for command in Command if command.value not in own]


def _at(values: object, *path: str) -> Any:  # noqa: ANN401 - JSON
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values
