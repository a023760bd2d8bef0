"""An editor for tests: pytest-lsp's client around the real server process, with our messages collected."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from lsprotocol import types as t
from pygls.exceptions import JsonRpcException
from pytest_lsp import ClientServerConfig, LanguageClient
from pytest_lsp.client import register_lsp_features

from c2l_lsp.server.transport.rpc import converter

FAKE = str(Path(__file__).with_name("fake_engine.py"))
POLICY = "backoff=(0.1, 0.2), settled=0.5, ping_every=0.2, ping_timeout=0.6, load_silence=5.0"
WITH_FAKE = f"""
import sys
from c2l_lsp.server.app import serve
from c2l_lsp.server.transport.engine_client import Policy
sys.exit(serve([sys.executable, {FAKE!r}], Policy({{policy}})))
"""
REAL = [sys.executable, "-m", "c2l_lsp", "serve", "--stdio"]
INVOKED, AUTOMATIC = t.InlineCompletionTriggerKind.Invoked, t.InlineCompletionTriggerKind.Automatic


def fake_command(policy: str = POLICY) -> list[str]:
    """A real server with a fake engine."""
    return [sys.executable, "-c", WITH_FAKE.format(policy=policy)]


def slack() -> float:
    """How many times longer things may take just now: the load per core where it is known, at least once as long."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 1.0
    return max(1.0, load / (os.cpu_count() or 1))


class Client(LanguageClient):
    """pytest-lsp's client; it ends a test on an error it did not expect, and some of ours are wanted."""

    def report_server_error(self, error: Exception, source: Any) -> None:
        if not isinstance(error, JsonRpcException):
            super().report_server_error(error, source)


def _client() -> Client:
    client = Client(converter_factory=converter)
    register_lsp_features(client)
    return client


