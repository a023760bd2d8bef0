"""The byte stream: framing, limits, redirected stdout, an editor that does not read."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from c2l_lsp.server.transport import stdio
from c2l_lsp.server.transport.stdio import Framer, FramingError, Writer, start_reader


def framed(body: bytes, header: bytes = b"Content-Length: %d\r\n\r\n") -> bytes:
    return header % len(body) + body


def test_bodies_from_chunks_of_any_size() -> None:
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
        b"Content-Length: 3\r\n\r\n{}" + framed(b"{}"),  # the body is shorter than announced
        b"Content-Length: 90000\r\n\r\n{}" + framed(b"{}"),
        b"Content-Length: 90000\r\n\r\n{}" + framed(b"{}", b"content-type: x\r\ncontent-length:%d\r\n\r\n"),
        b"Content-Length: 90000\r\n\r\n" + b"[" * 70_000 + framed(b"{}"),
        b"Content-Length: 90000\r\n\r\n" + framed(b"{}"),  # the body is missing
        b"Content-Length: 90000\r\n\r\n\r\n\r\n" + framed(b"{}"),
        b"Content-Length: 0000000000002\r\n\r\n{}",  # too many digits
    ],
)
def test_malformed_stream_raises_framing_error(stream: bytes) -> None:
    """Immediately: otherwise the editor would wait for an answer that cannot come."""
    for size in (1, 7, len(stream)) if len(stream) < 1000 else (65536,):
        framer = Framer()
        chunks = (stream[at : at + size] for at in range(0, len(stream), size))
        with pytest.raises(FramingError):
            list(itertools.chain.from_iterable(map(framer.feed, chunks)))


def test_header_may_arrive_in_pieces_and_body_may_quote_headers() -> None:
    body = json.dumps({"text": "Content-Length: 5\r\n\r\n{}"}).encode() + b"\r\n\r\n \r\n\r\n"
    stream = framed(body, b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\nCONTENT-LENGTH:\t%d \r\n\r\n")
    framer = Framer()
    assert [found for at in range(len(stream)) for found in framer.feed(stream[at : at + 1])] == [body]
    assert list(framer.feed(stream + framed(b"{}"))) == [body, b"{}"]  # a header after a complete body is valid


def test_prints_do_not_reach_the_protocol_stream() -> None:
    code = (
        "import os, sys, ctypes\n"
        "from c2l_lsp.server.transport.stdio import isolate\n"
        "source, sink = isolate()\n"
        "print('python'); sys.stdout.flush(); os.write(1, b'descriptor'); os.system('echo child')\n"
        "os.write(sink, os.read(source, 5) + repr(os.read(0, 5)).encode())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=b"hello", capture_output=True, timeout=60, check=True)
    assert done.stdout == b"hellob''"
    assert {b"python", b"child"} <= set(done.stderr.replace(b"descriptor", b"").split())


@contextlib.contextmanager
def piped() -> Iterator[tuple[int, int, int]]:
    """Pipes in place of this process's own 0, 1 and 2: the end to write to, and those to read of the two."""
    own = [os.dup(number) for number in range(3)]
    (source, feed), (stdout, sink), (stderr, errors) = os.pipe(), os.pipe(), os.pipe()
    for number, end in enumerate((source, sink, errors)):
        os.dup2(end, number)
        os.close(end)
    try:
        yield feed, stdout, stderr
    finally:
        for number, kept in enumerate(own):
            os.dup2(kept, number)
            os.close(kept)
        for end in (feed, stdout, stderr):
            os.close(end)


def test_isolated_descriptors_are_the_only_ones_of_the_protocol() -> None:
    with piped() as (feed, stdout, stderr):
        os.write(feed, b"hello")
        source, sink = stdio.isolate()
        os.write(1, b"printed")
        os.write(2, b" to stderr")
        os.write(sink, b"sent")
        seen = [os.read(end, 99) for end in (0, source, stdout, stderr)]
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(0, b"x")  # read-only
        os.close(source)
        os.close(sink)
    assert not {source, sink} & {0, 1, 2}
    assert seen == [b"", b"hello", b"sent", b"printed to stderr"]  # stdin is at its end


def test_output_printed_before_isolation_goes_to_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    with piped() as (_, stdout, stderr), open(1, "w", encoding="utf-8", closefd=False) as out:
        monkeypatch.setattr(sys, "stdout", out)
        print("early", end="")
        for end in stdio.isolate():
            os.close(end)
        monkeypatch.undo()
        os.write(2, b".")
        seen = [os.read(stdout, 99), os.read(stderr, 99)]
    assert seen == [b"early", b"."]


