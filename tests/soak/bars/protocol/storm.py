"""10,000 edits a minute: replies do not lag, texts stay correct, memory does not grow."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from pathlib import Path

import psutil
from c2l_lab.clients.lsp import LanguageClient

from c2l_lsp.server.workspace.documents import Edit
from tests.soak.bars.protocol.documents import Model
from tests.soak.harness.bar import Finding, Task, percentile
from tests.soak.harness.sources import project, sources
from tests.support.processes import server_command, start_server

RATE = 10_000 / 60
DOCUMENTS = 20
LAG_S, GROWTH = 2.0, 0.05
QUEUE = LAG_S * RATE
"""Maximum length of the engine's queue: the requests of LAG_S seconds."""


def run(task: Task) -> Finding:
    """Edits at RATE in 20 documents, a request every 0.5 s and a completion every 2 s."""
    finding = Finding()
    root = project(task.work / "project", DOCUMENTS)
    notes = task.work / "census"
    faults = "census" + (f"+{task.plant}" if task.plant else "")
    with start_server(task.work, server_command(faults), None, C2L_SOAK_NOTES=str(notes)) as editor:
        editor.initialize([root])
        editor.ready(180 * task.patience, adapter=True)
        uris = [(root / "pkg0" / f"m{number}.py").as_uri() for number in range(DOCUMENTS)]
        texts = [sources()[number][:5000].replace("\r", "") for number in range(DOCUMENTS)]
        for uri, text in zip(uris, texts, strict=True):
            editor.open(uri, text)
        models = {uri: Model(text, "utf-16") for uri, text in zip(uris, texts, strict=True)}
        lags, memory = _type(task, finding, editor, models)
        _compare(task, finding, editor, models, notes)
        finding.figures["lag_p99_s"] = (percentile(lags, 0.99), "s")
        finding.expect(percentile(lags, 0.99) <= LAG_S * task.patience, f"lag p99 {percentile(lags, 0.99):.1f} s")
        for name, values in memory.items():
            _flat(task, finding, name, values)
    return finding


def _compare(task: Task, finding: Finding, editor: LanguageClient, models: dict[str, Model], notes: Path) -> None:
    """Compare the server's texts with the editor's, and check the length of the engine's queue."""
    editor.request("c2l/statistics", {}, 60 * task.patience)  # the last edit has arrived
    os.kill(editor.process.pid, signal.SIGUSR1)
    until, rows = time.monotonic() + 30 * task.patience, []
    while ["end"] not in rows and time.monotonic() < until:
        time.sleep(0.02)
        rows = [line.split() for line in notes.read_text(encoding="utf-8").splitlines()]
    found = {row[1]: row[2] for row in rows if row[0] == "text"}
    wrong = [
        uri
        for uri, model in models.items()
        if found.get(uri) != hashlib.blake2b(model.text.encode(), digest_size=16).hexdigest()
    ]
    finding.expect(not wrong, f"{len(wrong)} of {len(models)} texts differ from the editor's: {wrong[:2]}")
    most = {kind: max((int(row[1]) for row in rows if row[0] == kind), default=0) for kind in ("queue", "texts")}
    finding.expect(0 < most["texts"] <= DOCUMENTS, f"{most['texts']} texts of {DOCUMENTS} documents were queued")
    finding.expect(most["queue"] <= QUEUE * task.patience, f"{most['queue']} requests were queued at a time")
    finding.figures |= {f"{kind}_max": (float(number), "requests") for kind, number in most.items()}


def _type(
    task: Task, finding: Finding, editor: LanguageClient, models: dict[str, Model]
) -> tuple[list[float], dict[str, list[float]]]:
    rng, uris = random.Random(0), list(models)
    lags: list[float] = []
    memory: dict[str, list[float]] = {"server": [], "engine": []}
    began = time.monotonic()
    asked = began
    typed: dict[str, tuple[int, str]] = {}
    for number in range(task.count):
        uri = uris[rng.randrange(len(uris))]
        if (
            uri in typed
        ):  # and taken back by the next edit of the document: that of a day makes no file ten times as long
            line, old = typed.pop(uri)
            new = ""
        else:
            line, old, new = rng.randrange(60), "", f"x{number % 97} = {number}\n"[: 3 + number % 5]
            typed[uri] = (line, new)
        place = {"start": {"line": line, "character": 0}, "end": {"line": line, "character": len(old)}}
        change = {"range": place, "text": new}
        edit = {"textDocument": {"uri": uri, "version": number + 2}, "contentChanges": [change]}
        editor.notify("textDocument/didChange", edit)
        models[uri].apply(Edit(new, (line, 0), (line, len(old))))
        finding.tried += 1
        now = time.monotonic()
        if now - asked >= 0.5:
            asked = now
            editor.request("c2l/statistics", {}, 60 * task.patience)
            lags.append(time.monotonic() - now)
            _measure(editor, memory)
            if len(lags) % 4 == 0:
                editor.send_completion(uri, line, 0)
        due = began + (number + 1) / RATE
        time.sleep(max(0.0, due - time.monotonic()))
    return lags, memory


def _measure(editor: LanguageClient, memory: dict[str, list[float]]) -> None:
    for name, process in zip(("server", "engine"), editor.family(), strict=False):
        try:
            memory[name].append(process.memory_info().rss / 2**20)
        except psutil.NoSuchProcess:
            continue


def _flat(task: Task, finding: Finding, name: str, values: list[float]) -> None:
    """Compare the second and the last tenth; the first is the warm-up. A short run may grow by 100 MB."""
    if not finding.expect(values, f"{name}: not measured"):
        return
    tenth = max(1, len(values) // 10)
    before = percentile(values[tenth : 2 * tenth] or values[:1], 0.5)
    after = percentile(values[-tenth:], 0.5)
    limit = GROWTH * before if len(values) >= 100 else 100.0
    finding.figures[f"{name}_mb_before"], finding.figures[f"{name}_mb_after"] = (before, "MB"), (after, "MB")
    finding.expect(after - before <= limit, f"{name}: {before:.0f} → {after:.0f} MB")
