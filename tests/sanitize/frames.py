"""Damaged frames: those between server and engine, and those of an editor's pipe."""

from __future__ import annotations

import random
from pathlib import Path

from c2l_lsp.engine import wire
from c2l_lsp.errors import WireError
from c2l_lsp.server.transport.stdio import Framer, FramingError
from tests.soak.bars.protocol.frames import mutated

_WIRE = Path(__file__).resolve().parents[1] / "fuzz/wire"
_BODIES = [path.read_bytes() for path in sorted(_WIRE.glob("*.bin"))]


def frame(rng: random.Random) -> None:
    """A frame of the engine with changed bytes is refused, or packs to an equal one."""
    body = bytearray(rng.choice(_BODIES))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(body) + 1)
        if rng.randrange(2):
            body[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 6)))
        else:
            del body[at : at + rng.randint(1, 6)]
    try:
        found = wire.unpack(bytes(body))
    except WireError:
        return
    if wire.unpack(wire.pack(found)[4:]) != found:
        raise AssertionError(f"a frame changed: {bytes(body)!r}")


def message(rng: random.Random) -> None:
    """A message of an editor with changed bytes, in pieces, is refused or read."""
    data, framer = mutated(rng), Framer()
    step = rng.randint(1, 40)
    try:
        for at in range(0, len(data), step):
            list(framer.feed(data[at : at + step]))
    except FramingError:
        return
