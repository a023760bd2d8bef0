"""Hostile bytes against a real server: after each it answers what follows, or it has ended. Never alive but deaf."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator

from c2l_lab.clients.lsp import LanguageClient, frame

from c2l_lsp.server.transport.stdio import MAX_MESSAGE
from tests.soak.harness.bar import Finding, Task
from tests.support.processes import server_command, start_server

ANSWER_S, EXIT_S = 1.0, 2.0
_OFF = {"enable": {"*": False, "python": False}}  # no engine: it is the transport that is asked here

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
"""Beginnings of messages, most of them none."""

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
"""Bodies in sound frames: no JSON, no JSON-RPC, wrong types, wrong parameters."""


def cases(seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of hostile inputs without end: every one listed above, then mutations of sound messages."""
    yield from ((f"header {number}", data) for number, data in enumerate(HEADERS))
    yield from ((f"body {n}", b"Content-Length: %d\r\n\r\n%b" % (len(body), body)) for n, body in enumerate(BODIES))
    dice = random.Random(seed)
    number = 0
    while True:
        number += 1
        yield f"mutation {number}", mutated(dice)


def mutated(dice: random.Random) -> bytes:
    """A sound message, or two, with some bytes changed, left out, repeated or put in."""
    position = {"line": dice.randrange(9), "character": dice.randrange(9)}
    document = {"textDocument": {"uri": "file:///m.py"}, "position": position, "context": {"triggerKind": 1}}
    sound = frame({"id": "m", "method": "textDocument/inlineCompletion", "params": document})
    data = bytearray(sound * dice.choice((1, 1, 2)))
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data) + 1)
        kind = dice.randrange(5)
        if kind == 0 and at < len(data):
            data[at] = dice.randrange(256)
        elif kind == 1:
            del data[at : at + dice.randint(1, 12)]
        elif kind == 2:
            data[at:at] = data[at : at + dice.randint(1, 30)]
        elif kind == 3:
            data[at:at] = bytes(dice.randrange(256) for _ in range(dice.randint(1, 5)))
        else:
            data[at:at] = dice.choice((b"\r\n", b"\n", b"}", b"Content-Length: 3\r\n\r\n", b"9", b'"', b"\x00"))
    return bytes(data)


def run(task: Task) -> Finding:
    """The inputs one after the other; a server that has ended is replaced."""
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
        if finding.failed >= 5 and task.plant:
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
    """Send the bytes and two sound requests; how long the answer took, and whether the server ended."""
    began = time.monotonic()
    try:
        editor.write(data)
        numbers = [editor.send("c2l/statistics", {}) for _ in range(2)]
    except OSError:  # it ended while we wrote
        numbers = []
    limit = EXIT_S * task.patience
    editor.wait_until(lambda: numbers and all(n in editor.replies for n in numbers), limit + 1.0)
    took = time.monotonic() - began
    if editor.ended.is_set() or not numbers:
        late = editor.process.wait(30) is None or took > limit
        finding.expect(not late, f"{name}: the server took {took:.1f} s to end")
        finding.expect(not editor.broken, f"{name}: the server's own stream is broken: {editor.broken}")
        return took, True
    deaf = [n for n in numbers if n not in editor.replies]
    finding.expect(not deaf, f"{name}: alive but deaf ({data[:60]!r})")
    slow = took > ANSWER_S * task.patience
    finding.expect(deaf or not slow, f"{name}: answered after {took:.1f} s")
    for number, found in list(editor.replies.items()):
        finding.expect(len(found) == 1 or number in ("h", "m", None), f"{name}: {len(found)} replies to {number}")
    _expect_reply(finding, editor, name, data)
    if deaf:
        editor.kill()
    return took, False


def _expect_reply(finding: Finding, editor: LanguageClient, name: str, data: bytes) -> None:
    """A request among the listed bodies has a reply, and exactly one."""
    body = data.partition(b"\r\n\r\n")[2]
    if name.startswith("body") and b'"id": "h", "method"' in body and b'"2.0"' in body:
        finding.expect(len(editor.replies.get("h", [])) == 1, f"{name}: {len(editor.replies.get('h', []))} replies")
    editor.replies.pop("h", None)


def _giant(task: Task, finding: Finding, editor: LanguageClient) -> float:
    """A message of the largest size allowed: answered, counted from its last byte; one byte more is refused."""
    room = MAX_MESSAGE - len(json.dumps({"jsonrpc": "2.0", "id": "g", "method": "c2l/explain", "params": {"id": ""}}))
    message = frame({"id": "g", "method": "c2l/explain", "params": {"id": "x" * room}})
    editor.write(message)
    began = time.monotonic()
    try:
        found = editor.reply("g", 20 * task.patience)
        finding.expect("error" in found, "64 MB: an answer that is no refusal")
    except TimeoutError as error:
        finding.fail(f"64 MB: {error}")
    took = time.monotonic() - began
    finding.expect(took <= EXIT_S * task.patience, f"64 MB: answered after {took:.1f} s")
    return took