@dataclass
class Editor:
    """One connection. `statuses`, `adapters`, `problems`, `registered`: what the server told, in order."""

    client: Client
    log: Path
    statuses: list[dict] = field(default_factory=list)
    adapters: list[dict] = field(default_factory=list)
    problems: list[dict] = field(default_factory=list)
    registered: list[t.Registration] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    result: t.InitializeResult | None = None
    patience: float = 20.0

    @classmethod
    async def start(cls, command: list[str], log: Path, **env: str) -> Editor:
        config = ClientServerConfig(
            command, client_factory=_client, server_env={**os.environ, "FAKE_LOG": str(log), **env}
        )
        client = await config.start()
        assert isinstance(client, Client)
        editor = cls(client, log)
        client.feature("c2l/didChangeStatus")(lambda params: editor.statuses.append(params))
        client.feature("c2l/adapter/didChange")(lambda params: editor.adapters.append(params))
        client.feature("c2l/problem")(lambda params: editor.problems.append(params))

        @client.feature(t.CLIENT_REGISTER_CAPABILITY)
        def register(params: t.RegistrationParams) -> None:
            editor.registered.extend(params.registrations)

        return editor

    async def initialize(
        self,
        folders: Iterable[Path] = (),
        *,
        inline: bool = True,
        progress: bool = False,
        configuration: dict | None = None,
        encodings: list[str] | None = None,
        options: object = None,
        process_id: int | None = None,
    ) -> t.InitializeResult:
        """`configuration` None: the editor cannot be asked for settings. Without options nothing is computed ahead."""
        options = {"completion": {"speculative": False}} if options is None else options
        document = t.TextDocumentClientCapabilities()
        if inline:
            document.inline_completion = t.InlineCompletionClientCapabilities()
        workspace = t.WorkspaceClientCapabilities(workspace_folders=True)
        if configuration is not None:
            self.configure(configuration)
            workspace.configuration = True
            workspace.did_change_configuration = t.DidChangeConfigurationClientCapabilities(dynamic_registration=True)
        capabilities = t.ClientCapabilities(
            text_document=document,
            workspace=workspace,
            window=t.WindowClientCapabilities(work_done_progress=progress),
            general=t.GeneralClientCapabilities(position_encodings=encodings),
        )
        params = t.InitializeParams(
            capabilities=capabilities,
            workspace_folders=[t.WorkspaceFolder(uri=path.as_uri(), name=path.name) for path in folders],
            initialization_options=options,
            process_id=process_id,
        )
        self.result = await asyncio.wait_for(self.client.initialize_session(params), self.patience * slack())
        return self.result

    def configure(self, values: dict) -> None:
        """Settings by scope URI ("": everywhere)."""
        self.client._configuration = {"": {}, **{scope: {"c2l": inner} for scope, inner in values.items()}}

    async def ready(self, timeout: float = 20.0) -> dict:
        """Wait until the status says ready."""
        return await self.status(lambda status: status["state"] == "ready", timeout)

    async def status(self, holds: Callable[[dict], object], timeout: float = 20.0) -> dict:
        """Wait until the last status told is as wanted."""
        await self.until(lambda: self.statuses and holds(self.statuses[-1]), timeout)
        return self.statuses[-1]

    async def until(self, holds: Callable[[], object], timeout: float = 10.0) -> None:
        deadline = time.monotonic() + timeout * slack()
        while not holds():
            assert time.monotonic() < deadline, f"waited in vain; last status: {self.statuses[-1:]}"
            await asyncio.sleep(0.01)

    def open(self, uri: str, text: str, language: str = "python") -> None:
        self.versions[uri] = 1
        item = t.TextDocumentItem(uri=uri, language_id=language, version=1, text=text)
        self.client.text_document_did_open(t.DidOpenTextDocumentParams(text_document=item))

    def change(self, uri: str, *edits: tuple[tuple[int, int], tuple[int, int], str] | str) -> None:
        """Edits ((line, character), (line, character), text), or a whole new text."""
        self.versions[uri] += 1
        changes: list[t.TextDocumentContentChangeEvent] = []
        for edit in edits:
            if isinstance(edit, str):
                changes.append(t.TextDocumentContentChangeWholeDocument(text=edit))
            else:
                start, end, text = edit
                place = t.Range(t.Position(*start), t.Position(*end))
                changes.append(t.TextDocumentContentChangePartial(range=place, text=text))
        identifier = t.VersionedTextDocumentIdentifier(uri=uri, version=self.versions[uri])
        params = t.DidChangeTextDocumentParams(text_document=identifier, content_changes=changes)
        self.client.text_document_did_change(params)

    def close(self, uri: str) -> None:
        params = t.DidCloseTextDocumentParams(text_document=t.TextDocumentIdentifier(uri=uri))
        self.client.text_document_did_close(params)

    async def complete(
        self, uri: str, line: int, character: int, kind: t.InlineCompletionTriggerKind = INVOKED, **context: Any
    ) -> list[t.InlineCompletionItem] | None:
        """The items; None for a null result."""
        params = self.inline_params(uri, line, character, kind, **context)
        result = await asyncio.wait_for(self.client.text_document_inline_completion_async(params), self._limit)
        return None if result is None else list(result.items)

    @staticmethod
    def inline_params(
        uri: str, line: int, character: int, kind: t.InlineCompletionTriggerKind, **context: Any
    ) -> t.InlineCompletionParams:
        return t.InlineCompletionParams(
            text_document=t.TextDocumentIdentifier(uri=uri),
            position=t.Position(line, character),
            context=t.InlineCompletionContext(trigger_kind=kind, **context),
        )

    async def texts(self, *args: Any, **more: Any) -> list[str]:
        return [str(item.insert_text) for item in await self.complete(*args, **more) or []]

    async def request(self, method: str, params: object = None) -> Any:
        return await asyncio.wait_for(self.client.protocol.send_request_async(method, params), self._limit)

    async def raw(self, method: str, params: object) -> Any:
        """A request as it stands, past the client's own types: its plain result."""
        protocol = self.client.protocol
        number = f"raw-{len(protocol._result_types)}-{time.monotonic_ns()}"
        future = protocol._request_futures[number] = concurrent.futures.Future()
        protocol._result_types[number] = None
        protocol._send_data({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return await asyncio.wait_for(asyncio.wrap_future(future), self._limit)

    async def command(self, name: str, *arguments: object) -> Any:
        params = t.ExecuteCommandParams(command=name, arguments=list(arguments))
        return await asyncio.wait_for(self.client.workspace_execute_command_async(params), self._limit)

    @property
    def _limit(self) -> float:
        return self.patience * slack()

    def asked(self, method: str | None = None) -> list[dict]:
        """What fake engines were asked so far."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        notes = [json.loads(line) for line in lines]
        return notes if method is None else [note for note in notes if note.get("method") == method]

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self.client._server is not None
        return self.client._server

    def engines(self) -> list[psutil.Process]:
        """Engine processes of this server."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    async def end(self) -> None:
        """Shut down in order; nothing of the server is left."""
        engines = self.engines()
        if self.process.returncode is None:
            await asyncio.wait_for(self.client.shutdown_session(), 10 * slack())
            if self.result is None:
                self.process.terminate()
        await asyncio.wait_for(self.client.stop(), 10 * slack())
        _gone, left = psutil.wait_procs(engines, timeout=5 * slack())
        assert left == []
