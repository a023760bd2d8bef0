"""The server process: `serve()` runs until the editor ends and leaves no engine process behind.

Only modules that cannot print are imported at module level. pygls is imported after stdout has been redirected and
`initialize` has been answered. Nothing in this package imports torch.
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

from c2l_lsp import isolation
from c2l_lsp.server.transport import initialize, parent_watch, stdio

if TYPE_CHECKING:
    from c2l_lsp.server.session import Session
    from c2l_lsp.server.transport.engine_client import Policy
    from c2l_lsp.server.transport.rpc import Server

log = logging.getLogger("c2l.server")
_EXIT_GRACE = 2.0


def serve(command: Sequence[str] | None = None, policy: Policy | None = None) -> int:
    """Serve one editor over stdin and stdout; returns the exit code. `command` starts the engine process."""
    isolation.leave_folder()
    source, sink = stdio.isolate()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("pygls").setLevel(logging.CRITICAL)  # pygls logs whole messages, which contain source text
    return asyncio.run(_serve(source, sink, command, policy))


async def _serve(source: int, sink: int, command: Sequence[str] | None, policy: Policy | None) -> int:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    sessions: list[Session] = []  # empty until pygls is imported, then one session

    def on_editor_lost() -> None:
        """Called from any thread. Let the loop shut down in order, and kill the process if that takes too long."""
        timer = threading.Timer(_EXIT_GRACE, _kill_and_exit, [sessions])
        timer.daemon = True
        timer.start()
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(ended.set)

    writer = stdio.Writer(sink, on_editor_lost)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(ended.set))
    bodies = _bodies(source, ended)
    first = await anext(bodies, b"")
    request = initialize.parse_initialize(first)
    if request is not None:
        if request.editor_pid is not None:  # the editor may end before pygls is imported
            parent_watch.watch(request.editor_pid, on_editor_lost)
        writer.write(_framed({"jsonrpc": "2.0", "id": request.id, "result": request.result}))
        await asyncio.sleep(0)
    server, session = _create_session(writer, ended, on_editor_lost, command, policy)
    sessions.append(session)
    server.protocol.answered_initialize_id = request.id if request is not None else None
    try:
        await _process_messages(first, bodies, server, ended)
    finally:
        await session.close()
        writer.close()
    return server.protocol.exit_code


def _create_session(
    writer: stdio.Writer,
    ended: asyncio.Event,
    on_editor_lost: Callable[[], None],
    command: Sequence[str] | None,
    policy: Policy | None,
) -> tuple[Server, Session]:
    from c2l_lsp.server import commands, features, notebook_features
    from c2l_lsp.server.session import Session
    from c2l_lsp.server.transport.engine_client import ENGINE_COMMAND
    from c2l_lsp.server.transport.rpc import Server

    server = Server(ended, on_editor_lost)
    server.protocol.set_writer(writer)
    session = Session(server.protocol.send_notification, server.create_progress, command or ENGINE_COMMAND, policy)
    features.register(server, session)
    notebook_features.register(server, session)
    commands.register(server, session)
    return server, session


async def _process_messages(first: bytes, bodies: AsyncIterator[bytes], server: Server, ended: asyncio.Event) -> None:
    """Process messages until the stream ends or is malformed, or `ended` is set."""
    body = first
    try:
        while body and not ended.is_set():
            server.protocol.receive(body)
            # Let the handler start before the next message, so that it sees the text of its own time.
            await asyncio.sleep(0)
            body = await anext(bodies, b"")
    except stdio.FramingError as error:
        log.error("%s The server exits.", error)
        server.protocol.report_stream_error(str(error))


async def _bodies(source: int, ended: asyncio.Event) -> AsyncIterator[bytes]:
    """Yield message bodies until the stream ends or `ended` is set. FramingError if the stream is malformed."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue(maxsize=4)  # a flood of messages waits in the pipe, not in memory

    def on_data(data: bytes) -> None:
        with contextlib.suppress(RuntimeError, concurrent.futures.CancelledError):  # the loop is closed
            asyncio.run_coroutine_threadsafe(chunks.put(data), loop).result()

    stdio.start_reader(source, on_data)
    framer = stdio.Framer()
    end = asyncio.ensure_future(ended.wait())
    while True:
        next_chunk = asyncio.ensure_future(chunks.get())
        await asyncio.wait([next_chunk, end], return_when=asyncio.FIRST_COMPLETED)
        data = next_chunk.result() if next_chunk.done() else b""
        if not data:
            next_chunk.cancel()
            end.cancel()
            return
        for body in framer.feed(data):
            if body:  # ignore empty messages
                yield body


def _framed(message: dict[str, object]) -> bytes:
    body = json.dumps(message).encode()
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def _kill_and_exit(sessions: list[Session]) -> None:
    for session in sessions:
        if session.engine.pid is not None:
            with contextlib.suppress(OSError):
                os.kill(session.engine.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    os._exit(1)


if __name__ == "__main__":
    sys.exit(serve())
