"""10,000 edits a minute: answers do not lag behind, the text stays right, memory does not grow."""

from __future__ import annotations

import random
import time

import psutil

from c2l_lsp.bench.soak.bar import Finding, Task, percentile
from c2l_lsp.bench.soak.fixtures import project, sources
from c2l_lsp.bench.soak.proc import Editor, planted

RATE = 10_000 / 60
DOCUMENTS = 20
LAG_S, GROWTH = 2.0, 0.05


def run(task: Task) -> Finding:
    """Edits at that rate over 20 documents, a question every half second and a completion every two."""
    finding = Finding()
    root = project(task.work / "project", DOCUMENTS)
    with Editor(task.work, planted(task.plant, "server")) as editor:
        editor.initialize([root])
        editor.ready(180 * task.patience)
        uris = [(root / "pkg0" / f"m{number}.py").as_uri() for number in range(DOCUMENTS)]
        texts = [sources()[number][:5000].replace("\r", "") for number in range(DOCUMENTS)]
        for uri, text in zip(uris, texts, strict=True):
            editor.open(uri, text)
        lags, memory = _type(task, finding, editor, uris)
        finding.figures["lag_p99_s"] = (percentile(lags, 0.99), "s")
        finding.expect(percentile(lags, 0.99) <= LAG_S * task.patience, f"lag p99 {percentile(lags, 0.99):.1f} s")
        for name, values in memory.items():
            _flat(task, finding, name, values)
    return finding


def _type(task: Task, finding: Finding, editor: Editor, uris: list[str]) -> tuple[list[float], dict[str, list[float]]]:
    dice = random.Random(0)  # noqa: S311
    lags: list[float] = []
    memory: dict[str, list[float]] = {"server": [], "engine": []}
    began = time.monotonic()
    asked = began
    for number in range(task.count):
        uri = uris[dice.randrange(len(uris))]
        line = dice.randrange(60)
        place = {"start": {"line": line, "character": 0}, "end": {"line": line, "character": number % 3}}
        change = {"range": place, "text": f"x{number % 97} = {number}\n"[: 3 + number % 5]}
        edit = {"textDocument": {"uri": uri, "version": number + 2}, "contentChanges": [change]}
        editor.notify("textDocument/didChange", edit)
        finding.tried += 1
        now = time.monotonic()
        if now - asked >= 0.5:
            asked = now
            editor.ask("c2l/statistics", {}, 60 * task.patience)
            lags.append(time.monotonic() - now)
            _measure(editor, memory)
            if len(lags) % 4 == 0:
                editor.complete(uri, line, 0)
        due = began + (number + 1) / RATE
        if due > time.monotonic():
            time.sleep(due - time.monotonic())
    return lags, memory


def _measure(editor: Editor, memory: dict[str, list[float]]) -> None:
    for name, process in zip(("server", "engine"), editor.family(), strict=False):
        try:
            memory[name].append(process.memory_info().rss / 2**20)
        except psutil.NoSuchProcess:
            continue


def _flat(task: Task, finding: Finding, name: str, values: list[float]) -> None:
    """The last tenth against the second: the first is warm-up. A short run has none, and is judged by 100 MB."""
    if not finding.expect(values, f"{name}: not measured"):
        return
    tenth = max(1, len(values) // 10)
    before = percentile(values[tenth : 2 * tenth] or values[:1], 0.5)
    after = percentile(values[-tenth:], 0.5)
    limit = GROWTH * before if len(values) >= 100 else 100.0
    finding.figures[f"{name}_mb_before"], finding.figures[f"{name}_mb_after"] = (before, "MB"), (after, "MB")
    finding.expect(after - before <= limit, f"{name}: {before:.0f} → {after:.0f} MB")
