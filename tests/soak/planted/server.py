"""Faults of a server. Each function plants one in this process; its argument is the number after the name."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any


def lenient(_: str) -> None:
    """The framing accepts any header and waits for more data."""
    from c2l_lsp.server.transport import stdio

    strict: Any = stdio.content_length

    def content_length(header: bytes) -> int:
        try:
            found: int = strict(header)
        except stdio.FramingError:
            return 0
        return found

    stdio.content_length = content_length
    stdio._check_partial_header = lambda header: None
    stdio.Framer._check_body = lambda self, length: None  # type: ignore[method-assign]


def silent(_: str) -> None:
    """Malformed messages get no answer."""
    from c2l_lsp.server.transport import rpc

    rpc.Protocol._send_error = lambda *_, **__: None  # type: ignore[method-assign]


def numb(_: str) -> None:
    """After a body that is no message, the server runs on and answers nothing."""
    from c2l_lsp.server.transport import rpc

    real = rpc.Protocol._send_error

    def send_error(self: Any, msg_id: Any, code: int, *args: Any, **more: Any) -> None:
        real(self, msg_id, code, *args, **more)
        if msg_id is None and code in (rpc.PARSE_ERROR, rpc.INVALID_REQUEST):
            self._send_error = self._send_response = lambda *_, **__: None

    rpc.Protocol._send_error = send_error  # type: ignore[method-assign]


def _replies(times: Callable[[int], int]) -> None:
    from c2l_lsp.server.transport import rpc

    real = rpc.Protocol._send_response
    count = 0

    def send(self: Any, *args: Any, **more: Any) -> None:
        nonlocal count
        count += 1
        for _ in range(times(count)):
            real(self, *args, **more)

    rpc.Protocol._send_response = send  # type: ignore[method-assign]


def forget(_: str) -> None:
    """Every tenth reply is not sent."""
    _replies(lambda count: 0 if count % 10 == 9 else 1)


def twice(_: str) -> None:
    """Every tenth reply is sent twice."""
    _replies(lambda count: 2 if count % 10 == 9 else 1)


def stays(_: str) -> None:
    """The server ignores the end of its input and of the editor's process."""
    from c2l_lsp.server.transport import parent_watch, stdio

    parent_watch.watch = lambda *_, **__: threading.current_thread()
    real = stdio.start_reader

    def read(descriptor: int, on_data: Callable[[bytes], None]) -> threading.Thread:
        def heeded(data: bytes) -> None:
            on_data(data) if data else threading.Event().wait()

        return real(descriptor, heeded)

    stdio.start_reader = read


def given_up(_: str) -> None:
    """An engine that has ended is not restarted, without a status."""
    from c2l_lsp.server.transport import engine_client

    async def supervise(self: Any) -> None:
        try:
            await self._run_process()
        finally:
            await asyncio.Event().wait()

    engine_client.EngineClient._supervise = supervise  # type: ignore[method-assign]


def hoards(_: str) -> None:
    """Every version of every document stays in memory."""
    from c2l_lsp.server.workspace import documents

    kept: list[str] = []
    real = documents.Document.apply

    def apply(self: documents.Document, edits: Any, version: int | None = None) -> None:
        real(self, edits, version)
        kept.append(self.text + " " * 1_000_000)

    documents.Document.apply = apply  # type: ignore[method-assign]


def calls_home(_: str) -> None:
    """The server connects to another program at the start."""
    from c2l_lsp.server.transport import initialize

    real = initialize.initialize_result

    def initialize_result(params: Any) -> Any:
        with socket.socket() as one:
            one.settimeout(1.0)
            one.connect_ex(("127.0.0.1", 9))
        return real(params)

    initialize.initialize_result = initialize_result


def quiet(_: str) -> None:
    """Warnings of the engine are dropped."""
    from c2l_lsp.engine import wire
    from c2l_lsp.server import session

    real = session.Session._on_event

    def heard(self: session.Session, event: Any) -> None:
        if not isinstance(event, wire.Trouble):
            real(self, event)

    session.Session._on_event = heard  # type: ignore[method-assign]


def chatty(_: str) -> None:
    """Opened documents are logged."""
    from c2l_lsp.server.workspace import documents

    real: Any = documents.Document.from_text

    def from_text(*args: Any, **more: Any) -> Any:
        logging.getLogger("c2l.server").debug("opened %s", args)
        return real(*args, **more)

    documents.Document.from_text = from_text  # type: ignore[method-assign]


def calls_natively(_: str) -> None:
    """Native code, invisible to Python hooks, sends to another program repeatedly."""
    libc = ctypes.CDLL(None)
    address = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", 9, b"\x7f\0\0\x01")

    def call() -> None:
        while True:
            descriptor = libc.socket(socket.AF_INET, socket.SOCK_DGRAM, 0)
            libc.connect(descriptor, address, len(address))
            time.sleep(0.2)
            os.close(descriptor)

    threading.Thread(target=call, daemon=True).start()


def drops(_: str) -> None:
    """Every fiftieth edit is not applied."""
    from c2l_lsp.server.workspace import documents

    real: Any = documents.Document.apply
    count = 0

    def apply(self: documents.Document, edits: Any, version: int | None = None) -> None:
        nonlocal count
        count += 1
        if count % 50:
            real(self, edits, version)

    documents.Document.apply = apply  # type: ignore[method-assign]
