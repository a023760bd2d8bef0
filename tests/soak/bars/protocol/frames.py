"""Malformed input for a real server: it must answer the next request or exit."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Iterator

from c2l_lab.clients.lsp import LanguageClient, frame

from c2l_lsp.server.transport.stdio import MAX_MESSAGE
from tests.soak.harness.bar import Finding, Task
from tests.support.processes import server_command, start_server

ANSWER_S, EXIT_S = 1.0, 2.0
DEAF_S = 60.0
"""Further seconds after which a server that has neither answered nor exited counts as deaf, on a busy machine too."""

DEAF = "running without answering"
_OFF = {"enable": {"*": False, "python": False}}  # no engine, this bar tests the transport

HEADERS = (
    b"{}", b"\x00", b"\xff\xfe\x00", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n\r\n", b"\n\n{}", b": 5\r\n\r\nhello",
    b"Content-Length: 2\n\n{}", b"Content-Length\r\n\r\n", b"Content-Length: \r\n\r\n", b"Content-Length: -2\r\n\r\n{}",
    b"Content-Length: 2.0\r\n\r\n{}", b"Content-Length: 0x2\r\n\r\n{}", b"Content-Length: \xd9\xa2\r\n\r\n{}",
    b"Content-Length: 9223372036854775808\r\n\r\n", b"Content-Length: 1099511627776\r\n\r\n",
    b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", b"Content-Length: 67108865\r\n\r\n", b"Content-Type: x\r\n\r\n{}",
    b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", b"X" * 9000, b"Content-Length: 2\r\n" + b"X: y\r\n" * 3000,
    b"content-length:2\r\n\r\n{}", b"CONTENT-LENGTH: 2\r\n\r\n{}", b"Content-Length: 0\r\n\r\n",
    b"Content-Length: 2\r\nContent-Type: application/vscode-jsonrpc; charset=utf-16\r\n\r\n{}",
)  # fmt: skip
"""Message headers, mostly invalid."""

BODIES = (
    b"", b"null", b"[]", b"[{}]", b"1", b'"text"', b"{}", b"{", b"nonsense", b"\xff\xfe\xfd", b"\x00" * 64,
    b"[" * 50_000,
    b'{"a":' * 50_000, b"1" * 20_000, b"NaN", b'{"jsonrpc": "2.0"}', b'{"jsonrpc": "1.0", "id": "h", "method": "x"}',
    b'{"jsonrpc": "2.0", "id": {}, "method": "x"}', b'{"jsonrpc": "2.0", "id": [1], "method": "shutdownn"}',
    b'{"jsonrpc": "2.0", "id": null, "method": "x"}', b'{"jsonrpc": "2.0", "id": 1.5, "method": "x"}',
    b'{"jsonrpc": "2.0", "id": "h", "method": null}', b'{"jsonrpc": "2.0", "id": "h", "method": []}',
    b'{"jsonrpc": "2.0", "id": "h", "method": {"a": 1}}', b'{"jsonrpc": "2.0", "id": "h", "method": "x", "params": 5}',
    b'{"jsonrpc": "2.0", "id": "h", "method": "textDocument/inlineCompletion", "params": null}',
    b'{"jsonrpc": "2.0", "id": "h", "method": "textDocument/inlineCompletion", "params": {"position": []}}',
    b'{"jsonrpc": "2.0", "id": "h", "method": "textDocument/didOpen", "params": {}}',
    b'{"jsonrpc": "2.0", "id": "h", "method": "$/cancelRequest", "params": {"id": {}}}',
    b'{"jsonrpc": "2.0", "id": "h", "method": "workspace/executeCommand", "params": {"command": "rm -rf /"}}',
    b'{"jsonrpc": "2.0", "id": "h", "method": "c2l/explain", "params": {"id": {"a": [1]}}}',
    b'{"jsonrpc": "2.0", "id": "h", "method": "c2l/adapter/export", "params": {"out": 1}}',
    b'{"jsonrpc": "2.0", "id": "h", "method": "initialize", "params": {"capabilities": {}}}',
    b'{"jsonrpc": "2.0", "method": "textDocument/didChange", "params": {"contentChanges": 1}}',
    b'{"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": [1, 2]}}',
    b'{"jsonrpc": "2.0", "method": "$/setTrace", "params": {"value": "loud"}}', b'{"jsonrpc": "2.0", "method": 7}',
    b'{"jsonrpc": "2.0", "id": "h", "result": 1}', b'{"jsonrpc": "2.0", "id": [], "error": {"code": "x"}}',
    b'{"jsonrpc": "2.0", "id": "h", "method": "\\ud800", "params": {"\\udfff": "\\ud834"}}',
    b'{"jsonrpc": "2.0", "method": "textDocument/didOpen", "params": {"textDocument": {"uri": "file:///\\u0000", '
    b'"languageId": "python", "version": 99999999999999999999, "text": "\\ud800"}}}',
    b'{"jsonrpc": "2.0", "method": "workspace/didChangeWorkspaceFolders", "params": {"event": {"added": [{"uri": '
    b'"file://../../etc", "name": ""}, {"uri": "http://x", "name": ""}], "removed": []}}}',
)  # fmt: skip
"""Bodies in valid frames: no JSON, no JSON-RPC, wrong types, wrong parameters."""


def cases(seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of malformed inputs without end: a header, a body, a mutation of a valid message, and so on.

    The listed ones come in a fixed random order until none is left, so that a short run has all three kinds.
    """
    rng = random.Random(seed)
    headers = [(f"header {number}", data) for number, data in enumerate(HEADERS)]
    bodies = [(f"body {n}", b"Content-Length: %d\r\n\r\n%b" % (len(body), body)) for n, body in enumerate(BODIES)]
    for listed in (headers, bodies):
        rng.shuffle(listed)
    for number in itertools.count():
        yield from headers[number : number + 1]
        yield from bodies[number : number + 1]
        yield f"mutation {number}", mutated(rng)


