"""A language client without an editor: it starts the real server as a process and speaks LSP with it over stdio."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from lsprotocol import types as t

from c2l_lab.clients.process import PipedProcess
from c2l_lsp.errors import C2LError
from c2l_lsp.server.transport.rpc import converter
from c2l_lsp.server.transport.stdio import Framer, FramingError

SERVER = (sys.executable, "-m", "c2l_lsp", "serve", "--stdio")
INVOKED, AUTOMATIC = t.InlineCompletionTriggerKind.Invoked, t.InlineCompletionTriggerKind.Automatic
Plain = dict[str, Any]
Change = str | tuple[tuple[int, int], tuple[int, int], str]
"""A whole new text, or the start and end of a range, each (line, character), and the text that replaces it."""


class ResponseError(C2LError):
    """An error response of the server."""

    def __init__(self, error: Plain) -> None:
        super().__init__(str(error.get("message")))
        self.rpc_code = int(error.get("code", 0))


def frame(message: Mapping[str, object]) -> bytes:
    """A JSON-RPC message as bytes on the pipe."""
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


class LanguageClient(PipedProcess):
    """One server process and every message it has sent.

    received: notifications and requests of the server, in order.
    replies: responses by request id; a correct server sends one for each id.
    statuses, adapters, problems: parameters of `c2l/didChangeStatus`, `c2l/adapter/didChange` and `c2l/problem`.
    broken: how the server's output violated the framing; "" if it did not.
    handlers: functions that answer the server's requests, by method; other requests get null. A handler that returns
        `NO_REPLY` leaves the request unanswered.
    """

    NO_REPLY = object()

    def __init__(
        self,
        environment: Mapping[str, str],
        command: Sequence[str] = SERVER,
        *,
        log: Path,
        cwd: Path | None = None,
        on_message: Callable[[str, Any], None] = lambda method, params: None,
    ) -> None:
        self.received: list[Plain] = []
        self.replies: dict[object, list[Plain]] = {}
        self.statuses: list[Plain] = []
        self.adapters: list[Plain] = []
        self.problems: list[Plain] = []
        self.handlers: dict[str, Callable[[Any], object]] = {}
        self.broken = ""
        self.last_id = 0
        self._versions: dict[str, int] = {}
        self._on_message = on_message
        self._converter = converter()
        self._lists = {
            "c2l/didChangeStatus": self.statuses,
            "c2l/adapter/didChange": self.adapters,
            "c2l/problem": self.problems,
        }
        super().__init__(command, environment, log=log, cwd=cwd)

    # --- the session -------------------------------------------------------------------------------------------------

    def initialize(
        self,
        folders: Iterable[Path] = (),
        options: object = None,
        *,
        inline: bool = True,
        progress: bool = False,
        configuration: bool = False,
        encodings: Sequence[str] | None = None,
        workspace_edit: Plain | None = None,
        notebooks: bool = False,
        process_id: int | None = None,
        timeout: float | None = None,
    ) -> t.InitializeResult:
        """Open a session. The flags are client capabilities: inline completion, progress bars, pulled settings,
        notebooks.

        `workspace_edit`: the capability `workspace.workspaceEdit`.
        """
        workspace: Plain = {"workspaceFolders": True}
        if workspace_edit is not None:
            workspace["workspaceEdit"] = workspace_edit
        if configuration:
            workspace |= {"configuration": True, "didChangeConfiguration": {"dynamicRegistration": True}}
        params = {
            "processId": process_id,
            "rootUri": None,
            "capabilities": {
                "workspace": workspace,
                "textDocument": {"inlineCompletion": {}} if inline else {},
                "window": {"workDoneProgress": progress},
                **({"notebookDocument": {"synchronization": {}}} if notebooks else {}),
                "general": {"positionEncodings": list(encodings)} if encodings else {},
            },
            "workspaceFolders": [{"uri": path.as_uri(), "name": path.name} for path in folders],
            "initializationOptions": options or {},
        }
        result = self.request("initialize", params, timeout)
        self.notify("initialized", {})
        return self._converter.structure(result, t.InitializeResult)

    def ready(self, timeout: float | None = None, *, adapter: bool = False) -> Plain:
        """Wait until the last status is "ready", with an adapter if so asked; that status."""
        needed = ("adapter",) if adapter else ()
        return self.status(lambda status: status["state"] == "ready" and all(map(status.get, needed)), timeout)

    def status(self, holds: Callable[[Plain], object], timeout: float | None = None) -> Plain:
        """Wait until the last status is as wanted; that status."""
        self.until(lambda: self.statuses and holds(self.statuses[-1]), timeout, "such status")
        return self.statuses[-1]

    def shutdown(self, timeout: float = 15.0) -> int:
        """End the session as the protocol prescribes, and kill a server that does not exit. Returns its exit code."""
        with contextlib.suppress(ResponseError, TimeoutError, OSError):
            self.request("shutdown", None, timeout)
        with contextlib.suppress(OSError):
            self.notify("exit")
        return self.finish(timeout)

    # --- documents ---------------------------------------------------------------------------------------------------

    def open(self, uri: str, text: str, language: str = "python") -> None:
        """Open a document with this text; the file on disk is not read."""
        version = self._versions[uri] = self._versions.get(uri, 0) + 1
        item = {"uri": uri, "languageId": language, "version": version, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": item})

    def change(self, uri: str, *changes: Change) -> None:
        """Change a document."""
        version = self._versions[uri] = self._versions.get(uri, 0) + 1
        document = {"uri": uri, "version": version}
        self.notify(
            "textDocument/didChange",
            {"textDocument": document, "contentChanges": [_content_change(change) for change in changes]},
        )

    def close(self, uri: str) -> None:
        """Close a document."""
        self.notify("textDocument/didClose", {"textDocument": {"uri": uri}})

    # --- requests ----------------------------------------------------------------------------------------------------

    def complete(
        self, uri: str, line: int, character: int, kind: t.InlineCompletionTriggerKind = INVOKED, **context: object
    ) -> list[t.InlineCompletionItem] | None:
        """The inline completions at a position; None for a null result. `context` is added to the trigger kind."""
        return self.items(self.send_completion(uri, line, character, kind, **context))

    def send_completion(
        self, uri: str, line: int, character: int, kind: t.InlineCompletionTriggerKind = INVOKED, **context: object
    ) -> int:
        """Ask for inline completions without waiting; the request's id."""
        position = {"line": line, "character": character}
        params = {"textDocument": {"uri": uri}, "position": position, "context": {"triggerKind": kind.value, **context}}
        return self.send("textDocument/inlineCompletion", params)

    def items(self, number: object, timeout: float | None = None) -> list[t.InlineCompletionItem] | None:
        """The result of a completion request that was sent before."""
        result = self.result(number, timeout)
        return None if result is None else list(self._converter.structure(result, t.InlineCompletionList).items)

    def command(self, name: str, *arguments: object, timeout: float | None = None) -> Any:  # noqa: ANN401 - JSON
        """Run a command of the server; its result."""
        return self.request("workspace/executeCommand", {"command": name, "arguments": list(arguments)}, timeout)

    def request(self, method: str, params: object = None, timeout: float | None = None) -> Any:  # noqa: ANN401 - JSON
        """Send a request and return its result. ResponseError for an error, TimeoutError without a response."""
        return self.result(self.send(method, params), timeout)

    def result(self, number: object, timeout: float | None = None) -> Any:  # noqa: ANN401 - JSON
        """The result of a request that was sent before. ResponseError for an error, TimeoutError without a response."""
        reply = self.reply(number, timeout)
        if "error" in reply:
            raise ResponseError(reply["error"])
        return reply["result"]

    def reply(self, number: object, timeout: float | None = None) -> Plain:
        """The whole response to a request, error or not. TimeoutError if none comes."""
        self.until(lambda: number in self.replies, timeout, f"reply to request {number}")
        return self.replies[number][0]

    def send(self, method: str, params: object) -> int:
        """Send a request; its id."""
        self.last_id += 1
        self.write(frame({"id": self.last_id, "method": method, "params": params}))
        return self.last_id

    def cancel(self, number: object) -> None:
        """Cancel a request."""
        self.notify("$/cancelRequest", {"id": number})

    def notify(self, method: str, params: object = None) -> None:
        """Send a notification."""
        self.write(frame({"method": method, "params": params}))

    # --- messages of the server --------------------------------------------------------------------------------------

    def params_of(self, method: str) -> list[Any]:
        """The parameters of every notification and request of this method."""
        return [message["params"] for message in list(self.received) if message["method"] == method]

    def shown(self) -> list[str]:
        """The texts that the server asked the editor to show to the user."""
        return [params["message"] for params in self.params_of("window/showMessage")]

    def logged(self) -> list[str]:
        """The texts that the server sent to the editor's log."""
        return [params["message"] for params in self.params_of("window/logMessage")]

    def progress(self) -> list[tuple[object, Plain]]:
        """Token and value of every progress report."""
        return [(params["token"], params["value"]) for params in self.params_of("$/progress")]

    def _read(self, stream: IO[bytes]) -> None:
        framer = Framer()
        try:
            while data := os.read(stream.fileno(), 1 << 16):
                for body in framer.feed(data):
                    self._take(json.loads(body))
        except (FramingError, ValueError) as error:
            self.broken = f"{type(error).__name__}: {error}"
        except OSError:
            pass

    def _take(self, message: Plain) -> None:
        method = message.get("method")
        if method is not None and "id" in message:
            self._answer(message)
        with self._updated:
            if method is None:
                self.replies.setdefault(message.get("id"), []).append(message)
            else:
                self.received.append(message)
                if method in self._lists:
                    self._lists[method].append(message["params"])
            self._updated.notify_all()
        if method is not None:
            self._on_message(method, message.get("params"))

    def _answer(self, message: Plain) -> None:
        handler = self.handlers.get(message["method"])
        result = handler(message.get("params")) if handler is not None else None
        if result is not self.NO_REPLY:
            with contextlib.suppress(OSError, ValueError):
                self.write(frame({"id": message["id"], "result": result}))


def _content_change(change: Change) -> Plain:
    if isinstance(change, str):
        return {"text": change}
    (start_line, start), (end_line, end), text = change
    positions = {"start": {"line": start_line, "character": start}, "end": {"line": end_line, "character": end}}
    return {"range": positions, "text": text}
