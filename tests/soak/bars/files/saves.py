"""The ways in which editors save a file. Each must be seen as exactly one change of that file."""

from __future__ import annotations

import time
from collections.abc import Callable

from c2l_lsp import config
from c2l_lsp.repo.filter.files import FileFilter
from c2l_lsp.repo.history.snapshot import Snapshot
from c2l_lsp.repo.watching.coalesce import Coalescer
from c2l_lsp.repo.watching.watch import Watcher
from tests.soak.harness.bar import Finding, Task
from tests.support.save_styles import SAVE_STYLES
from tests.support.snapshots import changes, scan

LIMIT_S = 20.0


def taken(batch: Coalescer, limit_s: float) -> frozenset[str] | None:
    """The next batch of hints. TimeoutError if none comes."""
    until = time.monotonic() + limit_s
    while (wait := batch.seconds_until_due()) != 0.0:
        if time.monotonic() > until:
            raise TimeoutError("the watcher missed a save")
        time.sleep(0.005 if wait is None else min(wait, 0.05))
    return batch.take()


def _texts(snapshot: Snapshot) -> dict[str, tuple[bytes, int]]:
    """Digest and size of every file, without modification times."""
    return {path: (entry.digest, entry.size) for path, entry in snapshot.items()}


def run(task: Task) -> Finding:
    """All ways of saving in turn, in one watched folder."""
    finding = Finding()
    root = task.work / "folder"
    (root / "pkg").mkdir(parents=True)
    saved = root / "pkg" / "b.py"
    saved.write_text("b = 0\n")
    (root / "a.py").write_text("a = 1\n")
    rules = FileFilter(root, config.Files())
    batch = Coalescer(quiet_s=0.05, max_delay_s=5.0)
    on_hint: Callable[[frozenset[str] | None], None] = batch.add
    if task.planted("blind"):  # renames are not reported
        on_hint = lambda hint: None if hint and "pkg/b.py" in hint else batch.add(hint)  # noqa: E731
    watcher = Watcher(root, rules, on_hint)
    watcher.start()
    try:
        held: Snapshot = scan(rules)
        for number in range(task.count):
            save = SAVE_STYLES[number % len(SAVE_STYLES)]
            save(saved, f"b = 'saved {number}'\n")
            finding.tried += 1
            try:
                hints = taken(batch, 1.0 if task.plant else LIMIT_S * task.patience)
            except TimeoutError as error:
                finding.fail(f"{save.__name__}: {error}", late=True)
                continue
            found = scan(rules, held, hints)
            edits = changes(held, found)
            finding.expect(edits == {"pkg/b.py": "modified"}, f"{save.__name__}: {edits}")
            finding.expect(_texts(found) == _texts(scan(rules)), f"{save.__name__}: the snapshot differs from the disk")
            held = found
    finally:
        watcher.stop()
    finding.figures["overflows"] = (float(watcher.overflows), "")
    return finding