def mutated(rng: random.Random) -> bytes:
    """One or two valid messages with some bytes changed, deleted, repeated or inserted."""
    position = {"line": rng.randrange(9), "character": rng.randrange(9)}
    document = {"textDocument": {"uri": "file:///m.py"}, "position": position, "context": {"triggerKind": 1}}
    sound = frame({"id": "m", "method": "textDocument/inlineCompletion", "params": document})
    data = bytearray(sound * rng.choice((1, 1, 2)))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randint(1, 12)]
        elif kind == 2:
            data[at:at] = data[at : at + rng.randint(1, 30)]
        elif kind == 3:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 5)))
        else:
            data[at:at] = rng.choice((b"\r\n", b"\n", b"}", b"Content-Length: 3\r\n\r\n", b"9", b'"', b"\x00"))
    return bytes(data)


def run(task: Task) -> Finding:
    """All inputs in order; a server that has exited is replaced."""
    finding = Finding()
    slowest = 0.0
    editor: LanguageClient | None = None
    ends = 0
    for number, (name, data) in enumerate(cases()):
        if number >= task.count:
            break
        if editor is None or editor.ended.is_set():
            editor = _start(task, editor)
        took, ended = _try(task, finding, editor, name, data)
        slowest, ends = max(slowest, took), ends + ended
        finding.tried += 1
        if finding.failed and task.plant:
            break
    editor = _start(task, editor)
    finding.figures["64_mb_s"] = (_giant(task, finding, editor), "s")
    editor.kill()
    finding.figures["slowest_s"] = (slowest, "s")
    finding.figures["ended"] = (float(ends), "servers")
    return finding


def _start(task: Task, old: LanguageClient | None) -> LanguageClient:
    if old is not None:
        old.kill()
    editor = start_server(task.work, server_command(task.plant))
    editor.initialize(options=_OFF)
    return editor


def _try(task: Task, finding: Finding, editor: LanguageClient, name: str, data: bytes) -> tuple[float, bool]:
    """Send the bytes and two valid requests; the time until the replies, and whether the server exited."""
    began = time.monotonic()
    try:
        editor.write(data)
        numbers = [editor.send("c2l/statistics", {}) for _ in range(2)]
    except OSError:  # it exited during the write
        numbers = []
    limit = EXIT_S * task.patience
    answered = lambda: bool(numbers) and all(n in editor.replies for n in numbers)  # noqa: E731
    if not editor.wait_until(answered, limit + 1.0) and not editor.ended.is_set():
        editor.wait_until(answered, 0.0 if task.plant else DEAF_S)  # later is late; never is deaf
    took = time.monotonic() - began
    if editor.ended.is_set() or not numbers:
        hangs = editor.process.wait(30) is None
        finding.expect(not hangs and took <= limit, f"{name}: the server took {took:.1f} s to exit", late=True)
        finding.expect(not editor.broken, f"{name}: the server's output is malformed: {editor.broken}")
        return took, True
    unanswered = [n for n in numbers if n not in editor.replies]
    finding.expect(not unanswered, f"{name}: {DEAF} ({data[:60]!r})")
    slow = took > ANSWER_S * task.patience
    finding.expect(unanswered or not slow, f"{name}: answered after {took:.1f} s", late=True)
    for number, found in list(editor.replies.items()):
        finding.expect(len(found) == 1 or number in ("h", "m", None), f"{name}: {len(found)} replies to {number}")
    _expect_reply(finding, editor, name, data)
    if unanswered:
        editor.kill()
    return took, False


def _expect_reply(finding: Finding, editor: LanguageClient, name: str, data: bytes) -> None:
    """A request among the listed bodies must have exactly one reply."""
    body = data.partition(b"\r\n\r\n")[2]
    if name.startswith("body") and b'"id": "h", "method"' in body and b'"2.0"' in body:
        finding.expect(len(editor.replies.get("h", [])) == 1, f"{name}: {len(editor.replies.get('h', []))} replies")
    editor.replies.pop("h", None)


def _giant(task: Task, finding: Finding, editor: LanguageClient) -> float:
    """A message of the maximum size is answered in time, counted from its last byte."""
    room = MAX_MESSAGE - len(json.dumps({"jsonrpc": "2.0", "id": "g", "method": "c2l/explain", "params": {"id": ""}}))
    message = frame({"id": "g", "method": "c2l/explain", "params": {"id": "x" * room}})
    editor.write(message)
    began = time.monotonic()
    try:
        found = editor.reply("g", 20 * task.patience)
        finding.expect("error" in found, "64 MB: the answer is no error")
    except TimeoutError as error:
        finding.fail(f"64 MB: {error}", late=True)
    took = time.monotonic() - began
    finding.expect(took <= EXIT_S * task.patience, f"64 MB: answered after {took:.1f} s", late=True)
    return took
