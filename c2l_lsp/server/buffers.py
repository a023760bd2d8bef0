"""Texts of open documents for the engine, at most one per document every 300 ms. Learns nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from c2l_lsp.config import Settings
from c2l_lsp.engine.wire import Buffer
from c2l_lsp.server.documents import Document, sendable
from c2l_lsp.server.folders import Place

THROTTLE = 0.3


class BufferFeed:
    """Sends buffers of documents inside a folder, in a language the adapter learns, up to the size limit."""

    def __init__(
        self, send: Callable[[Buffer], None], place: Callable[[str], Place], settings: Callable[[str], Settings]
    ) -> None:
        self._send = send
        self._place = place
        self._settings = settings
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def changed(self, document: Document) -> None:
        """A document was opened or edited; its text is sent soon."""
        if document.uri not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[document.uri] = loop.call_later(THROTTLE, self._flush, document)

    def closed(self, document: Document) -> None:
        """A document was closed; the file on disk counts again."""
        timer = self._timers.pop(document.uri, None)
        if timer is not None:
            timer.cancel()
        self._take_back(document)

    def stop(self) -> None:
        """Send nothing more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _flush(self, document: Document) -> None:
        self._timers.pop(document.uri, None)
        place = self._place(document.uri)
        settings = self._settings(place.folder)
        if not place.folder or not settings.adapter.include_unsaved:
            self._take_back(document)
        elif document.language in settings.files.languages:
            text = sendable(document.text)
            if len(text.encode("utf-8")) > settings.files.max_size_kb * 1024:
                self._take_back(document)
            else:
                self._send(Buffer(folder=place.folder, path=place.path, text=text))

    def _take_back(self, document: Document) -> None:
        place = self._place(document.uri)
        if place.folder:
            self._send(Buffer(folder=place.folder, path=place.path, text=None))
