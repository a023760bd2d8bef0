"""Sends the text of open documents to the engine, each at most every 300 ms."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from c2l_lsp.config import Settings
from c2l_lsp.engine.wire import Buffer
from c2l_lsp.server.workspace.documents import Document, to_engine_text
from c2l_lsp.server.workspace.folders import WorkspacePath

THROTTLE = 0.3


class BufferFeed:
    """Sends buffers of documents in a workspace folder, in an indexed language and within the size limit.

    When a folder opens or closes, a document may move to another folder and path. Its text is removed from the old one.
    """

    def __init__(
        self,
        send: Callable[[Buffer], None],
        resolve: Callable[[str], WorkspacePath],
        settings: Callable[[str], Settings],
    ) -> None:
        self._send = send
        self._resolve = resolve
        self._settings = settings
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._sent: dict[str, WorkspacePath] = {}

    def schedule(self, document: Document) -> None:
        """Send a document's text within 300 ms. Call it when the document, the settings or the folders changed."""
        if document.uri not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[document.uri] = loop.call_later(THROTTLE, self._flush, document)

    def remove(self, document: Document) -> None:
        """Remove a closed document's text from the engine, so that the file on disk counts again."""
        timer = self._timers.pop(document.uri, None)
        if timer is not None:
            timer.cancel()
        self._withdraw(document.uri)

    def stop(self) -> None:
        """Cancel everything scheduled."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _flush(self, document: Document) -> None:
        self._timers.pop(document.uri, None)
        location = self._resolve(document.uri)
        if self._sent.get(document.uri) != location:
            self._withdraw(document.uri)
        text = self._indexed_text(document, self._settings(location.folder)) if location.folder else None
        if text is None:
            self._withdraw(document.uri)
        else:
            self._sent[document.uri] = location
            self._send(Buffer(folder=location.folder, path=location.path, text=text))

    def _indexed_text(self, document: Document, settings: Settings) -> str | None:
        if document.notebook:
            return None  # the file holds all cells and their outputs, as JSON
        if not document.in_step or not settings.adapter.include_unsaved:
            return None
        if document.language not in settings.files.languages:
            return None
        text = to_engine_text(document.text)
        return text if len(text.encode("utf-8")) <= settings.files.max_size_kb * 1024 else None

    def _withdraw(self, uri: str) -> None:
        location = self._sent.pop(uri, None)
        if location is not None:
            self._send(Buffer(folder=location.folder, path=location.path, text=None))
