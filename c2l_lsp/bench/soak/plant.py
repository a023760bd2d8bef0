"""A server or an engine with a fault planted: `python -m c2l_lsp.bench.soak.plant FAULTS server|engine`.

FAULTS are names joined by "+", some with a number (`oom:3`). A server hands them on to its engine.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


def lenient(_: str) -> None:
    """Framing that takes anything for a header and waits for more."""
    from c2l_lsp.server import stdio

    strict: Any = stdio.content_length

    def content_length(header: bytes) -> int:
        try:
            found: int = strict(header)
        except stdio.FramingError:
            return 0
        return found

    stdio.content_length = content_length
    stdio._check_begun = lambda header: None
    stdio.Framer._check_body = lambda self, have: None  # type: ignore[method-assign]


def silent(_: str) -> None:
    """What is malformed is not answered."""
    from c2l_lsp.server import rpc

    rpc.Protocol._refuse = lambda *_, **__: None  # type: ignore[method-assign]


def _replies(times: Callable[[int], int]) -> None:
    from c2l_lsp.server import rpc

    real = rpc.Protocol._send_response
    count = 0

    def send(self: Any, *args: Any, **more: Any) -> None:  # noqa: ANN401
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
    """A server that heeds neither the end of its stream nor the editor's process."""
    from c2l_lsp.server import parent, stdio

    parent.watch = lambda *_, **__: threading.current_thread()
    real = stdio.read_in_thread

    def read(descriptor: int, on_data: Callable[[bytes], None]) -> threading.Thread:
        def heeded(data: bytes) -> None:
            on_data(data) if data else threading.Event().wait()

        return real(descriptor, heeded)

    stdio.read_in_thread = read


def given_up(_: str) -> None:
    """An engine that ended is not started again, and nobody is told."""
    from c2l_lsp.server import engine_client

    async def supervise(self: Any) -> None:  # noqa: ANN401
        try:
            await self._session()
        finally:
            await asyncio.Event().wait()

    engine_client.EngineClient._supervise = supervise  # type: ignore[method-assign]


def hoards(_: str) -> None:
    """Every version of every document is kept."""
    from c2l_lsp.server import documents

    kept: list[str] = []
    real = documents.Document.apply

    def apply(self: documents.Document, edits: Any, version: int) -> None:  # noqa: ANN401
        real(self, edits, version)
        kept.append(self.text + " " * 1_000_000)

    documents.Document.apply = apply  # type: ignore[method-assign]


def calls_home(_: str) -> None:
    """A connection to another program at the start."""
    from c2l_lsp.server import greeting

    real = greeting.result

    def result(params: Any) -> Any:  # noqa: ANN401
        with socket.socket() as one:
            one.settimeout(1.0)
            one.connect_ex(("127.0.0.1", 9))
        return real(params)

    greeting.result = result


def quiet(_: str) -> None:
    """No trouble is told."""
    from c2l_lsp.engine import wire
    from c2l_lsp.server import session

    real = session.Session._on_event

    def heard(self: session.Session, event: Any) -> None:  # noqa: ANN401
        if not isinstance(event, wire.Trouble):
            real(self, event)

    session.Session._on_event = heard  # type: ignore[method-assign]


def noted(_: str) -> None:
    """No fault: every network address that is connected to goes into the file named by C2L_SOAK_NOTES."""
    out = os.environ["C2L_SOAK_NOTES"]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname"):
            address = args[1] if event in ("socket.connect", "socket.bind") else args
            if isinstance(address, tuple):
                descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                os.write(descriptor, f"{event} {address[:2]}\n".encode())
                os.close(descriptor)

    sys.addaudithook(hook)


def kept_open(_: str) -> None:
    """A closed folder goes on being watched."""
    from c2l_lsp.engine import adapt

    adapt.FolderLife.stop = lambda self: None  # type: ignore[method-assign]


def deaf(_: str) -> None:
    """An engine that does not heed a cancel."""
    from c2l_lsp.engine import inbox

    inbox.Inbox.cancelled = lambda self, request_id: False  # type: ignore[method-assign]


