"""Canaries in real processes: excluded files are open and edited; the log and all messages are searched."""

from __future__ import annotations

import json
from pathlib import Path

from c2l_lab.clients.lsp import LanguageClient

from tests.soak.harness import secret_places
from tests.soak.harness.bar import Finding, Task
from tests.support.processes import server_command, start_server

PLANTS = ("chatty",)
LOUD = 200
"""From this number of canaries on, the default log level is checked too."""


def run(task: Task, finding: Finding, root: Path, planted: secret_places.Planted, buffers: dict[str, str]) -> None:
    """A session at log level DEBUG, and at full counts one at the default level."""
    levels = {"DEBUG": "loud"} | ({"WARNING": ""} if task.count >= LOUD else {})
    for level, fault in levels.items():
        faults = "+".join(filter(None, (fault, task.plant)))
        with start_server(task.work, server_command(faults), C2L_LOG_LEVEL=level) as editor:
            _session(task, editor, root, buffers)
            messages = json.dumps([editor.received, list(editor.replies.values())])
        assert editor.log is not None
        logged = editor.log.read_text(encoding="utf-8", errors="replace")
        finding.expect(level != "DEBUG" or logged, "the log at level DEBUG is empty")
        for kind, names in planted.canaries.items():
            for name in names:
                finding.expect(name not in logged, f"{kind}: in the log ({level})")
                finding.expect(name not in messages, f"{kind}: in a message to the editor ({level})")
        if level == "WARNING":
            learned = [line for line in (root / "pkg0" / "m1.py").read_text().splitlines() if len(line) > 40]
            finding.expect(not any(line in logged for line in learned), "source text in the log at the default level")


def _session(task: Task, editor: LanguageClient, root: Path, buffers: dict[str, str]) -> None:
    """Open, edit and complete in every excluded file and in one indexed file; then request the reports."""
    files = {"languages": secret_places.LANGUAGES, "exclude": ["set_aside.py"]}
    editor.initialize([root], {"files": files})
    editor.ready(180 * task.patience, adapter=True)
    requests = []
    for path, text in buffers.items():
        uri = (root / path).as_uri()
        editor.open(uri, text)
        change = {"range": {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 0}}, "text": " "}
        document = {"uri": uri, "version": 2}
        editor.notify("textDocument/didChange", {"textDocument": document, "contentChanges": [change]})
        requests.append(editor.send_completion(uri, 0, 4))
    uri = (root / "pkg0" / "m0.py").as_uri()
    editor.open(uri, "import os\n\ndef main():\n    return os.")
    requests.append(editor.send_completion(uri, 3, 14))
    for number in requests:
        editor.reply(number, 60 * task.patience)
    for method in ("c2l/status", "c2l/statistics"):
        editor.request(method, {}, 60 * task.patience)
    editor.command("c2l.showReport", {"textDocument": {"uri": uri}}, timeout=60 * task.patience)
