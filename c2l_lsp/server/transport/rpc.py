"""pygls with its sharp edges covered: one class the rest of the server builds on.

pygls keeps the types, the registry and the capabilities. Replaced here: its documents (they split lines wrongly and
raise on a stale edit), its silence on malformed or late requests, its popups and its logging of message bodies.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Generator
from typing import Any

from cattrs import Converter
from lsprotocol import types as t
from pygls.lsp.server import LanguageServer
from pygls.protocol import (
    JsonRPCNotification,
    JsonRPCRequestMessage,
    JsonRPCResponseMessage,
    LanguageServerProtocol,
    default_converter,
    lsp_method,
)

from c2l_lsp import __version__
from c2l_lsp.server.transport import greeting

log = logging.getLogger("c2l.rpc")
NOT_INITIALIZED, INVALID_REQUEST, PARSE_ERROR, INVALID_PARAMS = -32002, -32600, -32700, -32602
_LONGEST_SENTENCE = 1000
Steps = Generator[Any, Any, Any]


def converter() -> Converter:
    """lsprotocol's converter, tolerant of trigger kinds, leaving payloads of unknown methods as plain values."""
    made: Converter = default_converter()  # type: ignore[no-untyped-call]
    counts_from_zero = False

    def trigger_kind(value: object, _: type) -> t.InlineCompletionTriggerKind:
        # Clients before protocol 3.18 send Invoked = 0, Automatic = 1. One 0 gives such a client away.
        nonlocal counts_from_zero
        counts_from_zero = counts_from_zero or value == 0
        kinds = t.InlineCompletionTriggerKind
        return kinds.Automatic if value == 2 or (value == 1 and counts_from_zero) else kinds.Invoked

    made.register_structure_hook(t.InlineCompletionTriggerKind, trigger_kind)
    for kind in (JsonRPCRequestMessage, JsonRPCNotification):
        made.register_structure_hook(kind, _plain_message)
    made.register_structure_hook(JsonRPCResponseMessage, _plain_response)
    return made


def _plain_message(values: dict[str, Any], kind: type[Any]) -> Any:  # noqa: ANN401 - cattrs' hook
    known = {"method": values["method"], "jsonrpc": values["jsonrpc"], "params": values.get("params")}
    return kind(**known, **({"id": values["id"]} if "id" in values else {}))


def _plain_response(values: dict[str, Any], kind: type[Any]) -> Any:  # noqa: ANN401 - cattrs' hook
    return kind(id=values["id"], jsonrpc=values["jsonrpc"], result=values.get("result"))


