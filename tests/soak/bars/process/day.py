"""The events of a day in half an hour: edits, saves, completions, checkouts, folders. No resource may grow."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

from c2l_lab.clients.lsp import LanguageClient

from tests.soak.harness.bar import Finding, Task, percentile
from tests.soak.harness.resource_usage import usage
from tests.soak.harness.sources import project, sources
from tests.support.processes import server_command, start_server

RATE = 30_000 / 1800
GROWTH = 0.05
SLACK = {"mb": 40.0, "descriptors": 12.0, "threads": 12.0, "watches": 12.0}
"""Growth allowed in a run that is too short for a warm-up."""


def run(task: Task) -> Finding:
    """Of 100 events: 70 edits, 18 completions, 8 saves, 2 reopened documents, 1 checkout, 1 folder."""
    finding = Finding()
    root, other = project(task.work / "project", 12), project(task.work / "other", 2)
    git(root, "init", "-q", "-b", "a")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "one")
    git(root, "branch", "b")
    rng = random.Random(0)
    series: dict[str, list[float]] = {}
    with start_server(task.work, server_command(task.plant)) as editor:
        editor.initialize([root], {"completion": {"maxNewTokens": 8}})
        editor.ready(180 * task.patience, adapter=True)
        uris = [(root / "pkg0" / f"m{number}.py").as_uri() for number in range(12)]
        for number, uri in enumerate(uris):
            editor.open(uri, sources()[number][:3000].replace("\r", ""))
        began = time.monotonic()
        for number in range(task.count):
            _event(task, editor, rng, number, uris, root, other)
            finding.tried += 1
            if number % max(1, task.count // 200) == 0:
                _measure(editor, series)
            due = began + (number + 1) / RATE
            time.sleep(max(0.0, due - time.monotonic()))
        editor.request("c2l/status", {}, 120 * task.patience)
        _measure(editor, series)
        try:
            sent = range(1, editor.last_id + 1)
            editor.until(lambda: all(n in editor.replies for n in sent), 60 * task.patience, "reply to some requests")
        except TimeoutError as error:
            finding.fail(str(error), late=True)
    for name, values in series.items():
        _flat(finding, name, values)
    return finding


def _event(
    task: Task, editor: LanguageClient, rng: random.Random, number: int, uris: list[str], root: Path, other: Path
) -> None:
    what, uri = rng.randrange(100), uris[rng.randrange(len(uris))]
    line = rng.randrange(40)
    if what < 70:
        place = {"start": {"line": line, "character": 0}, "end": {"line": line, "character": number % 2}}
        change = [{"range": place, "text": "ab"[: 1 + number % 2]}]
        document = {"uri": uri, "version": number + 2}
        editor.notify("textDocument/didChange", {"textDocument": document, "contentChanges": change})
    elif what < 88:
        editor.send_completion(uri, line, 0)
    elif what < 96:
        path = root / "pkg0" / f"m{rng.randrange(12)}.py"
        path.write_text(sources()[number % 30][:3000] + f"\nSAVED = {number}\n", encoding="utf-8")
    elif what < 98:
        editor.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
        editor.open(uri, sources()[number % 30][:3000].replace("\r", ""))
    elif what < 99:
        git(root, "checkout", "-q", "-f", "ab"[number % 2])
    else:
        folder = {"uri": other.as_uri(), "name": "other"}
        for event in ({"added": [folder], "removed": []}, {"added": [], "removed": [folder]}):
            editor.notify("workspace/didChangeWorkspaceFolders", {"event": event})


def _measure(editor: LanguageClient, series: dict[str, list[float]]) -> None:
    for name, process in zip(("server", "engine"), editor.family(), strict=False):
        for kind, value in usage(process).items():
            series.setdefault(f"{name}_{kind}", []).append(value)


def _flat(finding: Finding, name: str, values: list[float]) -> None:
    """Compare the medians of the second and the last tenth."""
    tenth = max(1, len(values) // 10)
    before = percentile(values[tenth : 2 * tenth] or values[:1], 0.5)
    after = percentile(values[-tenth:], 0.5)
    kind = name.partition("_")[2]
    limit = SLACK[kind]
    if len(values) >= 100:
        limit = GROWTH * before if kind == "mb" else 2.0
    finding.figures[f"{name}_before"], finding.figures[f"{name}_after"] = (before, kind), (after, kind)
    finding.expect(after - before <= limit, f"{name}: {before:.0f} → {after:.0f}")


def git(root: Path, *args: str) -> None:
    """Run git with an author."""
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "-c", "gc.auto=0")
    subprocess.run(["git", *who, *args], cwd=root, check=True, capture_output=True, timeout=60)
