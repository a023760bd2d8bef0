"""The sides of the comparison: whoever answers the author's requests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol

from c2l_lab.benchmarks.typing.author import Ghost
from c2l_lab.clients.lsp import AUTOMATIC, LanguageClient
from c2l_lsp.errors import EngineError

_READY_S = 900.0


class Side(Protocol):
    """Answers requests at places of one repository."""

    def open(self, path: str, before: str, after: str) -> None:
        """Begin a place in a file of the repository."""

    def edit(self, before: str, after: str) -> None:
        """Tell the document's new text around the cursor."""

    def ask(self, wait_s: float) -> tuple[Ghost | None, bool]:
        """The ghost text at the cursor, and whether the answer came within `wait_s` seconds."""


class Server:
    """The real server as a process, over LSP, on a folder, with the user's settings; ready when its adapter is.

    EngineError if another model answers than `settings` name.
    """

    def __init__(self, folder: Path, private: Path, settings: Mapping[str, object]) -> None:
        private.mkdir(parents=True, exist_ok=True)
        environment = {"C2L_STATE_DIR": str(private / "state"), "C2L_CONFIG": str(private / "none.toml")}
        self._folder, self._uri, self._number = folder, "", 0
        self._lines: list[str] = []
        self._client = LanguageClient(environment, log=private / "server.log")
        self._client.initialize([folder], {"userSettings": dict(settings)}, encodings=["utf-32"], timeout=120)
        ready = self._client.status(lambda status: status["state"] == "ready" and not status["busy"], _READY_S)
        self.model = str(ready["model"])
        if self.model != settings.get("model.id", self.model):
            self._client.shutdown()
            raise EngineError(f"The server runs {self.model} instead of {settings['model.id']}.")
        if settings.get("adapter.enable", True):
            self._client.status(lambda status: status.get("adapter") and not status["busy"], _READY_S)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.shutdown()

    def open(self, path: str, before: str, after: str) -> None:
        """See Side."""
        if self._uri:
            self._client.close(self._uri)
        self._uri, self._lines = (self._folder / path).as_uri(), before.split("\n")
        self._client.open(self._uri, before + after)

    def edit(self, before: str, after: str) -> None:
        """See Side."""
        self._lines = before.split("\n")
        self._client.change(self._uri, before + after)

    def ask(self, wait_s: float) -> tuple[Ghost | None, bool]:
        """See Side. A request that is late is cancelled, as editors do at the next key."""
        position = len(self._lines) - 1, len(self._lines[-1])
        number = self._client.send_completion(self._uri, *position, AUTOMATIC)
        try:
            items = self._client.items(number, wait_s)
        except TimeoutError:
            self._client.cancel(number)
            return None, False
        if not items:
            return None, True
        text, span = items[0].insert_text, items[0].range
        replaced = span.end.character - position[1] if span is not None else 0
        return Ghost(text if isinstance(text, str) else text.value, replaced), True
