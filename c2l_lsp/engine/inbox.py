"""Queue of requests between the thread that reads frames and the main loop."""

from __future__ import annotations

import threading
from collections import deque

from c2l_lsp.engine import wire


class Inbox:
    """Requests that wait, completions apart from the others, and the ids of cancelled requests.

    For each document, only the latest waiting `buffer` request is kept. An older one is replaced by a `ping`, so that
    it is still answered.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._completions: deque[wire.Request] = deque()
        self._others: deque[list[wire.Request]] = deque()  # boxes of one request, so that it can be replaced
        self._buffers: dict[tuple[object, object], list[wire.Request]] = {}
        self._cancelled: set[int] = set()
        self._pending: set[int] = set()
        self.closed = False

    def add(self, request: wire.Request) -> None:
        """Append a request. Called by the reader thread."""
        with self._condition:
            if request.method == "cancel":
                target = request.params.get("id")
                if target in self._pending:  # otherwise it is answered already, and the id would never be removed
                    self._cancelled.add(target)
            self._pending.add(request.id)
            if request.method == "complete":
                self._completions.append(request)
            else:
                self._others.append(self._box(request))
            self._condition.notify()

    def _box(self, request: wire.Request) -> list[wire.Request]:
        box = [request]
        if request.method == "buffer":
            document = _document(request)
            if (older := self._buffers.get(document)) is not None:
                older[0] = wire.Request(id=older[0].id, method="ping", params={})
            self._buffers[document] = box
        return box

    def close(self) -> None:
        """Mark the stream as ended. Waiting requests can still be taken."""
        with self._condition:
            self.closed = True
            self._condition.notify()

    def take(self, wait_s: float) -> wire.Request | None:
        """Return the next request, or None after `wait_s` seconds without one.

        Other requests come before completions: they take little time, and a closed document must not wait for a long
        completion.
        """
        with self._condition:
            if not (self._completions or self._others or self.closed) and wait_s > 0:
                self._condition.wait(wait_s)
            if self._others:
                (request,) = self._others.popleft()
                if request.method == "buffer":
                    self._buffers.pop(_document(request), None)
                return request
            return self._completions.popleft() if self._completions else None

    def is_cancelled(self, request_id: int) -> bool:
        """Return whether the request was cancelled or the stream has ended."""
        return request_id in self._cancelled or self.closed

    def finish(self, request_id: int) -> None:
        """Forget a request that was answered."""
        with self._condition:
            self._pending.discard(request_id)
            self._cancelled.discard(request_id)


def _document(request: wire.Request) -> tuple[object, object]:
    return str(request.params.get("folder")), str(request.params.get("path"))
