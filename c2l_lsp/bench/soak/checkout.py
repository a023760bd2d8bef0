"""A large checkout while the watcher's reader stands still: the overflow is seen, everything is folded, once."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from c2l_lsp.bench.soak import inside
from c2l_lsp.bench.soak.bar import Finding, Task, percentile
from c2l_lsp.bench.soak.fixtures import project, sources
from c2l_lsp.bench.soak.proc import Engine, planted
from c2l_lsp.engine import wire

FOLD_S = 60.0
SLOWER = 1.5
_BULK = 20


def run(task: Task) -> Finding:
    """One checkout of `count` files."""
    finding = Finding()
    root = project(task.work / "project", 8)
    _branches(root, task.count)
    faults = "stalls" + (f"+{task.plant}" if task.plant else "")
    settings = inside.settings(adapter={"updateDelayMs": 500, "maxDelayMs": 5000})
    with Engine(task.work, planted(faults, "engine")) as engine:
        engine.call("hello", wire.Hello(schema=wire.SCHEMA, settings=settings), 180 * task.patience)
        engine.call("open_folder", wire.OpenFolder(folder=str(root), settings=settings), 180 * task.patience)
        _until(engine, lambda: engine.heard("adapter_changed"), 300 * task.patience)
        idle = [_complete(engine, root, n) for n in range(40)]
        before = len(engine.heard("adapter_changed"))
        os.kill(engine.process.pid, signal.SIGUSR1)
        began = time.monotonic()
        git = threading.Thread(target=_git, args=(root, "checkout", "-q", "large"))
        git.start()
        busy, folded = _follow(task, engine, root, git, began)
        events = [event.data for event in engine.heard("adapter_changed")[before:]]
    finding.tried = task.count
    _judge(task, finding, root, events, folded)
    finding.figures |= {"idle_p95_ms": (percentile(idle, 0.95) * 1e3, "ms"), "fold_s": (folded, "s")}
    finding.figures |= {"busy_p95_ms": (percentile(busy, 0.95) * 1e3, "ms"), "busy": (float(len(busy)), "completions")}
    if task.count >= 10_000:  # less is over before there are enough completions to compare
        slower = percentile(busy, 0.95) / max(percentile(idle, 0.95), 1e-6)
        finding.expect(slower <= SLOWER, f"completions' p95 is {slower:.2f}× that of an idle engine")
    return finding


def _judge(task: Task, finding: Finding, root: Path, events: list[dict[str, object]], folded: float) -> None:
    finding.expect(folded <= FOLD_S * task.patience, f"not folded after {folded:.0f} s")
    bulk = [event for event in events if int(str(event["changed_files"])) >= _BULK]
    finding.expect(len(bulk) <= 1, f"{len(bulk)} bulk updates")
    seen = _seen(task.work / "state")
    missing = task.count + 8 - seen
    finding.expect(missing == 0, f"{missing} files were never seen")
    limit = Path("/proc/sys/fs/inotify/max_queued_events")
    if limit.exists() and 2 * task.count > 1.2 * int(limit.read_text()):
        finding.note = "more events than the system's queue holds"


def _seen(state: Path) -> int:
    """How many files the state on disk knows of."""
    from c2l_lsp.engine.store import FolderStore

    for pointer in state.glob("*/CURRENT"):
        saved = FolderStore(pointer.parent).peek()
        if saved is not None:
            return len(saved.seen)
    return 0


def _follow(task: Task, engine: Engine, root: Path, git: threading.Thread, began: float) -> tuple[list[float], float]:
    """Complete on and on until everything is folded, and for a moment longer; latencies, and how long it took."""
    busy: list[float] = []
    limit = (20.0 if task.plant else 4 * FOLD_S) * task.patience
    while time.monotonic() - began < limit:
        busy.append(_complete(engine, root, len(busy)))
        if git.is_alive() or time.monotonic() - began < 6.0:
            continue
        if _seen(task.work / "state") >= task.count + 8:
            break
    git.join(limit)
    return busy, time.monotonic() - began


def _complete(engine: Engine, root: Path, number: int) -> float:
    prefix = f"# {number}\n" + sources()[number % 5][:300]
    began = time.monotonic()
    engine.call("complete", inside.question(root, "pkg0/m0.py", prefix, max_new_tokens=8))
    return time.monotonic() - began


def _until(engine: Engine, holds: object, timeout: float) -> None:
    with engine.news:
        if not engine.news.wait_for(holds, timeout):  # type: ignore[arg-type]
            raise TimeoutError(f"the engine did not learn the folder within {timeout:.0f} s")


def _branches(root: Path, count: int) -> None:
    """A repository whose branch `large` has so many files more, in a hundred folders."""
    _git(root, "init", "-q", "-b", "small")
    _git(root, "add", ".")
    _git(root, "commit", "-q", "-m", "small")
    _git(root, "checkout", "-q", "-b", "large")
    for number in range(count):
        path = root / f"d{number % 100}" / f"f{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"def function_{number}(value):\n    return value + {number}\n")
    _git(root, "add", ".")
    _git(root, "commit", "-q", "-m", "large")
    _git(root, "checkout", "-q", "small")


def _git(root: Path, *args: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "-c", "gc.auto=0")
    subprocess.run(["git", *who, *args], cwd=root, check=True, capture_output=True, timeout=600)