class Protocol(LanguageServerProtocol):
    """LSP as pygls has it, without its documents and without unanswered requests."""

    ended: asyncio.Event | None = None
    exit_code = 0
    answered: int | str | None = None
    """Id of an `initialize` that was answered before this object was there."""
    _greeting: dict[str, Any] | None = None

    def __init__(self, server: Any, converter: Converter) -> None:  # noqa: ANN401 - pygls' own signature
        super().__init__(server, converter)
        self._open: set[int | str] = set()
        """Ids of the editor's requests that are not answered yet."""

    def receive(self, body: bytes) -> None:
        """Handle one message body. Every request in it is answered, whatever it holds."""
        try:
            message = json.loads(body)
        except (ValueError, RecursionError):
            self._refuse(None, PARSE_ERROR, "The message is not JSON.")
            return
        if not isinstance(message, dict) or message.get("jsonrpc") != self.VERSION:
            self._refuse(None, INVALID_REQUEST, "The message is not a JSON-RPC 2.0 object.")
            return
        if "method" not in message:
            self._answered(message)
            return
        msg_id, method = message.get("id"), message["method"]
        if msg_id is not None and not isinstance(msg_id, (int, str)):
            self._refuse(None, INVALID_REQUEST, "The request's id is neither a number nor a string.")
        elif msg_id is not None and self._shutdown:
            self._refuse(msg_id, INVALID_REQUEST, "The server is shutting down.")
        elif msg_id is not None and self._workspace is None and method != t.INITIALIZE:
            self._refuse(msg_id, NOT_INITIALIZED, "The first request must be initialize.")
        elif msg_id is not None and self._workspace is not None and method == t.INITIALIZE:
            self._refuse(msg_id, INVALID_REQUEST, "The server is initialized already.")
        elif msg_id is not None and msg_id in self._open:
            self._refuse(msg_id, INVALID_REQUEST, "Another request of this id is not answered yet.", open_still=True)
        else:
            self._dispatch(message, msg_id)

    def tell(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification whose parameters are JSON-ready already."""
        self._send_data({"jsonrpc": self.VERSION, "method": method, "params": params})

    def refuse_stream(self, sentence: str) -> None:
        """Say why the server ends: the stream cannot be read any further."""
        self.exit_code = 1
        self._refuse(None, PARSE_ERROR, sentence)

    def _answered(self, message: dict[str, Any]) -> None:
        """The editor's answer to a request of ours; pygls would let it end a request of the editor's by its id."""
        number = message.get("id")
        if not isinstance(number, str) or number in self._open:
            log.warning("An answer to no request of ours was dropped.")
            return
        self._dispatch(message, None)
        for stale in [key for key, future in self._request_futures.items() if future.cancelled()]:
            self._request_futures.pop(stale, None)  # the editor never answered these, and nobody waits any more
            self._result_types.pop(stale, None)

    def _dispatch(self, message: dict[str, Any], msg_id: int | str | None) -> None:
        if message.get("method") == t.INITIALIZE and isinstance(message.get("params"), dict):
            self._greeting = greeting.result(message["params"])
        try:
            structured = self.structure_message(message)
        except Exception as error:
            log.warning("A message %r is malformed (%s).", str(message.get("method"))[:60], type(error).__name__)
            if msg_id is not None:
                self._refuse(msg_id, INVALID_PARAMS, "The request's parameters do not fit its method.")
            return
        if msg_id is not None:
            if not hasattr(structured, "id"):  # a notification's method with an id: whoever sent it waits
                self._refuse(msg_id, INVALID_REQUEST, "This method is a notification and takes no id.")
                return
            self._open.add(msg_id)
        try:
            self.handle_message(structured)
        except Exception as error:
            log.error("%s in a message's handling.", type(error).__name__)

    def _refuse(self, msg_id: int | str | None, code: int, sentence: str, open_still: bool = False) -> None:
        self._send_response(msg_id, error=t.ResponseError(code=code, message=sentence))  # type: ignore[arg-type]
        if open_still and msg_id is not None:
            self._open.add(msg_id)

    def _send_response(
        self,
        msg_id: int | str,
        result: object = None,
        error: t.ResponseError | None = None,
    ) -> None:
        self._open.discard(msg_id)
        if error is not None and len(error.message) > _LONGEST_SENTENCE:  # it may quote what was sent: 64 MB, say
            error.message = error.message[:_LONGEST_SENTENCE] + "…"
        if msg_id is None or msg_id != self.answered:
            super()._send_response(msg_id, result, error)
            return
        self.answered = None
        if error is not None and self.ended is not None:  # welcomed, and yet not understood
            log.error("initialize is malformed (%s); the server ends.", error.message)
            self.exit_code = 1
            self.ended.set()

    def _execute_handler(self, msg_id: Any, *args: Any, **more: Any) -> None:  # noqa: ANN401 - pygls' own parameters
        """pygls keeps what every notification came to for good: two kilobytes for each keystroke."""
        super()._execute_handler(msg_id, *args, **more)
        future = self._request_futures.get(msg_id)
        if future is not None:
            future.add_done_callback(lambda done: self._forget(msg_id, done))

    def _forget(self, msg_id: object, done: object) -> None:
        if self._request_futures.get(msg_id) is done:  # type: ignore[call-overload]
            del self._request_futures[msg_id]  # type: ignore[arg-type]

    def _user(self, method: str, params: Any) -> Steps:  # noqa: ANN401 - any LSP parameters
        if (handler := self.fm.features.get(method)) is not None:
            yield handler, (params,), None

    @lsp_method(t.INITIALIZE)
    def lsp_initialize(self, params: t.InitializeParams) -> Steps:
        """Let pygls take note of the client; the answer is the greeting's."""
        yield from super().lsp_initialize(params)
        return self._greeting

    @lsp_method(t.TEXT_DOCUMENT_DID_OPEN)
    def lsp_text_document__did_open(self, params: t.DidOpenTextDocumentParams) -> Steps:
        """Ours alone."""
        yield from self._user(t.TEXT_DOCUMENT_DID_OPEN, params)

    @lsp_method(t.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: t.DidChangeTextDocumentParams) -> Steps:
        """Ours alone."""
        yield from self._user(t.TEXT_DOCUMENT_DID_CHANGE, params)

    @lsp_method(t.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: t.DidCloseTextDocumentParams) -> Steps:
        """Ours alone."""
        yield from self._user(t.TEXT_DOCUMENT_DID_CLOSE, params)

    @lsp_method(t.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS)
    def lsp_workspace__did_change_workspace_folders(self, params: t.DidChangeWorkspaceFoldersParams) -> Steps:
        """Ours alone."""
        yield from self._user(t.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS, params)

    @lsp_method(t.WINDOW_WORK_DONE_PROGRESS_CANCEL)
    def lsp_work_done_progress_cancel(self, params: t.WorkDoneProgressCancelParams) -> Steps:
        """Ours alone: pygls knows only bars that it made itself."""
        yield from self._user(t.WINDOW_WORK_DONE_PROGRESS_CANCEL, params)

    @lsp_method(t.SHUTDOWN)
    def lsp_shutdown(self, *_: object) -> Steps:
        """Cancel what runs. pygls goes over its table while the cancelled ones leave it, and fails half-way."""
        yield from self._user(t.SHUTDOWN, None)
        for msg_id, future in list(self._request_futures.items()):
            if msg_id != self.msg_id:
                future.cancel()
        self._shutdown = True

    @lsp_method(t.EXIT)
    def lsp_exit(self, *_: object) -> Steps:
        """End the loop in order; pygls would raise SystemExit inside it."""
        self.exit_code = 0 if self._shutdown else 1
        if self.ended is not None:
            self.ended.set()
        yield from ()


class Server(LanguageServer):
    """The LanguageServer of this package."""

    protocol: Protocol

    def __init__(self, ended: asyncio.Event | None = None, on_editor_lost: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            "c2l-lsp",
            __version__,
            text_document_sync_kind=t.TextDocumentSyncKind.Incremental,
            protocol_cls=Protocol,
            converter_factory=converter,
        )
        self.protocol.ended = ended
        self.on_editor_lost = on_editor_lost

    async def create_bar(self, token: str) -> object:
        """Ask the editor for a progress bar."""
        params = t.WorkDoneProgressCreateParams(token=token)
        return await self.protocol.send_request_async(t.WINDOW_WORK_DONE_PROGRESS_CREATE, params)

    def report_server_error(self, error: Exception, source: Any) -> None:  # noqa: ANN401 - pygls' signature
        """A fault of ours: to the log by its kind only, since its text may quote a document. Never a popup."""
        log.error("%s in %s.", type(error).__name__, getattr(source, "__name__", source))
        if log.isEnabledFor(logging.DEBUG):
            log.debug("Traceback", exc_info=sys.exc_info())
