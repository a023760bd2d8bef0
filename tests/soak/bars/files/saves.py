"""How editors write a file. Each way must come out of watching and comparing as one edit of that file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from c2l_lsp import config
from c2l_lsp.repo.filter.files import FileFilter
from c2l_lsp.repo.history import diff
from c2l_lsp.repo.history.snapshot import Scan, Snapshot
from c2l_lsp.repo.watching.watch import Coalescer, Watcher
from tests.soak.harness.bar import Finding, Task

LIMIT_S = 20.0


def in_place(path: Path, text: str) -> None:
    """Truncate and write."""
    path.write_text(text)


def rename_over(path: Path, text: str) -> None:
    """Written aside, renamed over."""
    aside = path.with_name(f".{path.name}.tmp123")
    aside.write_text(text)
    aside.replace(path)


def backup_and_rename(path: Path, text: str) -> None:
    """The old file becomes a backup, a new one is written."""
    backup = path.with_name(f"{path.name}~")
    path.rename(backup)
    path.write_text(text)
    backup.unlink()


def vim_with_swap_file(path: Path, text: str) -> None:
    """Vim's swap file and its test for a writable folder."""
    swap = path.with_name(f".{path.name}.swp")
    swap.write_bytes(b"b0VIM")
    path.with_name("4913").touch()
    path.with_name("4913").unlink()
    backup_and_rename(path, text)
    swap.unlink()


def emacs_with_lock(path: Path, text: str) -> None:
    """Emacs' lock link and auto-save file."""
    lock = path.with_name(f".#{path.name}")
    lock.symlink_to("me@host.1:2")
    path.with_name(f"#{path.name}#").write_text(text)
    rename_over(path, text)
    path.with_name(f"#{path.name}#").unlink()
    lock.unlink()


def python_temporary(path: Path, text: str) -> None:
    """Written aside under a name that the filter admits."""
    aside = path.with_name("tmpab12.py")
    aside.write_text(text)
    aside.replace(path)


def in_two_writes(path: Path, text: str) -> None:
    """Half of it on the disk before the rest comes."""
    with path.open("w") as file:
        file.write(text[:3])
        file.flush()
        os.fsync(file.fileno())
        file.write(text[3:])


STYLES = (
    in_place, rename_over, backup_and_rename, vim_with_swap_file, emacs_with_lock, python_temporary, in_two_writes,
)  # fmt: skip


def taken(batch: Coalescer, limit_s: float) -> frozenset[str] | None:
    """The next batch of hints. TimeoutError if none comes."""
    until = time.monotonic() + limit_s
    while (wait := batch.due()) != 0.0:
        if time.monotonic() > until:
            raise TimeoutError("the watcher did not tell of a save")
        time.sleep(0.005 if wait is None else min(wait, 0.05))
    return batch.take()


def _texts(snapshot: Snapshot) -> dict[str, tuple[bytes, int]]:
    """What the files held. Their times settle while one looks."""
    return {path: (entry.digest, entry.size) for path, entry in snapshot.items()}


def run(task: Task) -> Finding:
    """The ways of saving in turn, on one watched folder."""
    finding = Finding()
    root = task.work / "folder"
    (root / "pkg").mkdir(parents=True)
    saved = root / "pkg" / "b.py"
    saved.write_text("b = 0\n")
    (root / "a.py").write_text("a = 1\n")
    rules = FileFilter(root, config.Files())
    batch = Coalescer(quiet_s=0.05, max_delay_s=5.0)
    on_hint: Callable[[frozenset[str] | None], None] = batch.add
    if task.planted("blind"):  # renames are not told
        on_hint = lambda hint: None if hint and "pkg/b.py" in hint else batch.add(hint)  # noqa: E731
    watcher = Watcher(root, rules, on_hint)
    watcher.start()
    try:
        held: Snapshot = Scan(rules, {}).finish()
        for number in range(task.count):
            save = STYLES[number % len(STYLES)]
            save(saved, f"b = 'saved {number}'\n")
            finding.tried += 1
            try:
                hints = taken(batch, 1.0 if task.plant else LIMIT_S * task.patience)
            except TimeoutError as error:
                finding.fail(f"{save.__name__}: {error}")
                continue
            found = Scan(rules, held, only=hints).finish()
            edits = [(change.kind, change.path) for change in diff.between(held, found).diffs]
            finding.expect(edits == [("modified", "pkg/b.py")], f"{save.__name__}: {edits}")
            finding.expect(
                _texts(found) == _texts(Scan(rules, {}).finish()), f"{save.__name__}: the snapshot is not the disk's"
            )
            held = found
    finally:
        watcher.stop()
    finding.figures["overflows"] = (float(watcher.overflows), "")
    return finding
