"""Fuzz corpus: hostile bytes, and random mutations of them. Each new finding becomes a file of the corpus.

frames/: bytes of an editor's pipe. bodies/: JSON-RPC messages in valid frames. wire/: frames between server and engine.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from c2l_lsp.engine import wire
from c2l_lsp.errors import WireError
from c2l_lsp.server.transport.rpc import Server
from c2l_lsp.server.transport.stdio import Framer, FramingError

HERE = Path(__file__).parent
BODY = b'{"jsonrpc": "2.0", "id": 1, "method": ""}'
VALID_FRAME = b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


def corpus(kind: str) -> list[Any]:
    return [pytest.param(path.read_bytes(), id=path.stem) for path in sorted((HERE / kind).glob("*.bin"))]


def mutations(data: bytes, count: int) -> Iterator[bytes]:
    """The bytes themselves, then `count` copies with a few bytes inserted, deleted or duplicated."""
    yield data
    rng = random.Random(len(data))
    for _ in range(count):
        mutant = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(mutant) + 1)
            kind = rng.randrange(3)
            if kind == 0:
                mutant[at:at] = bytes([rng.randrange(256)])
            elif kind == 1:
                del mutant[at : at + rng.randint(1, 4)]
            else:
                mutant[at:at] = mutant[at : at + rng.randint(1, 8)]
        yield bytes(mutant)


@pytest.mark.parametrize("data", corpus("frames"))
def test_after_hostile_bytes_valid_frames_are_read_or_the_stream_is_rejected(data: bytes):
    """The reader never waits for the rest of a frame that does not come."""
    for stream in mutations(data, 30):
        framer = Framer()
        try:
            bodies = [body for at in range(0, len(stream), 13) for body in framer.feed(stream[at : at + 13])]
            for _ in range(8):  # a damaged header may swallow some of them
                bodies += list(framer.feed(VALID_FRAME * 40))
        except FramingError:
            continue
        assert bodies[-2:] == [BODY] * 2, stream


@pytest.mark.parametrize("body", corpus("bodies"))
async def test_every_valid_request_has_one_answer_and_nothing_else_has(body: bytes):
    sent: list[dict] = []

    class Sink:
        def write(self, data: bytes) -> None:
            sent.append(json.loads(data.partition(b"\r\n\r\n")[2]))

        def close(self) -> None: ...

    server = Server()
    server.protocol.set_writer(Sink())

    @server.feature("c2l/slow")
    async def slow(_: Any) -> None:
        await asyncio.sleep(60)

    def receive(message: dict) -> None:
        server.protocol.receive(json.dumps({"jsonrpc": "2.0", **message}).encode())

    receive({"id": 0, "method": "initialize", "params": {"capabilities": {}, "processId": None, "rootUri": None}})
    receive({"id": 5, "method": "c2l/slow", "params": {}})
    await asyncio.sleep(0)
    for number, hostile in enumerate(mutations(body, 10)):
        sent.clear()
        server.protocol.receive(hostile)
        await asyncio.sleep(0)
        expected = _request_id(hostile) if number == 0 else None
        if expected is not None:
            assert [message.get("id") for message in sent if message.get("id") == expected] == [expected]
        receive({"id": f"after-{number}", "method": "nobody/knows"})
        assert sent[-1]["id"] == f"after-{number}"
    sent.clear()
    receive({"method": "$/cancelRequest", "params": {"id": 5}})
    for _ in range(4):
        await asyncio.sleep(0)
    assert [message["id"] for message in sent] == [5]


def _request_id(body: bytes) -> object:
    """The id of the request that must be answered; None if the body is not a valid request."""
    try:
        plain = json.loads(body)
    except (ValueError, RecursionError):
        return None
    valid = isinstance(plain, dict) and plain.get("jsonrpc") == "2.0" and "method" in plain
    return plain["id"] if valid and isinstance(plain.get("id"), str | int) else None


@pytest.mark.parametrize("body", corpus("wire"))
def test_hostile_engine_frames_are_rejected_or_survive_packing(body: bytes):
    for data in mutations(body, 200):
        try:
            frame = wire.unpack(data)
        except WireError:
            continue
        assert wire.unpack(wire.pack(frame)[4:]) == frame
