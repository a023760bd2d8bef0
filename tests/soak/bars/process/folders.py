"""Many workspace folders at once: resources per folder are bounded and released when folders are closed."""

from __future__ import annotations

import time

from c2l_lab.clients.lsp import LanguageClient

from tests.soak.harness.bar import Finding, Task
from tests.soak.harness.resource_usage import usage
from tests.soak.harness.sources import sources
from tests.support.processes import server_command, start_server

MOST = {"descriptors": 800.0, "threads": 260.0, "watches": 400.0}
"""Limits for the engine with any number of folders."""

GROWTH_MB = 700.0


def run(task: Task) -> Finding:
    """Open all folders, request completions in some, and close all."""
    finding = Finding()
    roots = []
    for number in range(task.count):
        root = (task.work / "many" / f"f{number}").resolve()
        root.mkdir(parents=True)
        (root / "a.py").write_text(f"FOLDER = {number}\n" + sources()[number % 9][:1500], encoding="utf-8")
        roots.append(root)
    with start_server(task.work, server_command(task.plant)) as editor:
        editor.initialize(roots[:1])
        editor.ready(180 * task.patience, adapter=True)
        before = _engine(editor)
        for root in roots[1:]:
            added = [{"uri": root.as_uri(), "name": root.name}]
            editor.notify("workspace/didChangeWorkspaceFolders", {"event": {"added": added, "removed": []}})
        for root in roots[:: max(1, len(roots) // 20)]:
            uri = (root / "a.py").as_uri()
            editor.open(uri, "import os\nx = ")
            answer = editor.reply(editor.send_completion(uri, 1, 4), 120 * task.patience)
            finding.expect("result" in answer, f"{root.name}: {answer}")
        _settle(editor, 300 * task.patience)
        full = _engine(editor)
        for name, most in MOST.items():
            finding.expect(full[name] <= most, f"{full[name]:.0f} {name} with {task.count} folders")
            finding.figures[f"{name}_full"] = (full[name], "")
        finding.expect(full["mb"] - before["mb"] <= GROWTH_MB, f"{full['mb'] - before['mb']:.0f} MB more")
        removed = [{"uri": root.as_uri(), "name": root.name} for root in roots[1:]]
        editor.notify("workspace/didChangeWorkspaceFolders", {"event": {"added": [], "removed": removed}})
        _released(finding, editor, before, (5.0 if task.plant else 60.0) * task.patience)
    finding.tried = task.count
    return finding


def _released(finding: Finding, editor: LanguageClient, before: dict[str, float], timeout: float) -> None:
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        editor.request("c2l/status", {})
        now = _engine(editor)
        if all(now[name] <= before[name] + 4 for name in MOST):
            break
        time.sleep(0.2)
    now = _engine(editor)
    for name in MOST:
        finding.expect(
            now[name] <= before[name] + 4, f"{now[name]:.0f} {name} after closing, {before[name]:.0f} before"
        )


def _settle(editor: LanguageClient, timeout: float) -> None:
    """Wait until the engine is idle."""
    until, quiet = time.monotonic() + timeout, 0
    while time.monotonic() < until and quiet < 5:
        state = editor.request("c2l/status", {})["state"]
        quiet = quiet + 1 if state in ("ready", "degraded") else 0
        time.sleep(0.2)


def _engine(editor: LanguageClient) -> dict[str, float]:
    family = editor.family()
    used = usage(family[1]) if len(family) > 1 else {}
    if not used:
        raise TimeoutError("no engine is running")
    return used
