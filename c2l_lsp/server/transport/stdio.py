"""The byte stream to the editor: redirects stdout, splits stdin into message bodies, writes without blocking the loop.

Import this module before anything that could print. It implements the base protocol (headers and bodies), not JSON-RPC.
"""

from __future__ import annotations

import os
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator

MAX_MESSAGE = 64 * 1024 * 1024
MAX_HEADER = 8 * 1024
MAX_UNSENT = 64 * 1024 * 1024
_CHUNK = 64 * 1024
_LINE = re.compile(rb"[A-Za-z][A-Za-z-]{0,63}:[\t\x20-\x7e]*")
_PARTIAL_LINE = re.compile(rb"(?:[A-Za-z][A-Za-z-]{0,63}(?::[\t\x20-\x7e]*\r?)?)?|\r")
_HEADER_IN_BODY = re.compile(rb"content-length:[\t ]*\d+\r\n(?:[a-z][a-z-]*:[\t\x20-\x7e]*\r\n)*\r\n", re.IGNORECASE)
_END = b"\r\n\r\n"


class FramingError(Exception):
    """The stream can no longer be split into messages. The server has to end."""


def isolate() -> tuple[int, int]:
    """Move the protocol to private descriptors and return them as (input, output).

    Afterwards stdout is stderr, so that a print does not corrupt the stream, and stdin is empty, so that a child
    process cannot read the editor's messages.
    """
    sys.stdout.flush()
    source, sink = os.dup(0), os.dup(1)
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(source, os.O_BINARY)
        msvcrt.setmode(sink, os.O_BINARY)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return source, sink


class Framer:
    """Splits a byte stream into message bodies.

    Raises FramingError as early as possible, because the editor would wait for an answer that cannot come: at bytes
    that cannot start a header, and at a header inside a body. JSON cannot contain a header (line breaks in strings are
    escaped), so the Content-Length before it was too large.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._expected: int | None = None
        self._searched = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the bodies that `data` completes."""
        self._buffer += data
        while True:
            if self._expected is None:
                end = self._buffer.find(_END, 0, MAX_HEADER)
                if end < 0:
                    _check_partial_header(bytes(self._buffer[: MAX_HEADER + 1]))
                    return
                self._expected, self._searched = content_length(bytes(self._buffer[:end])), 0
                del self._buffer[: end + 4]
            self._check_body(min(self._expected, len(self._buffer)))
            if len(self._buffer) < self._expected:
                return
            body = bytes(self._buffer[: self._expected])
            del self._buffer[: self._expected]
            self._expected = None
            yield body

    def _check_body(self, length: int) -> None:
        """Search the new part of a body for a header, which may have started in the part searched before."""
        at = self._buffer.find(_END, max(0, self._searched - 3), length)
        if at >= 0 and _HEADER_IN_BODY.search(self._buffer, max(0, at - MAX_HEADER), length):
            raise FramingError("A message is shorter than its Content-Length.")
        self._searched = length


def _check_partial_header(header: bytes) -> None:
    *lines, last = header.split(b"\r\n")
    if len(header) > MAX_HEADER:
        raise FramingError(f"A message header is longer than {MAX_HEADER} bytes.")
    if not (all(map(_LINE.fullmatch, lines)) and _PARTIAL_LINE.fullmatch(last)):
        raise FramingError("A message header is malformed.")


def content_length(header: bytes) -> int:
    """The Content-Length of a header. FramingError if it is missing, ambiguous, invalid or over MAX_MESSAGE."""
    lengths = set()
    for line in header.split(b"\r\n"):
        if not _LINE.fullmatch(line):
            raise FramingError("A message header is malformed.")
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            digits = value.strip()
            if not digits.isdigit() or len(digits) > 12 or int(digits) > MAX_MESSAGE:
                raise FramingError(f"A Content-Length is not a number of at most {MAX_MESSAGE} bytes.")
            lengths.add(int(digits))
    if len(lengths) != 1:
        raise FramingError(f"A message header has {'no' if not lengths else 'more than one'} Content-Length.")
    return lengths.pop()


def start_reader(descriptor: int, on_data: Callable[[bytes], None]) -> threading.Thread:
    """Start a daemon thread that calls `on_data` with each chunk read, and with b"" at the end or on an error."""

    def read() -> None:
        while True:
            try:
                data = os.read(descriptor, _CHUNK)
            except OSError:
                data = b""
            on_data(data)
            if not data:
                return

    thread = threading.Thread(target=read, name="c2l-stdin", daemon=True)
    thread.start()
    return thread


class Writer:
    """Writes messages in order from a thread, so that an editor that stops reading does not block the loop.

    `on_lost` is called once, from any thread, if the editor is gone or more than MAX_UNSENT bytes are unsent.
    """

    def __init__(self, descriptor: int, on_lost: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._on_lost = on_lost
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._unsent = 0
        self._lost = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="c2l-stdout", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Queue one message. Discards it if the editor is lost."""
        with self._lock:
            self._unsent += len(data)
            overflow = self._unsent > MAX_UNSENT
        if overflow:
            self._lose()
        elif not self._lost:
            self._queue.put(data)

    def close(self, timeout: float = 1.0) -> None:
        """Send the queued messages, waiting at most `timeout` seconds."""
        self._queue.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            view = memoryview(data)
            try:
                while view:
                    view = view[os.write(self._descriptor, view) :]
            except OSError:
                self._lose()
                return
            with self._lock:
                self._unsent -= len(data)

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            self._on_lost()
