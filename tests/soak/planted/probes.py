"""Probes: no faults, but access to the inside of a server or an engine. They are planted like faults."""

from __future__ import annotations

import hashlib
import logging
import os
import select
import signal
import struct
import sys
import time
from typing import Any


def noted(_: str) -> None:
    """Write every network address that is used to the file C2L_SOAK_NOTES."""
    out = os.environ["C2L_SOAK_NOTES"]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname"):
            address = args[1] if event in ("socket.connect", "socket.bind") else args
            if isinstance(address, tuple):
                descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                os.write(descriptor, f"{event} {address[:2]}\n".encode())
                os.close(descriptor)

    sys.addaudithook(hook)


def stalls(lossy: str) -> None:
    """On SIGUSR1, stop the thread that reads the watcher's events for 5 s.

    `stalls:1`: replace the events of that time by an overflow event, as if the kernel's queue had been too short.
    Every overflow that reaches the watcher is written to the file C2L_SOAK_NOTES.
    """
    from watchdog.observers.inotify_c import InotifyConstants, InotifyFD

    from c2l_lsp.repo.watching import watch

    until = [0.0]
    signal.signal(signal.SIGUSR1, lambda *_: until.__setitem__(0, time.monotonic() + 5.0))
    real = InotifyFD._read_event_buffer
    lost: Any = watch.Watcher._on_events_lost
    overflow = struct.pack("iIII", -1, InotifyConstants.IN_Q_OVERFLOW, 0, 0)

    def read(self: InotifyFD, event_buffer_size: int) -> bytes:
        stood = False
        while self._check_inotify_fd() and time.monotonic() < until[0]:
            stood = True
            time.sleep(0.05)
        data = real(self, event_buffer_size)
        if not (lossy and stood):
            return data
        while select.select([self._inotify_fd], [], [], 0)[0] and os.read(self._inotify_fd, event_buffer_size):
            continue
        return overflow

    def on_events_lost(self: watch.Watcher, loss: str) -> None:
        descriptor = os.open(os.environ["C2L_SOAK_NOTES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, f"{loss}\n".encode())
        os.close(descriptor)
        lost(self, loss)

    InotifyFD._read_event_buffer = read  # type: ignore[method-assign]
    watch.Watcher._on_events_lost = on_events_lost  # type: ignore[method-assign]


def steps(least_ms: str) -> None:
    """Write start and end of each prefill and decode step to the file C2L_SOAK_NOTES.

    A step takes at least `least_ms`; otherwise a tiny model would finish before it can be cancelled.
    """
    from c2l_lsp.engine.completion import decode

    out = os.open(os.environ["C2L_SOAK_NOTES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def timed(name: str, kind: str, least_s: float = 0.0) -> None:
        real: Any = getattr(decode.Decoder, name)

        def call(*args: Any, **more: Any) -> Any:
            began = time.monotonic()
            try:
                return real(*args, **more)
            finally:
                time.sleep(max(0.0, began + least_s - time.monotonic()))
                os.write(out, f"{kind} {began!r} {time.monotonic()!r}\n".encode())

        setattr(decode.Decoder, name, call)

    timed("prefill", "read")
    timed("_step", "step", int(least_ms or "0") / 1e3)


def loud(_: str) -> None:
    """Log everything to stderr, except pygls, which the server silences."""
    logging.basicConfig(stream=sys.stderr, level=logging.DEBUG, format="%(levelname)s %(name)s %(message)s")


def eager(_: str) -> None:
    """Retry a failed save after 2 s instead of a minute."""
    from c2l_lsp.engine.adaptation import persistence

    persistence.RETRY_S = 2.0


def census(_: str) -> None:
    """Write counts to the file C2L_SOAK_NOTES.

    A server writes the digests of its documents on SIGUSR1. An engine writes every new maximum of its queue length and
    of the number of texts in the queue. `tests.soak.planted.engine.census` adds what only an engine can count.
    """
    from c2l_lsp.engine import inbox
    from c2l_lsp.server.workspace import documents

    out = os.open(os.environ["C2L_SOAK_NOTES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    created: list[documents.Documents] = []
    made, add = documents.Documents.__init__, inbox.Inbox.add
    longest = {"queue": 0, "texts": 0}

    def begun(self: documents.Documents) -> None:
        made(self)
        created.append(self)

    def counted(self: inbox.Inbox, request: Any) -> None:
        add(self, request)
        texts = sum(queued[0].method == "buffer" for queued in tuple(self._others))
        for kind, length in (("queue", len(self._others) + len(self._completions)), ("texts", texts)):
            if length > longest[kind]:
                longest[kind] = length
                os.write(out, f"{kind} {length}\n".encode())

    def write_digests(*_: object) -> None:
        for document in (document for one in created for document in one):
            data = document.text.encode("utf-8", "surrogatepass")
            digest = hashlib.blake2b(data, digest_size=16).hexdigest()
            os.write(out, f"text {document.uri} {digest}\n".encode())
        os.write(out, b"end\n")

    documents.Documents.__init__ = begun  # type: ignore[method-assign]
    inbox.Inbox.add = counted  # type: ignore[method-assign]
    signal.signal(signal.SIGUSR1, write_digests)
