"""The byte stream to the editor: seals stdout, cuts stdin into message bodies, writes without blocking the loop.

Imported before anything that could print. Knows the base protocol's headers and nothing of JSON-RPC.
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
_BEGUN = re.compile(rb"(?:[A-Za-z][A-Za-z-]{0,63}(?::[\t\x20-\x7e]*\r?)?)?|\r")
_INSIDE = re.compile(rb"content-length:[\t ]*\d+\r\n(?:[a-z][a-z-]*:[\t\x20-\x7e]*\r\n)*\r\n", re.IGNORECASE)
_END = b"\r\n\r\n"


class FramingError(Exception):
    """The stream cannot be cut into messages any more; only ending helps."""


def seal() -> tuple[int, int]:
    """Private descriptors of the protocol's (input, output). Afterwards a print lands in stderr, not in the stream."""
    sys.stdout.flush()
    source, sink = os.dup(0), os.dup(1)
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(source, os.O_BINARY)
        msvcrt.setmode(sink, os.O_BINARY)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # a child process that reads its input must not eat the editor's messages
    os.close(nothing)
    os.dup2(2, 1)
    return source, sink


class Framer:
    """Bytes in, message bodies out. Raises FramingError where the stream can no longer be trusted.

    It does not wait for what cannot come: bytes that no header begins with end the stream at once, and so does a
    header inside of a body. No JSON text can hold one (a line break in a string is escaped), so the body's announced
    length was wrong, and whoever sent the next message would wait for its answer in vain.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._need: int | None = None
        self._searched = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies completed by these bytes."""
        self._buffer += data
        while True:
            if self._need is None:
                end = self._buffer.find(_END, 0, MAX_HEADER)
                if end < 0:
                    _check_begun(bytes(self._buffer[: MAX_HEADER + 1]))
                    return
                self._need, self._searched = content_length(bytes(self._buffer[:end])), 0
                del self._buffer[: end + 4]
            self._check_body(min(self._need, len(self._buffer)))
            if len(self._buffer) < self._need:
                return
            body = bytes(self._buffer[: self._need])
            del self._buffer[: self._need]
            self._need = None
            yield body

    def _check_body(self, have: int) -> None:
        """Look for a header in what is new of a body; one may have begun shortly before."""
        at = self._buffer.find(_END, max(0, self._searched - 3), have)
        if at >= 0 and _INSIDE.search(self._buffer, max(0, at - MAX_HEADER), have):
            raise FramingError("A message is shorter than its header announced.")
        self._searched = have


def _check_begun(header: bytes) -> None:
    """FramingError if no header can begin like this."""
    *lines, last = header.split(b"\r\n")
    if len(header) > MAX_HEADER:
        raise FramingError("A message header is too long.")
    if not (all(map(_LINE.fullmatch, lines)) and _BEGUN.fullmatch(last)):
        raise FramingError("What should be a message header is none.")


def content_length(header: bytes) -> int:
    """The length a header announces. FramingError if there is none, or it is over the limit."""
    lengths = set()
    for line in header.split(b"\r\n"):
        if not _LINE.fullmatch(line):
            raise FramingError("What should be a message header is none.")
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            digits = value.strip()
            if not digits.isdigit() or len(digits) > 12 or int(digits) > MAX_MESSAGE:
                raise FramingError(f"A message of more than {MAX_MESSAGE} bytes or of no readable length is announced.")
            lengths.add(int(digits))
    if len(lengths) != 1:
        raise FramingError(f"A message header has {'no' if not lengths else 'more than one'} Content-Length.")
    return lengths.pop()


def read_in_thread(descriptor: int, on_data: Callable[[bytes], None]) -> threading.Thread:
    """Call `on_data` (in a thread) with what arrives; b"" at the end. The thread never keeps the process alive."""

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
    """Writes whole messages in a thread, in order: an editor that stops reading must not stop the loop.

    `on_lost` is called once, in that thread, when the editor is gone or has let too much pile up.
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
        """Queue one message."""
        with self._lock:
            self._unsent += len(data)
            flooded = self._unsent > MAX_UNSENT
        if flooded:
            self._lose()
        elif not self._lost:
            self._queue.put(data)

    def close(self, timeout: float = 1.0) -> None:
        """Send what is queued, within the time."""
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
