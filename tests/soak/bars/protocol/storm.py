"""10,000 edits a minute: completions do not lag, what is typed is learned, texts stay correct, memory does not grow."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from c2l_lab.clients.lsp import LanguageClient

from c2l_lsp import config
from c2l_lsp.repo.filter.files import FileFilter
from c2l_lsp.server.workspace.documents import Edit
from tests.soak.bars.protocol.documents import Model
from tests.soak.harness.bar import Finding, Task, percentile
from tests.soak.harness.sources import project, sources
from tests.support.processes import server_command, start_server

RATE = 10_000 / 60
DOCUMENTS = 20
ASK_S = 0.5
LAG_S, GROWTH = 2.0, 0.05
LEARN_S = 30.0
"""Seconds from the last edit until its document is learned, and between two generations while edits go on."""

QUEUE = LAG_S * RATE
"""Maximum length of the engine's queue: the requests of LAG_S seconds."""


@dataclass
class Storm:
    """What was seen during the edits. The first document is completed; the others are typed in."""

    editor: LanguageClient
    models: dict[str, Model]
    lags: list[float] = field(default_factory=list)
    """Seconds until each completion."""
    memory: dict[str, list[float]] = field(default_factory=lambda: {"server": [], "engine": []})
    began: float = 0.0
    asked: tuple[int, float] | None = None
    """The completion request without reply, and when it was sent."""

    def edit(self, uri: str, line: int, old: str, new: str) -> None:
        """Replace `old` at the beginning of a line by `new`."""
        self.editor.change(uri, ((line, 0), (line, len(old)), new))
        self.models[uri].apply(Edit(new, (line, 0), (line, len(old))))

    def poll(self, number: int) -> None:
        """Take the reply of the open completion request, and send the next one when it is time.

        A reply is waited for without pausing the edits. The document was changed just before, so that no earlier
        answer can be repeated.
        """
        now = time.monotonic()
        if self.asked is not None:
            request, sent = self.asked
            if request not in self.editor.replies:
                return
            self.lags.append(now - sent)
            self.asked = None
        if now - self.began >= ASK_S * len(self.lags):
            uri = next(iter(self.models))
            self.edit(uri, 0, "", f"v{number} = ")
            self.edit(uri, 0, "", "\n")
            self.asked = self.editor.send_completion(uri, 1, len(f"v{number} = ")), now
            _measure(self.editor, self.memory)


def run(task: Task) -> Finding:
    """Edits at RATE in 19 documents, and a completion in another one every ASK_S."""
    finding = Finding()
    root = project(task.work / "project", DOCUMENTS)
    notes = task.work / "census"
    faults = "census" + (f"+{task.plant}" if task.plant else "")
    with start_server(task.work, server_command(faults), None, C2L_SOAK_NOTES=str(notes)) as editor:
        editor.initialize([root], {"completion": {"speculative": False, "cacheSize": 0}})
        editor.ready(180 * task.patience, adapter=True)
        uris = [(root / "pkg0" / f"m{number}.py").as_uri() for number in range(DOCUMENTS)]
        texts = [sources()[number][:5000].replace("\r", "") for number in range(DOCUMENTS)]
        for uri, text in zip(uris, texts, strict=True):
            editor.open(uri, text)
        storm = Storm(editor, {uri: Model(text, "utf-16") for uri, text in zip(uris, texts, strict=True)})
        _type(task, finding, storm)
        _compare(task, finding, storm, notes)
        _judge_lags(task, finding, storm, notes)
        _judge_learning(task, finding, storm, root, notes)
        for name, values in storm.memory.items():
            _flat(task, finding, name, values)
    return finding


def _type(task: Task, finding: Finding, storm: Storm) -> None:
    rng, uris = random.Random(0), list(storm.models)[1:]
    storm.began = time.monotonic()
    typed: dict[str, tuple[int, str]] = {}
    for number in range(task.count):
        uri = uris[rng.randrange(len(uris))]
        if uri in typed:  # taken back by the next edit of the document: that of a day makes no file ten times as long
            storm.edit(uri, *typed.pop(uri), "")
        else:
            line, new = rng.randrange(60), f"x{number % 97} = {number}\n"[: 3 + number % 5]
            typed[uri] = (line, new)
            storm.edit(uri, line, "", new)
        finding.tried += 1
        storm.poll(number)
        time.sleep(max(0.0, storm.began + (number + 1) / RATE - time.monotonic()))
    for number, uri in enumerate(uris):
        storm.edit(uri, 0, "", f"LAST_{number} = {rng.getrandbits(64)}\n")  # a text that was never there before