def unseen(_: str) -> None:
    """Events of the watcher are lost, and nobody is told."""
    from c2l_lsp.engine import adapt
    from c2l_lsp.repo import watch

    watch.Watcher._lost = lambda self, loss: None  # type: ignore[method-assign]
    watch.Watcher._event = lambda self, event: None  # type: ignore[method-assign]
    adapt.RECONCILE_S = 1e9


def leaks(_: str) -> None:
    """A descriptor is left open by every look at a folder."""
    from c2l_lsp.engine import adapt

    real = adapt.FolderLife._begin

    def begin(self: Any, now: float) -> Any:  # noqa: ANN401
        os.open(os.devnull, os.O_RDONLY)
        return real(self, now)

    adapt.FolderLife._begin = begin  # type: ignore[method-assign]


def stalls(_: str) -> None:
    """SIGUSR1 stops the thread that reads the watcher's events for 5 s; nothing else stands still."""
    from watchdog.observers.inotify_c import InotifyFD

    until = [0.0]
    signal.signal(signal.SIGUSR1, lambda *_: until.__setitem__(0, time.monotonic() + 5.0))
    real = InotifyFD._read_event_buffer

    def read(self: InotifyFD, event_buffer_size: int) -> bytes:
        while self._check_inotify_fd() and time.monotonic() < until[0]:
            time.sleep(0.05)
        return real(self, event_buffer_size)

    InotifyFD._read_event_buffer = read  # type: ignore[method-assign]


def _at_call(number: str, happens: Callable[[], None]) -> None:
    """Something happens at the nth completion of this process."""
    from c2l_lsp.engine import complete

    real = complete.Completer.complete
    left = [int(number)]

    def completed(self: Any, *args: Any, **more: Any) -> Any:  # noqa: ANN401
        left[0] -= 1
        if left[0] == 0:
            happens()
        return real(self, *args, **more)

    complete.Completer.complete = completed  # type: ignore[method-assign]


def oom(number: str) -> None:
    """The device has no memory left at the nth completion."""

    def happens() -> None:
        import torch

        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    _at_call(number, happens)


def cuda(number: str) -> None:
    """The device is lost at the nth completion, and for good: every later call of this process fails too."""
    from c2l_lsp.engine import complete

    def happens() -> None:
        def lost(*_: Any, **__: Any) -> Any:  # noqa: ANN401
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        complete.Completer.complete = lost  # type: ignore[method-assign]
        lost()

    _at_call(number, happens)


def nan(number: str) -> None:
    """From the nth completion on the model computes no numbers."""

    def happens() -> None:
        from c2l_lsp.engine import decode

        real = decode.Decoder._scores

        def scores(self: decode.Decoder, logits: Any, owed: bytes) -> Any:  # noqa: ANN401
            return real(self, logits * float("nan"), owed)

        decode.Decoder._scores = scores  # type: ignore[method-assign]

    _at_call(number, happens)


def die(number: str) -> None:
    """The process is gone at the nth completion."""
    _at_call(number, lambda: os._exit(9))


def hang(number: str) -> None:
    """The engine's loop stands still for good at the nth completion."""

    _at_call(number, lambda: time.sleep(1e6))


_SERVER = {f.__name__: f for f in (lenient, silent, forget, twice, stays, given_up, hoards, calls_home, quiet, noted)}
_ENGINE = {f.__name__: f for f in (kept_open, deaf, unseen, leaks, stalls, oom, cuda, nan, die, hang, noted)}


def main(faults: str, what: str) -> int:
    """Plant and run."""
    wanted = [name.partition(":")[::2] for name in faults.split("+") if name]
    if what == "engine":
        from c2l_lsp.engine import worker

        for name, number in wanted:
            if name in _ENGINE:
                _ENGINE[name](number)
        return worker.main()
    from c2l_lsp.server import app

    for name, number in wanted:
        if name in _SERVER:
            _SERVER[name](number)
    return app.serve([sys.executable, "-m", "c2l_lsp.bench.soak.plant", faults, "engine"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
