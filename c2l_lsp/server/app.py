"""The server process: `serve()` seals stdout, wires the parts, runs until the editor ends, leaves no engine behind.

Imports at module level are only what cannot print; pygls comes after the seal. Nothing here or below imports torch.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from c2l_lsp.server import stdio

if TYPE_CHECKING:
    from c2l_lsp.server.engine_client import Policy
    from c2l_lsp.server.rpc import Server
    from c2l_lsp.server.session import Session

log = logging.getLogger("c2l.server")
_GRACE = 2.0


def serve(command: Sequence[str] | None = None, policy: Policy | None = None, log_level: str = "WARNING") -> int:
    """Serve one editor over stdin and stdout; the exit code. `command` starts the engine."""
    source, sink = stdio.seal()
    logging.basicConfig(stream=sys.stderr, level=log_level.upper(), format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("pygls").setLevel(logging.CRITICAL)  # it logs whole messages, source text included
    return asyncio.run(_serve(source, sink, command, policy))


async def _serve(source: int, sink: int, command: Sequence[str] | None, policy: Policy | None) -> int:
    from c2l_lsp.server import commands, features
    from c2l_lsp.server.rpc import Server
    from c2l_lsp.server.session import ENGINE_COMMAND, Session

    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    server = Server("c2l-lsp", _version())
    session = Session(server.protocol.tell, server.create_bar, command or ENGINE_COMMAND, policy)

    def lost() -> None:
        """In any thread: the editor is gone. The loop gets a moment to end in order, and no more."""
        timer = threading.Timer(_GRACE, _die, [session])
        timer.daemon = True
        timer.start()
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            loop.call_soon_threadsafe(ended.set)

    writer = stdio.Writer(sink, lost)
    server.protocol.set_writer(writer)
    server.protocol.ended, server.on_editor_lost = ended, lost
    features.register(server, session)
    commands.register(server, session)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(ended.set))
    try:
        await _listen(source, server, ended)
    finally:
        await session.close()
        writer.close()
    return server.protocol.exit_code


async def _listen(source: int, server: Server, ended: asyncio.Event) -> None:
    """Hand over message after message until the stream ends, breaks, or `ended` is set."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue(maxsize=4)  # so that a flood waits in the pipe, not in memory

    def on_data(data: bytes) -> None:
        with contextlib.suppress(RuntimeError, concurrent.futures.CancelledError):  # the loop has ended
            asyncio.run_coroutine_threadsafe(chunks.put(data), loop).result()

    stdio.read_in_thread(source, on_data)
    framer = stdio.Framer()
    end = asyncio.ensure_future(ended.wait())
    while not ended.is_set():
        coming = asyncio.ensure_future(chunks.get())
        await asyncio.wait([coming, end], return_when=asyncio.FIRST_COMPLETED)
        data = coming.result() if coming.done() else b""
        if not data:
            coming.cancel()
            break
        try:
            for body in framer.feed(data):
                server.protocol.receive(body)
                # The handler of a request starts before the next message: it sees the text it was asked about.
                await asyncio.sleep(0)
                if ended.is_set():
                    break
        except stdio.FramingError as error:
            log.error("%s The server ends.", error)
            server.protocol.refuse_stream(str(error))
            break
    end.cancel()


def _die(session: Session) -> None:
    pid = session.engine.pid
    if pid is not None:
        with contextlib.suppress(OSError):
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    os._exit(1)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("c2l-lsp")
    except PackageNotFoundError:
        return "0"


if __name__ == "__main__":
    sys.exit(serve())
