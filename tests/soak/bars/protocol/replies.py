"""Random messages in random order: exactly one reply per request and no other replies."""

from __future__ import annotations

import random
import time

from c2l_lab.clients.lsp import LanguageClient, Plain, frame

from tests.soak.harness.bar import Finding, Task
from tests.support.processes import server_command, start_server

MESSAGES = 40
WITH_ENGINE = 100
"""From this number of sessions on, the engine runs too."""

_OFF = {"enable": {"*": False, "python": False}}
_METHODS = (
    "textDocument/inlineCompletion", "textDocument/completion", "c2l/status", "c2l/statistics", "c2l/explain",
    "c2l/adapter/info", "workspace/executeCommand", "unknown/method", "textDocument/didOpen", "initialize",
    "c2l/status",
)  # fmt: skip


def run(task: Task) -> Finding:
    """Sessions one after the other on one server; after each, all replies are counted."""
    finding = Finding()
    engine = task.count >= WITH_ENGINE
    with start_server(task.work, server_command(task.plant)) as editor:
        editor.initialize(options=None if engine else _OFF)
        if engine:
            editor.ready(180 * task.patience)
        editor.replies.clear()
        for number in range(task.count):
            finding.tried += 1
            wanted = _session(editor, random.Random(number), number)
            _compare(task, finding, editor, wanted, number)
            if finding.failed >= 5 and task.plant:
                break
    return finding


def _session(editor: LanguageClient, rng: random.Random, number: int) -> dict[object, int]:
    """Send the messages; request id → number of expected replies."""
    wanted: dict[object, int] = {}
    sent: list[object] = []
    uri = f"file:///soak/{number % 5}.py"
    editor.open(uri, "import os\n" * 5)
    for step in range(MESSAGES):
        kind = rng.randrange(10)
        if kind < 5:
            name: object = f"{number}.{step}" if rng.random() < 0.7 else number * 1000 + step
            if sent and rng.random() < 0.1:
                name = rng.choice(sent)  # reuse an id that may be in use
            method = rng.choice(_METHODS)
            editor.write(frame({"id": name, "method": method, "params": _params(rng, method, uri)}))
            wanted[name] = wanted.get(name, 0) + 1
            sent.append(name)
        elif kind < 7:
            editor.notify("$/cancelRequest", {"id": rng.choice(sent) if sent else 0})
        elif kind == 7:
            change = [{"text": "import os\n" * rng.randrange(6)}]
            document = {"uri": uri, "version": step}
            editor.notify("textDocument/didChange", {"textDocument": document, "contentChanges": change})
        elif kind == 8 and sent:
            answer: Plain = {"result": None} if rng.random() < 0.5 else {"error": {"code": 1, "message": "x"}}
            editor.write(frame({"id": rng.choice(sent), **answer}))  # a response without a request
        else:
            editor.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
            editor.open(uri, "x = 1\n")
    editor.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
    return wanted


def _params(rng: random.Random, method: str, uri: str) -> Plain:
    position = {"line": rng.randrange(7), "character": rng.randrange(9)}
    if rng.random() < 0.1:
        return {"textDocument": 5}
    if method == "workspace/executeCommand":
        return {"command": rng.choice(("c2l.showStatus", "c2l.snooze", "c2l.didAcceptCompletion", "nothing"))}
    if method == "c2l/explain":
        return {"id": "1-0"}
    return {"textDocument": {"uri": uri}, "position": position, "context": {"triggerKind": rng.choice((1, 2))}}


def _compare(task: Task, finding: Finding, editor: LanguageClient, wanted: dict[object, int], number: int) -> None:
    def done() -> bool:
        return all(len(editor.replies.get(name, [])) >= times for name, times in wanted.items())

    editor.wait_until(done, (1.0 if task.plant else 30.0) * task.patience)
    time.sleep(0.01)  # time for a surplus reply
    got = {name: len(found) for name, found in editor.replies.items()}
    editor.replies.clear()
    for name in sorted(wanted.keys() | got.keys(), key=str):
        times, found = wanted.get(name, 0), got.get(name, 0)
        finding.expect(times == found, f"session {number}: id {name!r} has {times} requests and {found} replies")
