"""The corpus: bytes that were found or made to be hostile, and mutations of them. A new find becomes a new file here.

frames/: what an editor's pipe may hold. bodies/: what a sound frame may hold. wire/: frames between server and engine.
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
SOUND = b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


def corpus(kind: str) -> list[Any]:
    return [pytest.param(path.read_bytes(), id=path.stem) for path in sorted((HERE / kind).glob("*.bin"))]


def mutations(data: bytes, count: int) -> Iterator[bytes]:
    """The bytes themselves, and with a few of them changed, left out or doubled."""
    yield data
    dice = random.Random(len(data))
    for _ in range(count):
        made = bytearray(data)
        for _ in range(dice.randint(1, 3)):
            at = dice.randrange(len(made) + 1)
            kind = dice.randrange(3)
            if kind == 0:
                made[at:at] = bytes([dice.randrange(256)])
            elif kind == 1:
                del made[at : at + dice.randint(1, 4)]
            else:
                made[at:at] = made[at : at + dice.randint(1, 8)]
        yield bytes(made)


@pytest.mark.parametrize("data", corpus("frames"))
def test_a_stream_ends_or_goes_on_and_never_waits(data: bytes):
    """After any bytes two sound messages come through whole, or the stream was refused."""
    for stream in mutations(data, 30):
        framer = Framer()
        try:
            bodies = [body for at in range(0, len(stream), 13) for body in framer.feed(stream[at : at + 13])]
            for _ in range(8):  # as many as could be taken for the rest of a header
                bodies += list(framer.feed(SOUND * 40))
        except FramingError:
            continue
        assert bodies[-2:] == [BODY] * 2, stream


@pytest.mark.parametrize("body", corpus("bodies"))
async def test_every_request_has_one_answer_and_nothing_else_has(body: bytes):
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

    def say(message: dict) -> None:
        server.protocol.receive(json.dumps({"jsonrpc": "2.0", **message}).encode())

    say({"id": 0, "method": "initialize", "params": {"capabilities": {}, "processId": None, "rootUri": None}})
    say({"id": 5, "method": "c2l/slow", "params": {}})
    await asyncio.sleep(0)
    for number, hostile in enumerate(mutations(body, 10)):
        sent.clear()
        server.protocol.receive(hostile)
        await asyncio.sleep(0)
        asked = _request(hostile) if number == 0 else None
        if asked is not None:
            assert [message.get("id") for message in sent if message.get("id") == asked] == [asked]
        say({"id": f"after-{number}", "method": "nobody/knows"})
        assert sent[-1]["id"] == f"after-{number}"
    sent.clear()
    say({"method": "$/cancelRequest", "params": {"id": 5}})
    for _ in range(4):
        await asyncio.sleep(0)
    assert [message["id"] for message in sent] == [5]


def _request(body: bytes) -> object:
    """The id that must be answered, if the body is a request."""
    try:
        plain = json.loads(body)
    except (ValueError, RecursionError):
        return None
    sound = isinstance(plain, dict) and plain.get("jsonrpc") == "2.0" and "method" in plain
    return plain["id"] if sound and isinstance(plain.get("id"), str | int) else None


@pytest.mark.parametrize("body", corpus("wire"))
def test_engine_frames_are_sound_or_refused(body: bytes):
    for data in mutations(body, 200):
        try:
            frame = wire.unpack(data)
        except WireError:
            continue
        assert wire.unpack(wire.pack(frame)[4:]) == frame
