"""Where the engine's reading thread leaves requests for the main loop. No streams, no engine."""

from __future__ import annotations

import threading
from collections import deque

from c2l_lsp.engine import wire


class Inbox:
    """Requests from the reader thread: completions apart from the rest, and who was cancelled.

    Of the texts of one buffer only the latest is held; the requests of the older ones are answered all the same.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._completions: deque[wire.Request] = deque()
        self._others: deque[list[wire.Request]] = deque()
        self._texts: dict[tuple[object, object], list[wire.Request]] = {}
        self._cancelled: set[int] = set()
        self._pending: set[int] = set()
        self.closed = False

    def add(self, request: wire.Request) -> None:
        """Called by the reader for each request."""
        with self._condition:
            if request.method == "cancel":
                target = request.params.get("id")
                if target in self._pending:  # a reply already sent cannot be cancelled; do not collect ids for ever
                    self._cancelled.add(target)
            self._pending.add(request.id)
            if request.method == "complete":
                self._completions.append(request)
            else:
                self._others.append(self._held(request))
            self._condition.notify()

    def _held(self, request: wire.Request) -> list[wire.Request]:
        held = [request]
        if request.method == "buffer":
            place = _place(request)
            if (older := self._texts.get(place)) is not None:
                older[0] = wire.Request(id=older[0].id, method="ping", params={})
            self._texts[place] = held
        return held

    def close(self) -> None:
        """The stream has ended."""
        with self._condition:
            self.closed = True
            self._condition.notify()

    def take(self, wait_s: float) -> wire.Request | None:
        """The next request, control messages before completions; None after `wait_s` seconds without one."""
        with self._condition:
            if not (self._completions or self._others or self.closed) and wait_s > 0:
                self._condition.wait(wait_s)
            if self._others:  # cheap by design, and a closed buffer must not wait behind a long completion
                held = self._others.popleft()
                if held[0].method == "buffer":
                    self._texts.pop(_place(held[0]), None)
                return held[0]
            return self._completions.popleft() if self._completions else None

    def cancelled(self, request_id: int) -> bool:
        """Whether nobody waits for this request any more (or for anything)."""
        return request_id in self._cancelled or self.closed

    def done(self, request_id: int) -> None:
        """The request is answered."""
        with self._condition:
            self._pending.discard(request_id)
            self._cancelled.discard(request_id)


def _place(request: wire.Request) -> tuple[object, object]:
    return str(request.params.get("folder")), str(request.params.get("path"))
