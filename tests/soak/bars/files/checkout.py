"""A large checkout while the watcher's reader is stopped: the overflow is detected and all changes are applied once."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from c2l_lab.clients.engine import EngineProcess

from c2l_lsp.cooperative import drain
from c2l_lsp.engine import wire
from c2l_lsp.repo.filter.reading import FileText, check_bytes_in_slices
from tests.soak.harness import in_process
from tests.soak.harness.bar import Finding, Task, percentile
from tests.soak.harness.sources import project, sources
from tests.support.processes import engine_command, start_engine

APPLY_S = 60.0
SLOWER = 1.5
EVENTS = 2
"""Minimum number of inotify events per file: created and written."""
FOLDERS, FILE_CHARS = 100, 1500
REQUEST_INTERVAL_S = 0.25
"""Minimum seconds between the starts of two requests, as in continuous typing."""

_BULK = 20
_MOST_PARTS = 8  # each part at least doubles the state, so a large checkout takes a few


def run(task: Task) -> Finding:
    """One checkout of `count` files."""
    finding = Finding()
    root = project(task.work / "project", 8)
    _branches(root, task.count)
    notes = task.work / "losses"
    overflows = EVENTS * task.count > _queue()
    faults = ("stalls" if overflows else "stalls:1") + (f"+{task.plant}" if task.plant else "")
    settings = in_process.settings(adapter={"updateDelayMs": 500, "maxDelayMs": 5000})
    with start_engine(task.work, engine_command(faults), C2L_SOAK_NOTES=str(notes)) as engine:
        engine.hello(settings, 180 * task.patience)
        engine.open_folder(root, settings, 180 * task.patience)
        engine.until(lambda: engine.named("adapter_changed"), 300 * task.patience, "adapter")
        idle = [_complete(engine, root, n) for n in range(60)]
        there = len(list(root.rglob("*.py")))
        before = len(engine.named("adapter_changed"))
        os.kill(engine.process.pid, signal.SIGUSR1)
        began = time.monotonic()
        git = threading.Thread(target=_git, args=(root, "checkout", "-q", "large"))
        git.start()
        busy, applied = _follow(task, engine, git, began, root, there + task.count)
        events = [event.data for _, event in engine.named("adapter_changed")[before:]]
    finding.tried = task.count
    _judge(task, finding, root, events, applied, there)
    lost = notes.read_text().split().count("overflow") if notes.exists() else 0
    finding.expect(lost, "no overflow happened, so recovery from one was not tested")
    finding.figures["overflows"] = (float(lost), "")
    if not overflows:
        finding.note = "fewer events than the kernel's queue holds: the events of the stall are discarded instead"
    finding.figures |= {"idle_p95_ms": (percentile(idle, 0.95) * 1e3, "ms"), "fold_s": (applied, "s")}
    finding.figures |= {"busy_max_ms": (max(busy, default=0.0) * 1e3, "ms")}
    finding.figures |= {"busy_p95_ms": (percentile(busy, 0.95) * 1e3, "ms"), "busy": (float(len(busy)), "completions")}
    if task.count >= 10_000:  # smaller runs end before there are enough completions
        slower = percentile(busy, 0.95) / max(percentile(idle, 0.95), 1e-6)
        finding.expect(slower <= SLOWER, f"completions' p95 is {slower:.2f}× that of an idle engine", late=True)
    return finding


def _judge(
    task: Task, finding: Finding, root: Path, events: list[dict[str, object]], applied: float, there: int
) -> None:
    finding.expect(applied <= APPLY_S * task.patience, f"changes were not applied after {applied:.0f} s", late=True)
    bulk = [event for event in events if int(str(event["changed_files"])) >= _BULK]
    indexed = [event for event in bulk if event["trigger"] == wire.TOKENS]
    finding.expect(len(indexed) <= 1, f"{len(indexed)} bulk updates of the token index")
    bulk = [event for event in bulk if event["trigger"] != wire.TOKENS]
    finding.expect(len(bulk) <= _MOST_PARTS, f"{len(bulk)} bulk updates of the state")
    for stage, spent in (bulk[0]["ms"] if bulk else {}).items():  # type: ignore[attr-defined]
        finding.figures[f"{stage}_s"] = (float(spent) / 1e3, "s")
    saved = _saved(task.work / "state")
    missing = task.count + there - (len(saved.seen) if saved else 0)
    finding.expect(missing == 0, f"{missing} files were never seen")
    if saved is None:
        return
    wrong = [p for p, row in [*saved.seen.items(), *saved.files.items()] if _digest(root / p) != row[0]]
    finding.expect(not wrong, f"{len(wrong)} files have a wrong digest: {wrong[:3]}")
    learned, least = _learned(saved), _budget(saved)
    finding.expect(learned >= least, f"{learned} bytes are in the state, {least} would fit")
    finding.figures["folded"] = (float(len(saved.files)), "files")


def _queue() -> int:
    """The length of the kernel's inotify queue."""
    limit = Path("/proc/sys/fs/inotify/max_queued_events")
    return int(limit.read_text()) if limit.exists() else 1 << 30


