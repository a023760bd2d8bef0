"""An editor reduced to its language client: starts the real server as a process and speaks LSP with it over stdio."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsprotocol import types as t
from pygls.lsp.client import LanguageClient

from c2l_lsp import __version__
from c2l_lsp.errors import EngineError
from c2l_lsp.server.transport.protocol import (
    ADAPTER_DID_CHANGE,
    DID_CHANGE_STATUS,
    AdapterChange,
    Method,
    Status,
    parse,
)
from c2l_lsp.server.transport.rpc import converter

_END_WITHIN_S = 15.0
_READY_WITHIN_S = 120.0


@dataclass(frozen=True)
class Shown:
    """What the editor would show at a place, and what the server says about how it came about."""

    texts: tuple[str, ...]
    generation: int = 0
    prompt_tokens: int = 0
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """The first line of the first candidate."""
        return self.texts[0].split("\n", 1)[0] if self.texts else ""


class Editor:
    """One editor with one folder open. `on_progress` hears each progress message as (message, percentage)."""

    def __init__(self, root: Path, on_progress: Callable[[str, int | None], None]) -> None:
        self.root = root
        self.status: Status | None = None
        self.changes: list[AdapterChange] = []
        self.troubles: list[str] = []
        self._heard = asyncio.Event()
        self._errors: deque[str] = deque(maxlen=20)
        self._versions: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._on_progress = on_progress
        self._client = LanguageClient("c2l-demo", __version__, converter_factory=converter)
        self._listen()

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self, environment: Mapping[str, str]) -> None:
        """Start the server's process and shake hands."""
        command = (sys.executable, "-m", "c2l_lsp", "serve", "--stdio")
        # `-m` looks for modules in the working directory first, so that must not be the repository.
        await self._client.start_io(*command, env={**os.environ, **environment}, cwd=self.root.parent)
        self._tasks.append(asyncio.create_task(self._read_errors()))
        window = t.WindowClientCapabilities(work_done_progress=True)
        inline = t.InlineCompletionClientCapabilities()
        capabilities = t.ClientCapabilities(
            window=window, text_document=t.TextDocumentClientCapabilities(inline_completion=inline)
        )
        folder = t.WorkspaceFolder(self.root.as_uri(), self.root.name)
        await self._answer(
            self._client.initialize_async(
                t.InitializeParams(capabilities, process_id=os.getpid(), workspace_folders=[folder])
            )
        )
        self._client.initialized(t.InitializedParams())

    async def close(self) -> None:
        """End the server as an editor does, or harder if it does not end."""
        process = self._client._server
        if process is not None and process.returncode is None:
            with contextlib.suppress(EngineError, asyncio.TimeoutError):
                await asyncio.wait_for(self._answer(self._client.shutdown_async(None)), _END_WITHIN_S)
                self._client.exit(None)
            try:
                await asyncio.wait_for(process.wait(), _END_WITHIN_S)
            except asyncio.TimeoutError:
                process.kill()
        if process is not None:
            await self._client.stop()  # type: ignore[no-untyped-call]
        for task in self._tasks:
            task.cancel()

    # --- what an editor asks -----------------------------------------------------------------------------------------

    def open(self, path: str, text: str) -> str:
        """Open a document with this text (the buffer, not the file); its URI."""
        uri = (self.root / path).as_uri()
        version = self._versions[uri] = self._versions.get(uri, 0) + 1
        item = t.TextDocumentItem(uri=uri, language_id="python", version=version, text=text)
        self._client.text_document_did_open(t.DidOpenTextDocumentParams(item))
        return uri

    def shut(self, uri: str) -> None:
        """Close a document."""
        self._client.text_document_did_close(t.DidCloseTextDocumentParams(t.TextDocumentIdentifier(uri)))

    async def complete(self, uri: str, line: int, column: int, *, invoked: bool) -> Shown:
        """Ask for an inline completion and for its explanation."""
        kind = t.InlineCompletionTriggerKind.Invoked if invoked else t.InlineCompletionTriggerKind.Automatic
        params = t.InlineCompletionParams(
            context=t.InlineCompletionContext(trigger_kind=kind),
            text_document=t.TextDocumentIdentifier(uri),
            position=t.Position(line, column),
        )
        began = time.perf_counter()
        found = await self._answer(self._client.text_document_inline_completion_async(params))
        spent = time.perf_counter() - began
        items = found.items if isinstance(found, t.InlineCompletionList) else found or []
        texts = tuple(str(item.insert_text) for item in items)
        if not items or items[0].command is None or not items[0].command.arguments:
            return Shown(texts, seconds=spent)
        told = await self.request(Method.EXPLAIN, {"id": items[0].command.arguments[0]})
        return Shown(texts, told["generation"], told["promptTokens"], spent)

    async def request(self, method: Method, params: dict[str, Any]) -> dict[str, Any]:
        """One of the server's own requests."""
        answer: dict[str, Any] = await self._answer(self._client.protocol.send_request_async(method.value, params))
        return answer

    async def use_adapter(self, enabled: bool) -> None:
        """The A/B switch of the editor."""
        await self.request(Method.ADAPTER_SET_ENABLED, {"folder": self.root.as_uri(), "enabled": enabled})

    async def until(self, happened: Callable[[], object], within: float) -> bool:
        """Wait until something is true of what was heard; False when `within` seconds were not enough."""
        deadline = time.monotonic() + within
        while not happened():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._heard.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._heard.wait(), min(left, 1.0))
            if self._client.stopped:
                raise EngineError(self._why())
        return True

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._hear(DID_CHANGE_STATUS, self._on_status)
        self._hear(ADAPTER_DID_CHANGE, self._on_change)
        self._hear(t.WINDOW_SHOW_MESSAGE, self._on_message)
        self._hear(t.WINDOW_LOG_MESSAGE, lambda _: None)
        self._hear(t.WINDOW_WORK_DONE_PROGRESS_CREATE, lambda _: None)
        self._hear(t.PROGRESS, self._on_bar)

    def _hear(self, method: str, handler: Callable[[Any], None]) -> None:
        def hear(params: Any) -> None:  # noqa: ANN401 - parameters of any method
            handler(params)
            self._heard.set()

        self._client.feature(method)(hear)

    def _on_status(self, params: object) -> None:
        self.status = parse(params, Status)

    def _on_change(self, params: object) -> None:
        self.changes.append(parse(params, AdapterChange))

    def _on_message(self, params: t.ShowMessageParams) -> None:
        self.troubles.append(params.message)

    def _on_bar(self, params: t.ProgressParams) -> None:
        value = params.value if isinstance(params.value, dict) else {}
        self._on_progress(str(value.get("message") or value.get("title") or ""), value.get("percentage"))

    async def _answer(self, asked: Any) -> Any:  # noqa: ANN401 - an answer of any method
        try:
            return await asyncio.wait_for(asked, _READY_WITHIN_S)
        except asyncio.TimeoutError as error:
            raise EngineError(f"The server did not answer within {_READY_WITHIN_S:.0f} s.") from error
        except Exception as error:
            raise EngineError(self._why(str(error))) from error

    async def _read_errors(self) -> None:
        process = self._client._server
        while process is not None and process.stderr is not None and (line := await process.stderr.readline()):
            self._errors.append(line.decode("utf-8", "replace").rstrip())

    def _why(self, reason: str = "") -> str:
        return "\n".join([reason or "The server has ended.", *self._errors])