def _rows(notes: Path) -> list[list[str]]:
    """The lines of the census that are complete."""
    return [line.split() for line in notes.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _compare(task: Task, finding: Finding, storm: Storm, notes: Path) -> None:
    """Compare the server's texts with the editor's, and check the length of the engine's queue."""
    storm.editor.request("c2l/statistics", {}, 60 * task.patience)  # the last edit has arrived
    os.kill(storm.editor.process.pid, signal.SIGUSR1)
    until, rows = time.monotonic() + 30 * task.patience, list[list[str]]()
    while ["end"] not in rows and time.monotonic() < until:
        time.sleep(0.02)
        rows = _rows(notes)
    found = {row[1]: row[2] for row in rows if row[0] == "text"}
    wrong = [uri for uri, model in storm.models.items() if found.get(uri) != _digest(model.text)]
    finding.expect(not wrong, f"{len(wrong)} of {len(storm.models)} texts differ from the editor's: {wrong[:2]}")
    most = {kind: max((int(row[1]) for row in rows if row[0] == kind), default=0) for kind in ("queue", "texts")}
    finding.expect(0 < most["texts"] <= DOCUMENTS, f"{most['texts']} texts of {DOCUMENTS} documents were queued")
    finding.expect(most["queue"] <= QUEUE * task.patience, f"{most['queue']} requests were queued at a time", late=True)
    finding.figures |= {f"{kind}_max": (float(number), "requests") for kind, number in most.items()}


def _judge_lags(task: Task, finding: Finding, storm: Storm, notes: Path) -> None:
    """Completions that the model computed came in time."""
    if storm.asked is not None:
        storm.editor.reply(storm.asked[0], 60 * task.patience)
        storm.lags.append(time.monotonic() - storm.asked[1])
    lag, computed = percentile(storm.lags, 0.99), sum(row[0] == "completed" for row in _rows(notes))
    finding.figures |= {"lag_p99_s": (lag, "s"), "completions": (float(len(storm.lags)), "")}
    finding.expect(lag <= LAG_S * task.patience, f"completions' lag p99 {lag:.1f} s", late=True)
    least = len(storm.lags) * 0.9
    finding.expect(computed >= least, f"the model computed {computed} of {len(storm.lags)} completions")


def _learnable(root: Path, storm: Storm) -> dict[str, str]:
    """Path → digest of the text as it is learned: without its secrets."""
    rules, found = FileFilter(root, config.Files()), dict[str, str]()
    for uri, model in storm.models.items():
        path = uri.removeprefix(f"{root.as_uri()}/")
        checked = rules.check_text(path, model.text)
        found[path] = checked.digest.hex() if checked is not None else ""
    return found


def _judge_learning(task: Task, finding: Finding, storm: Storm, root: Path, notes: Path) -> None:
    """Every document's last text is learned, and generations went on during the edits."""
    ended, limit = time.monotonic(), (10.0 if task.plant else LEARN_S) * task.patience
    wanted = _learnable(root, storm)

    def missing() -> list[str]:
        learned = {row[2]: row[3] for row in _rows(notes) if row[0] == "learned"}
        return [path for path, digest in wanted.items() if learned.get(path) != digest]

    while (left := missing()) and time.monotonic() - ended < limit:
        time.sleep(0.05)
    took = time.monotonic() - ended
    if left and not task.plant:  # later is late; never is a fault, on a busy machine too
        while (left := missing()) and time.monotonic() - ended < 10 * LEARN_S:
            time.sleep(0.5)
    finding.expect(not left, f"{len(left)} of {len(wanted)} texts were not learned: {left[:2]}")
    finding.expect(left or took < limit, f"the last texts were learned after {limit:.0f} s only", late=True)
    times = [float(row[1]) for row in _rows(notes) if row[0] == "published" and float(row[1]) >= storm.began]
    marks = [storm.began, *(at for at in times if at <= ended)]
    gap = max((b - a for a, b in zip(marks, [*marks[1:], ended], strict=True)), default=0.0)
    finding.figures |= {"learned_s": (took, "s"), "learning_gap_s": (gap, "s"), "generations": (float(len(times)), "")}
    finding.expect(gap <= LEARN_S * task.patience, f"nothing was learned for {gap:.0f} s", late=True)


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
