"""The byte stream: framing, limits, a sealed stdout, an editor that does not read."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading

import pytest

from c2l_lsp.server import stdio
from c2l_lsp.server.stdio import Framer, FramingError, Writer, read_in_thread


def framed(body: bytes, header: bytes = b"Content-Length: %d\r\n\r\n") -> bytes:
    return header % len(body) + body


def test_bodies_however_the_bytes_are_cut() -> None:
    stream = framed(b"{}") + framed(b"", b"content-length:%d\r\nContent-Type: x\r\n\r\n") + framed("é".encode())
    for size in (1, 2, 3, 7, len(stream)):
        framer = Framer()
        bodies = [body for at in range(0, len(stream), size) for body in framer.feed(stream[at : at + size])]
        assert bodies == [b"{}", b"", "é".encode()]


@pytest.mark.parametrize(
    "stream",
    [
        b"Content-Length: 67108865\r\n\r\n",
        b"Content-Length: 9223372036854775808\r\n\r\n",
        b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: many\r\n\r\n",
        b"Content-Type: x\r\n\r\n",
        b"\r\n\r\n",
        b"x" * 10_000,
        b"x" * 65,
        b"{",
        b"\x00",
        b"Content-Length: 2\n\n{}",
        b"Content-Length: 2\r\nnonsense\r\n",
        b"Content-Length: 2\r\nCont\xc3\xa9nt: 1\r\n\r\n{}",
        b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"Content-Length: 1_0\r\n\r\n",
        b"Content-Length : 2\r\n\r\n{}",
        b"\r\nContent-Length: 2\r\n\r\n{}",
        framed(b"{}") + b"}",  # the body was longer than announced
        b"Content-Length: 3\r\n\r\n{}" + framed(b"{}"),  # or shorter, and so on into the next message
        b"Content-Length: 90000\r\n\r\n{}" + framed(b"{}"),
        b"Content-Length: 90000\r\n\r\n{}" + framed(b"{}", b"content-type: x\r\ncontent-length:%d\r\n\r\n"),
        b"Content-Length: 90000\r\n\r\n" + b"[" * 70_000 + framed(b"{}"),
    ],
)
def test_a_stream_that_cannot_be_cut_ends(stream: bytes) -> None:
    """At once: an editor that waits for an answer must not find the server alive and deaf."""
    for size in (1, 7, len(stream)) if len(stream) < 1000 else (65536,):
        framer = Framer()
        pieces = (stream[at : at + size] for at in range(0, len(stream), size))
        with pytest.raises(FramingError):
            list(itertools.chain.from_iterable(map(framer.feed, pieces)))


def test_a_header_may_come_in_pieces_and_a_body_may_talk_of_headers() -> None:
    body = json.dumps({"text": "Content-Length: 5\r\n\r\n{}"}).encode() + b"\r\n\r\n \r\n\r\n"
    stream = framed(body, b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\nCONTENT-LENGTH:\t%d \r\n\r\n")
    framer = Framer()
    assert [found for at in range(len(stream)) for found in framer.feed(stream[at : at + 1])] == [body]


def test_prints_of_any_kind_miss_the_protocol() -> None:
    code = (
        "import os, sys, ctypes\n"
        "from c2l_lsp.server.stdio import seal\n"
        "source, sink = seal()\n"
        "print('python'); sys.stdout.flush(); os.write(1, b'descriptor'); os.system('echo child')\n"
        "os.write(sink, os.read(source, 5) + repr(os.read(0, 5)).encode())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=b"hello", capture_output=True, timeout=60, check=True)
    assert done.stdout == b"hellob''"
    assert {b"python", b"child"} <= set(done.stderr.replace(b"descriptor", b"").split())


def test_reading_ends_with_nothing() -> None:
    source, sink = os.pipe()
    seen: list[bytes] = []
    thread = read_in_thread(source, seen.append)
    os.write(sink, b"abc")
    os.close(sink)
    thread.join(5)
    os.close(source)
    assert b"".join(seen) == b"abc"
    assert seen[-1] == b""


def test_writing_keeps_order_and_does_not_wait_for_a_slow_reader() -> None:
    source, sink = os.pipe()
    writer = Writer(sink, lambda: None)
    messages = [bytes([number]) * 50_000 for number in range(20)]
    for message in messages:
        writer.write(message)
    read = b""
    while len(read) < 1_000_000:
        read += os.read(source, 65536)
    writer.close()
    os.close(sink)
    os.close(source)
    assert read == b"".join(messages)


def test_a_lost_editor_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = threading.Event()
    source, sink = os.pipe()
    os.close(source)
    writer = Writer(sink, lost.set)
    writer.write(b"x")
    assert lost.wait(5)
    os.close(sink)

    calls: list[int] = []
    monkeypatch.setattr(stdio, "MAX_UNSENT", 300_000)
    source, sink = os.pipe()
    flooded = Writer(sink, lambda: calls.append(1))
    for _ in range(8):
        flooded.write(b"y" * 100_000)
    assert calls == [1]
    os.set_blocking(source, False)
    threading.Timer(0.05, os.close, [source]).start()
    flooded.close(5)
    os.close(sink)
