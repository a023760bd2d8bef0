"""Texts of open documents for the engine, at most one per document every 300 ms. Learns nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from c2l_lsp.config import Settings
from c2l_lsp.engine.wire import Buffer
from c2l_lsp.server.workspace.documents import Document, sendable
from c2l_lsp.server.workspace.folders import Place

THROTTLE = 0.3


class BufferFeed:
    """Sends buffers of documents inside a folder, in a language the adapter learns, up to the size limit.

    Remembers where a document's text went: folders come and go, and an old place must not keep it.
    """

    def __init__(
        self, send: Callable[[Buffer], None], place: Callable[[str], Place], settings: Callable[[str], Settings]
    ) -> None:
        self._send = send
        self._place = place
        self._settings = settings
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._sent: dict[str, Place] = {}

    def changed(self, document: Document) -> None:
        """A document was opened or edited, or settings or folders changed; its text is sent soon."""
        if document.uri not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[document.uri] = loop.call_later(THROTTLE, self._flush, document)

    def closed(self, document: Document) -> None:
        """A document was closed; the file on disk counts again."""
        timer = self._timers.pop(document.uri, None)
        if timer is not None:
            timer.cancel()
        self._take_back(document.uri)

    def stop(self) -> None:
        """Send nothing more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _flush(self, document: Document) -> None:
        self._timers.pop(document.uri, None)
        place = self._place(document.uri)
        if self._sent.get(document.uri) != place:
            self._take_back(document.uri)
        text = self._wanted(document, self._settings(place.folder)) if place.folder else None
        if text is None:
            self._take_back(document.uri)
        else:
            self._sent[document.uri] = place
            self._send(Buffer(folder=place.folder, path=place.path, text=text))

    def _wanted(self, document: Document, settings: Settings) -> str | None:
        if not settings.adapter.include_unsaved or document.language not in settings.files.languages:
            return None
        text = sendable(document.text)
        return text if len(text.encode("utf-8")) <= settings.files.max_size_kb * 1024 else None

    def _take_back(self, uri: str) -> None:
        place = self._sent.pop(uri, None)
        if place is not None:
            self._send(Buffer(folder=place.folder, path=place.path, text=None))