def _digest(path: Path) -> bytes:
    """The digest of a file's text as it is learned: marks stand for its secrets."""
    found = drain(check_bytes_in_slices(path.read_bytes(), 0)) if path.is_file() else None
    return found.digest if isinstance(found, FileText) else b""


def _saved(state: Path) -> Any:
    """The saved state."""
    from c2l_lsp.engine.storage.store import FolderStore

    return next((FolderStore(pointer.parent).load_metadata() for pointer in state.glob("*/CURRENT")), None)


def _learned(saved: Any) -> int:
    return sum(row[1] for row in saved.files.values())


def _budget(saved: Any) -> int:
    """The bytes that must be in the state: all, or the limit minus the size of the largest file."""
    sizes = [row[1] for row in saved.seen.values()]
    room = in_process.settings().adapter.max_index_kb * 1024
    return sum(sizes) if sum(sizes) <= room else room - max(sizes)


def _follow(
    task: Task, engine: EngineProcess, git: threading.Thread, began: float, root: Path, files: int
) -> tuple[list[float], float]:
    """Request completions until all files are applied; their latencies, and the seconds it took."""
    busy: list[float] = []
    limit = (8.0 if task.plant else 4 * APPLY_S) * task.patience
    while time.monotonic() - began < limit:
        busy.append(_complete(engine, root, len(busy)))
        if git.is_alive() or time.monotonic() - began < 6.0 or len(busy) % 8:  # reading the state takes CPU time
            continue
        saved = _saved(task.work / "state")
        if saved is not None and len(saved.seen) >= files and _learned(saved) >= _budget(saved):
            break
    git.join(limit)
    return busy, time.monotonic() - began


def _complete(engine: EngineProcess, root: Path, number: int) -> float:
    prefix = f"# {number}\n" + sources()[number % 5][:300]
    began = time.monotonic()
    engine.call(
        "complete", in_process.completion_request(root, "pkg0/m0.py", prefix, max_new_tokens=8), wire.Completion
    )
    took = time.monotonic() - began
    time.sleep(max(0.0, REQUEST_INTERVAL_S - took))
    return took


def _branches(root: Path, count: int) -> None:
    """A repository whose branch `large` has `count` more files, in 100 folders that exist before."""
    checked = ((text, drain(check_bytes_in_slices(text[:FILE_CHARS].encode(), 0))) for text in sources())
    texts = [text for text, found in checked if isinstance(found, FileText)]
    for number in range(FOLDERS):
        (root / f"d{number}").mkdir()
        (root / f"d{number}" / "first.py").write_text(f"FIRST_{number} = {number}\n")
    _git(root, "init", "-q", "-b", "small")
    _git(root, "add", ".")
    _git(root, "commit", "-q", "-m", "small")
    _git(root, "checkout", "-q", "-b", "large")
    for number in range(count):
        path = root / f"d{number % FOLDERS}" / f"f{number}.py"
        text = texts[number % len(texts)]
        path.write_text(f"NUMBER_{number} = {number}\n\n{text[:FILE_CHARS]}\n", encoding="utf-8")
    _git(root, "add", ".")
    _git(root, "commit", "-q", "-m", "large")
    _git(root, "repack", "-q", "-a", "-d")  # packed like a clone, so that the checkout is fast
    _git(root, "checkout", "-q", "small")


def _git(root: Path, *args: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "-c", "gc.auto=0")
    subprocess.run(["git", *who, *args], cwd=root, check=True, capture_output=True, timeout=600)