def test_reading_ends_on_an_error() -> None:
    source, sink = os.pipe()
    os.close(sink)
    os.close(source)
    seen: list[bytes] = []
    thread = start_reader(source, seen.append)
    thread.join(5)
    assert not thread.is_alive()
    assert seen == [b""]


def test_threads_are_daemons() -> None:
    source, sink = os.pipe()
    reading, writing = start_reader(source, lambda data: None), Writer(sink, lambda: None)
    assert reading.daemon and writing._thread.daemon
    assert {reading.name, writing._thread.name} == {"c2l-stdin", "c2l-stdout"}  # shown in a thread dump
    writing.close()
    os.close(sink)
    reading.join(5)
    os.close(source)


def test_reading_ends_with_empty_bytes() -> None:
    source, sink = os.pipe()
    seen: list[bytes] = []
    thread = start_reader(source, seen.append)
    os.write(sink, b"abc")
    os.close(sink)
    thread.join(5)
    os.close(source)
    assert b"".join(seen) == b"abc"
    assert seen[-1] == b""


def test_writing_keeps_order_and_does_not_block() -> None:
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


def test_lost_editor_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_limit_counts_unsent_bytes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that have been sent no longer count."""
    monkeypatch.setattr(stdio, "MAX_UNSENT", 10)
    lost: list[int] = []
    source, sink = os.pipe()
    writer = Writer(sink, lambda: lost.append(1))
    for _ in range(5):
        writer.write(b"x" * 10)  # exactly the limit
        assert os.read(source, 10) == b"x" * 10
        deadline = time.monotonic() + 5
        while writer._unsent:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    assert lost == []
    writer.write(b"y" * 11)
    assert lost == [1]
    writer.write(b"z")  # the editor is lost
    writer.close()
    os.close(sink)
    assert os.read(source, 99) == b""
    os.close(source)


def test_close_respects_its_timeout() -> None:
    source, sink = os.pipe()
    writer = Writer(sink, lambda: None)
    writer.write(b"x" * 1_000_000)  # not read
    began = time.monotonic()
    writer.close(0.1)
    assert 0.05 < time.monotonic() - began < 5
    os.set_blocking(source, False)
    deadline = time.monotonic() + 5
    while writer._thread.is_alive():
        assert time.monotonic() < deadline
        with contextlib.suppress(BlockingIOError):
            os.read(source, 65536)
    os.close(sink)
    os.close(source)


@pytest.mark.parametrize("more", [0, 1])
def test_lengths_at_and_above_the_limits(more: int) -> None:
    largest = b"Content-Length: %d" % (stdio.MAX_MESSAGE + more)
    name, empty = b"X-Filling: ", b"Content-Length: 0\r\n"
    header = empty + name + b"x" * (stdio.MAX_HEADER - len(empty) - len(name) - 4 + more) + b"\r\n\r\n"
    assert len(header) == stdio.MAX_HEADER + more
    if more:
        with pytest.raises(FramingError, match=f"not a number of at most {stdio.MAX_MESSAGE} bytes"):
            stdio.content_length(largest)
        with pytest.raises(FramingError) as refused:
            list(Framer().feed(header))
        assert str(refused.value) == f"A message header is longer than {stdio.MAX_HEADER} bytes."
        with pytest.raises(FramingError, match="longer than"):
            list(Framer().feed(header[:-4] + b"x" * 4))
    else:
        assert stdio.content_length(largest) == stdio.MAX_MESSAGE
        assert list(Framer().feed(header)) == [b""]
        assert list(Framer().feed(header[:-4] + b"x" * 4)) == []  # the rest may still come


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (b"Content-Type: x", "A message header has no Content-Length."),
        (b"Content-Length: 1\r\nContent-Length: 2", "A message header has more than one Content-Length."),
        (
            b"Content-Length: 1:2",
            f"A Content-Length is not a number of at most {stdio.MAX_MESSAGE} bytes.",
        ),
        (b"nonsense", "A message header is malformed."),
    ],
)
def test_message_of_a_header_error(header: bytes, sentence: str) -> None:
    with pytest.raises(FramingError) as refused:
        stdio.content_length(header)
    assert str(refused.value) == sentence
    assert stdio.content_length(b"Content-Length: 1\r\nContent-Length: 000000000001") == 1


def test_message_of_a_body_error() -> None:
    with pytest.raises(FramingError) as refused:
        list(Framer().feed(b"Content-Length: 90\r\n\r\n{}" + framed(b"{}")))
    assert str(refused.value) == "A message is shorter than its Content-Length."
    with pytest.raises(FramingError) as refused:
        list(Framer().feed(b"{"))
    assert str(refused.value) == "A message header is malformed."
