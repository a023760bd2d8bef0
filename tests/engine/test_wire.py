"""Frames survive packing and unpacking; malformed ones are rejected."""

from __future__ import annotations

import contextlib
import io
import struct

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2l_lsp.config import Settings
from c2l_lsp.engine import wire
from c2l_lsp.errors import WireError


def test_a_request_survives_packing():
    hello = wire.Hello(schema=wire.SCHEMA, settings=Settings())
    frame = wire.Request(id=1, method="hello", params=wire.to_params(hello))
    back = wire.read(io.BytesIO(wire.pack(frame)))
    assert back == frame
    assert wire.from_params(back.params, wire.Hello) == hello


@given(st.text())
def test_any_text_survives_packing(text):
    frame = wire.Request(id=1, method="buffer", params={"text": text})
    assert wire.unpack(wire.pack(frame)[4:]) == frame


def test_lone_surrogates_survive_packing():
    frame = wire.Request(id=1, method="buffer", params={"text": "a\ud800b"})
    assert wire.unpack(wire.pack(frame)[4:]) == frame


def test_at_the_end_of_the_stream_read_returns_none():
    assert wire.read(io.BytesIO(b"")) is None


@pytest.mark.parametrize("cut", [1, 3, 5, 20])
def test_a_cut_frame_is_rejected(cut):
    data = wire.pack(wire.Request(id=1, method="ping", params={}))
    with pytest.raises(WireError, match="ended inside"):
        wire.read(io.BytesIO(data[:cut]))


def test_a_frame_over_the_limit_is_rejected_by_its_header():
    with pytest.raises(WireError, match="limit"):
        wire.read(io.BytesIO(struct.pack(">I", wire.MAX_FRAME + 1) + b"x"))


def test_a_frame_over_the_limit_is_not_sent():
    with pytest.raises(WireError, match="limit"):
        wire.pack(wire.Request(id=1, method="buffer", params={"text": "x" * wire.MAX_FRAME}))


@given(st.binary(max_size=200))
def test_random_bytes_are_rejected_or_a_frame(noise):
    with contextlib.suppress(WireError):
        assert isinstance(wire.unpack(noise), wire.Request | wire.Reply | wire.Event)


@pytest.mark.parametrize(
    "plain",
    [
        {"t": "q", "id": "1", "method": "ping", "params": {}},
        {"t": "q", "id": 1, "method": "ping"},
        {"t": "q", "id": 1, "method": "ping", "params": {}, "more": 1},
        {"t": "z", "id": 1},
        [1, 2],
    ],
)
def test_a_frame_that_violates_the_schema_is_rejected(plain):
    with pytest.raises(WireError, match="malformed"):
        wire.unpack(msgpack.packb(plain))


def test_the_error_for_wrong_parameters_names_the_key():
    with pytest.raises(WireError, match="folder"):
        wire.from_params({"folder": 3}, wire.Folder)
    with pytest.raises(WireError, match="unknown"):
        wire.from_params({"folder": "a", "x": 1}, wire.Folder)
