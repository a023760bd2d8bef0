"""The pygls server class, with the parts changed that this server cannot use.

pygls provides the types, the feature registry and the capabilities. Replaced here: its documents (they split lines
wrongly and raise on a stale edit), its silence on malformed or late requests, its popups, and its logging of message
bodies.
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
from c2l_lsp.server.transport.initialize import EVERY_NOTEBOOK, initialize_result

log = logging.getLogger("c2l.rpc")
NOT_INITIALIZED, INVALID_REQUEST, PARSE_ERROR, INVALID_PARAMS = -32002, -32600, -32700, -32602
_MAX_ERROR_LENGTH = 1000
Steps = Generator[Any, Any, Any]


def converter() -> Converter:
    """lsprotocol's converter that accepts any trigger kind and keeps some payloads as plain values.

    Those of unknown methods, and those of the notifications whose loss would let a document or a notebook drift.
    """
    result: Converter = default_converter()  # type: ignore[no-untyped-call]
    counts_from_zero = False

    def trigger_kind(value: object, _: type) -> t.InlineCompletionTriggerKind:
        # Clients older than LSP 3.18 send Invoked = 0 and Automatic = 1. A 0 identifies such a client.
        nonlocal counts_from_zero
        counts_from_zero = counts_from_zero or value == 0
        kinds = t.InlineCompletionTriggerKind
        return kinds.Automatic if value == 2 or (value == 1 and counts_from_zero) else kinds.Invoked

    result.register_structure_hook(t.InlineCompletionTriggerKind, trigger_kind)
    for notebook in (
        t.DidOpenNotebookDocumentNotification, t.DidChangeNotebookDocumentNotification,
        t.DidCloseNotebookDocumentNotification,
    ):  # fmt: skip
        result.register_structure_hook(notebook, _plain_notification)
    for kind in (JsonRPCRequestMessage, JsonRPCNotification):
        result.register_structure_hook(kind, _plain_message)
    result.register_structure_hook(t.DidOpenTextDocumentNotification, _plain_notification)
    result.register_structure_hook(t.DidChangeTextDocumentNotification, _plain_notification)
    result.register_structure_hook(JsonRPCResponseMessage, _plain_response)
    return result


def _plain_message(values: dict[str, Any], kind: type[Any]) -> Any:  # noqa: ANN401 - cattrs' hook
    fields = {"method": values["method"], "jsonrpc": values["jsonrpc"], "params": values.get("params")}
    return kind(**fields, **({"id": values["id"]} if "id" in values else {}))


def _plain_notification(values: dict[str, Any], kind: type[Any]) -> Any:  # noqa: ANN401 - cattrs' hook
    return kind(params=values.get("params"))


def _plain_response(values: dict[str, Any], kind: type[Any]) -> Any:  # noqa: ANN401 - cattrs' hook
    return kind(id=values["id"], jsonrpc=values["jsonrpc"], result=values.get("result"))


class Protocol(LanguageServerProtocol):
    """The LSP of pygls without its documents, and with exactly one response to every request."""

    ended: asyncio.Event | None = None
    exit_code = 0
    answered_initialize_id: int | str | None = None
    """Id of an `initialize` request that was answered before this object existed."""
    _initialize_result: dict[str, Any] | None = None

    def __init__(self, server: Any, converter: Converter) -> None:  # noqa: ANN401 - pygls' own signature
        super().__init__(server, converter)
        self._open_requests: set[int | str] = set()
        """Ids of the editor's requests without a response."""

    def receive(self, body: bytes) -> None:
        """Handle one message body. Every request gets a response, even a malformed one."""
        try:
            message = json.loads(body)
        except (ValueError, RecursionError):
            self._send_error(None, PARSE_ERROR, "The message is not JSON.")
            return
        if not isinstance(message, dict) or message.get("jsonrpc") != self.VERSION:
            self._send_error(None, INVALID_REQUEST, "The message is not a JSON-RPC 2.0 object.")
            return
        if "method" not in message:
            self._receive_response(message)
            return
        msg_id, method = message.get("id"), message["method"]
        if msg_id is not None and not isinstance(msg_id, (int, str)):
            self._send_error(None, INVALID_REQUEST, "The id of the request is neither a number nor a string.")
        elif msg_id is not None and self._shutdown:
            self._send_error(msg_id, INVALID_REQUEST, "The server is shutting down.")
        elif msg_id is not None and self._workspace is None and method != t.INITIALIZE:
            self._send_error(msg_id, NOT_INITIALIZED, "The first request must be initialize.")
        elif msg_id is not None and self._workspace is not None and method == t.INITIALIZE:
            self._send_error(msg_id, INVALID_REQUEST, "The server is already initialized.")
        elif msg_id is not None and msg_id in self._open_requests:
            self._send_error(msg_id, INVALID_REQUEST, "Another open request has this id.", keep_open=True)
        else:
            self._dispatch(message, msg_id)

    def send_notification(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification with plain JSON values as parameters."""
        self._send_data({"jsonrpc": self.VERSION, "method": method, "params": params})

    def report_stream_error(self, message: str) -> None:
        """Send the reason why the input stream cannot be read any further, and set the exit code to 1."""
        self.exit_code = 1
        self._send_error(None, PARSE_ERROR, message)

    def _receive_response(self, message: dict[str, Any]) -> None:
        """Handle a response of the editor. pygls would let it end one of the editor's own requests with the same id."""
        msg_id = message.get("id")
        if not isinstance(msg_id, str) or msg_id in self._open_requests:
            log.warning("A response without a request was dropped.")
            return
        self._dispatch(message, None)
        for key in [key for key, future in self._request_futures.items() if future.cancelled()]:
            self._request_futures.pop(key, None)  # requests that the editor never answered
            self._result_types.pop(key, None)

    def _dispatch(self, message: dict[str, Any], msg_id: int | str | None) -> None:
        if message.get("method") == t.INITIALIZE and isinstance(message.get("params"), dict):
            self._initialize_result = initialize_result(message["params"])
        try:
            structured = self.structure_message(message)
        except Exception as error:
            log.warning("The message %r is malformed (%s).", str(message.get("method"))[:60], type(error).__name__)
            if msg_id is not None:
                self._send_error(msg_id, INVALID_PARAMS, "The parameters of the request do not match its method.")
            return
        if msg_id is not None:
            if not hasattr(structured, "id"):  # a notification method sent with an id
                self._send_error(msg_id, INVALID_REQUEST, "This method is a notification and takes no id.")
                return
            self._open_requests.add(msg_id)
        try:
            self.handle_message(structured)
        except Exception as error:
            log.error("%s while handling a message.", type(error).__name__)

    def _send_error(self, msg_id: int | str | None, code: int, message: str, keep_open: bool = False) -> None:
        self._send_response(msg_id, error=t.ResponseError(code=code, message=message))  # type: ignore[arg-type]
        if keep_open and msg_id is not None:
            self._open_requests.add(msg_id)

    def _send_response(
        self,
        msg_id: int | str,
        result: object = None,
        error: t.ResponseError | None = None,
    ) -> None:
        self._open_requests.discard(msg_id)
        if error is not None and len(error.message) > _MAX_ERROR_LENGTH:  # it may quote the request, up to 64 MB
            error.message = error.message[:_MAX_ERROR_LENGTH] + "…"
        if msg_id is None or msg_id != self.answered_initialize_id:
            super()._send_response(msg_id, result, error)
            return
        self.answered_initialize_id = None
        if error is not None and self.ended is not None:  # its success response has been sent already
            log.error("The initialize request is malformed (%s); the server exits.", error.message)
            self.exit_code = 1
            self.ended.set()

    def _execute_handler(self, msg_id: Any, *args: Any, **more: Any) -> None:  # noqa: ANN401 - pygls' own parameters
        """Release the future of each finished handler. pygls keeps it forever: two kilobytes for each keystroke."""
        super()._execute_handler(msg_id, *args, **more)
        future = self._request_futures.get(msg_id)
        if future is not None:
            future.add_done_callback(lambda done: self._release(msg_id, done))

    def _release(self, msg_id: object, done: object) -> None:
        if self._request_futures.get(msg_id) is done:  # type: ignore[call-overload]
            del self._request_futures[msg_id]  # type: ignore[arg-type]

    def _handler(self, method: str, params: Any) -> Steps:  # noqa: ANN401 - any LSP parameters
        if (handler := self.fm.features.get(method)) is not None:
            yield handler, (params,), None

    @lsp_method(t.INITIALIZE)
    def lsp_initialize(self, params: t.InitializeParams) -> Steps:
        """Let pygls record the client; the response is `initialize_result`."""
        yield from super().lsp_initialize(params)
        return self._initialize_result

    @lsp_method(t.TEXT_DOCUMENT_DID_OPEN)
    def lsp_text_document__did_open(self, params: object) -> Steps:
        """Call only the registered handler."""
        yield from self._handler(t.TEXT_DOCUMENT_DID_OPEN, params)

    @lsp_method(t.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: object) -> Steps:
        """Call only the registered handler."""
        yield from self._handler(t.TEXT_DOCUMENT_DID_CHANGE, params)

    @lsp_method(t.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: t.DidCloseTextDocumentParams) -> Steps:
        """Call only the registered handler."""
        yield from self._handler(t.TEXT_DOCUMENT_DID_CLOSE, params)

    @lsp_method(t.NOTEBOOK_DOCUMENT_DID_OPEN)
    def lsp_notebook_document__did_open(self, params: object) -> Steps:
        """Call only the registered handler."""
        yield from self._handler(t.NOTEBOOK_DOCUMENT_DID_OPEN, params)

    @lsp_method(t.NOTEBOOK_DOCUMENT_DID_CHANGE)
    def lsp_notebook_document__did_change(self, params: object) -> Steps:
        """Call only the registered handler."""
        yield from self._handler(t.NOTEBOOK_DOCUMENT_DID_CHANGE, params)

    @lsp_method(t.NOTEBOOK_DOCUMENT_DID_CLOSE)
    def lsp_notebook_document__did_close(self, params: object) -> Steps:
        """Call only the registered handler."""
        yield from self._handler(t.NOTEBOOK_DOCUMENT_DID_CLOSE, params)

    @lsp_method(t.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS)
    def lsp_workspace__did_change_workspace_folders(self, params: t.DidChangeWorkspaceFoldersParams) -> Steps:
        """Call only the registered handler."""
        yield from self._handler(t.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS, params)

    @lsp_method(t.WINDOW_WORK_DONE_PROGRESS_CANCEL)
    def lsp_work_done_progress_cancel(self, params: t.WorkDoneProgressCancelParams) -> Steps:
        """Call only the registered handler: pygls knows only progress tokens that it created itself."""
        yield from self._handler(t.WINDOW_WORK_DONE_PROGRESS_CANCEL, params)

    @lsp_method(t.SHUTDOWN)
    def lsp_shutdown(self, *_: object) -> Steps:
        """Cancel running requests. pygls fails half-way: cancelled requests change the table that it iterates over."""
        yield from self._handler(t.SHUTDOWN, None)
        for msg_id, future in list(self._request_futures.items()):
            if msg_id != self.msg_id:
                future.cancel()
        self._shutdown = True

    @lsp_method(t.EXIT)
    def lsp_exit(self, *_: object) -> Steps:
        """Set `ended`, so that the server shuts down in order; pygls would raise SystemExit inside the loop."""
        self.exit_code = 0 if self._shutdown else 1
        if self.ended is not None:
            self.ended.set()
        yield from ()


class Server(LanguageServer):
    """The pygls server of this package. `on_editor_lost` is called when the editor's process has ended."""

    protocol: Protocol

    def __init__(self, ended: asyncio.Event | None = None, on_editor_lost: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            "c2l-lsp",
            __version__,
            text_document_sync_kind=t.TextDocumentSyncKind.Incremental,
            notebook_document_sync=t.NotebookDocumentSyncOptions(
                [t.NotebookDocumentFilterWithNotebook(notebook=EVERY_NOTEBOOK)]
            ),
            protocol_cls=Protocol,
            converter_factory=converter,
        )
        self.protocol.ended = ended
        self.on_editor_lost = on_editor_lost

    async def create_progress(self, token: str) -> object:
        """Ask the editor to create a progress bar. Raises JsonRpcException if it refuses."""
        params = t.WorkDoneProgressCreateParams(token=token)
        return await self.protocol.send_request_async(t.WINDOW_WORK_DONE_PROGRESS_CREATE, params)

    def report_server_error(self, error: Exception, source: Any) -> None:  # noqa: ANN401 - pygls' signature
        """Log the type of an internal error but not its text, which may quote a document. Shows no popup."""
        log.error("%s in %s.", type(error).__name__, getattr(source, "__name__", source))
        if log.isEnabledFor(logging.DEBUG):
            log.debug("Traceback", exc_info=sys.exc_info())
