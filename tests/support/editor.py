"""The language client of the end-to-end tests: the real server with the fake engine, whose log can be read back."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil
from c2l_lab.clients.lsp import AUTOMATIC, INVOKED, SERVER, LanguageClient, Plain
from lsprotocol import types as t

__all__ = ["AUTOMATIC", "INVOKED", "SERVER", "Editor", "fake_command", "slack"]

FAKE = str(Path(__file__).with_name("fake_engine.py"))
POLICY = "backoff=(0.1, 0.2), stable_after=0.5, ping_interval=0.2, ping_timeout=0.6, load_silence=5.0"
WITH_FAKE = f"""
import sys
from c2l_lsp.server.app import serve
from c2l_lsp.server.transport.engine_client import Policy
sys.exit(serve([sys.executable, {FAKE!r}], Policy({{policy}})))
"""


def fake_command(policy: str = POLICY) -> list[str]:
    """The command of a real server with the fake engine."""
    return [sys.executable, "-c", WITH_FAKE.format(policy=policy)]


def slack() -> float:
    """The factor by which time limits are extended on a busy machine: the load per core, at least 1."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 1.0
    return max(1.0, load / (os.cpu_count() or 1))


class Editor(LanguageClient):
    """A language client with settings of its own, patient on a busy machine, that knows the fake engine's log.

    settings: the answers to `workspace/configuration`, by scope URI; "" is every scope that is not listed.
    """

    timeout = 20.0

    def __init__(
        self, command: Sequence[str], engine_log: Path, *, cwd: Path | None = None, **environment: str
    ) -> None:
        self.engine_log = engine_log
        self.settings: dict[str, Plain] = {}
        log = engine_log.with_suffix(".stderr")
        super().__init__({"FAKE_LOG": str(engine_log), **environment}, command, log=log, cwd=cwd)
        self.handlers["workspace/configuration"] = self._configuration

    def initialize(  # type: ignore[override]
        self,
        folders: Iterable[Path] = (),
        options: object = None,
        *,
        configuration: dict[str, Plain] | None = None,
        **capabilities: Any,
    ) -> t.InitializeResult:
        """Without `configuration` the editor cannot be asked for settings; without `options` nothing is prefetched."""
        self.settings = configuration or {}
        options = {"completion": {"speculative": False}} if options is None else options
        return super().initialize(folders, options, configuration=configuration is not None, **capabilities)

    def wait_until(self, holds: Callable[[], object], timeout: float) -> bool:
        return super().wait_until(holds, timeout * slack())

    def texts(self, *place: Any, **context: Any) -> list[str]:
        """The texts of the completions at a position."""
        return [str(item.insert_text) for item in self.complete(*place, **context) or []]

    def engine_requests(self, method: str | None = None) -> list[dict]:
        """The log of the fake engine: its requests, or those of one method."""
        lines = self.engine_log.read_text(encoding="utf-8").splitlines() if self.engine_log.exists() else []
        notes = [json.loads(line) for line in lines]
        return notes if method is None else [note for note in notes if note.get("method") == method]

    def engines(self) -> list[psutil.Process]:
        """The engine processes of this server."""
        return self.family()[1:]

    def end(self) -> None:
        """Shut down; neither the server nor an engine may be left."""
        engines = self.engines()
        if self.process.poll() is None:
            assert self.shutdown(10 * slack()) >= 0, "the server did not exit by itself"
        self.kill()
        assert psutil.wait_procs(engines, timeout=5 * slack())[1] == []

    def _configuration(self, params: Plain) -> list[Plain]:
        scopes = [item.get("scopeUri") or "" for item in params["items"]]
        return [self.settings.get(scope, self.settings.get("", {})) for scope in scopes]
