"""The server process: `serve()` seals stdout, wires the parts, runs until the editor ends, leaves no engine behind.

Imports at module level are only what cannot print; pygls comes after the seal, and after `initialize` is answered.
Nothing here or below imports torch.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from c2l_lsp.server.transport import greeting, parent_watch, stdio

if TYPE_CHECKING:
    from c2l_lsp.server.session import Session
    from c2l_lsp.server.transport.engine_client import Policy
    from c2l_lsp.server.transport.rpc import Server

log = logging.getLogger("c2l.server")
_GRACE = 2.0


def serve(command: Sequence[str] | None = None, policy: Policy | None = None, log_level: str = "WARNING") -> int:
    """Serve one editor over stdin and stdout; the exit code. `command` starts the engine."""
    source, sink = stdio.seal()
    logging.basicConfig(stream=sys.stderr, level=log_level.upper(), format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("pygls").setLevel(logging.CRITICAL)  # it logs whole messages, source text included
    return asyncio.run(_serve(source, sink, command, policy))


async def _serve(source: int, sink: int, command: Sequence[str] | None, policy: Policy | None) -> int:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    sessions: list[Session] = []  # none until pygls is loaded, then one

    def lost() -> None:
        """In any thread: the editor is gone. The loop gets a moment to end in order, and no more."""
        timer = threading.Timer(_GRACE, _die, [sessions])
        timer.daemon = True
        timer.start()
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            loop.call_soon_threadsafe(ended.set)

    writer = stdio.Writer(sink, lost)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(ended.set))
    bodies = _bodies(source, ended)
    first = await anext(bodies, b"")
    answered = greeting.early(first)
    if answered is not None:
        if answered.editor is not None:  # now: it may be gone before pygls is loaded
            parent_watch.watch(answered.editor, lost)
        writer.write(_framed({"jsonrpc": "2.0", "id": answered.id, "result": answered.result}))
        await asyncio.sleep(0)
    server, session = _wire(writer, ended, lost, command, policy)
    sessions.append(session)
    server.protocol.answered = answered.id if answered is not None else None
    try:
        await _listen(first, bodies, server, ended)
    finally:
        await session.close()
        writer.close()
    return server.protocol.exit_code


def _wire(
    writer: stdio.Writer,
    ended: asyncio.Event,
    lost: Callable[[], None],
    command: Sequence[str] | None,
    policy: Policy | None,
) -> tuple[Server, Session]:
    from c2l_lsp.server import commands, features
    from c2l_lsp.server.session import Session
    from c2l_lsp.server.transport.engine_client import ENGINE_COMMAND
    from c2l_lsp.server.transport.rpc import Server

    server = Server(ended, lost)
    server.protocol.set_writer(writer)
    session = Session(server.protocol.tell, server.create_bar, command or ENGINE_COMMAND, policy)
    features.register(server, session)
    commands.register(server, session)
    return server, session


async def _listen(first: bytes, bodies: AsyncIterator[bytes], server: Server, ended: asyncio.Event) -> None:
    """Hand over message after message until the stream ends, breaks, or `ended` is set."""
    body = first
    try:
        while body and not ended.is_set():
            server.protocol.receive(body)
            # The handler of a request starts before the next message: it sees the text it was asked about.
            await asyncio.sleep(0)
            body = await anext(bodies, b"")
    except stdio.FramingError as error:
        log.error("%s The server ends.", error)
        server.protocol.refuse_stream(str(error))


async def _bodies(source: int, ended: asyncio.Event) -> AsyncIterator[bytes]:
    """The editor's messages until its stream ends or `ended` is set. FramingError if they cannot be told apart."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue(maxsize=4)  # so that a flood waits in the pipe, not in memory

    def on_data(data: bytes) -> None:
        with contextlib.suppress(RuntimeError, concurrent.futures.CancelledError):  # the loop has ended
            asyncio.run_coroutine_threadsafe(chunks.put(data), loop).result()

    stdio.read_in_thread(source, on_data)
    framer = stdio.Framer()
    end = asyncio.ensure_future(ended.wait())
    while True:
        coming = asyncio.ensure_future(chunks.get())
        await asyncio.wait([coming, end], return_when=asyncio.FIRST_COMPLETED)
        data = coming.result() if coming.done() else b""
        if not data:
            coming.cancel()
            end.cancel()
            return
        for body in framer.feed(data):
            if body:  # a message of no bytes says nothing
                yield body


def _framed(message: dict[str, object]) -> bytes:
    body = json.dumps(message).encode()
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def _die(sessions: list[Session]) -> None:
    for session in sessions:
        if session.engine.pid is not None:
            with contextlib.suppress(OSError):
                os.kill(session.engine.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    os._exit(1)


if __name__ == "__main__":
    sys.exit(serve())
