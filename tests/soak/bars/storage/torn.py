"""Interrupted saves, and two processes that save: the loaded state is always one complete, recent generation."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from c2l_lsp.errors import StateError
from tests.soak.harness.bar import Finding, Task
from tests.support.commands import module_command
from tests.support.processes import private_environment

ALL_CALLS = 50
"""From this count on, errors are injected into every system call; below, into every fourth."""


class Saver:
    """The process that saves (harness/saver.py) and the output of its children."""

    def __init__(self, task: Task, fault: str) -> None:
        command = module_command("tests.soak.harness.saver", *([fault] if fault else []))
        environment = {**os.environ, **private_environment(task.work)}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.work = task.work
        self.lines: list[tuple[int, str, str]] = []
        self.news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        self.until(lambda: self.lines, 120.0)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            pid, word, *number = line.split()
            with self.news:
                self.lines.append((int(pid), word, number[0] if number else ""))
                self.news.notify_all()

    def say(self, command: str) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def until(self, holds: object, timeout: float) -> None:
        """Wait for output lines."""
        with self.news:
            if not self.news.wait_for(holds, timeout):  # type: ignore[arg-type]
                raise TimeoutError("the saving process does not answer")

    def of(self, word: str) -> list[tuple[int, str, str]]:
        """The lines with this word."""
        return [line for line in list(self.lines) if line[1] == word]

    def saved_by(self, pid: int) -> int:
        """The last generation that a child reported as saved."""
        return max((int(number) for who, word, number in list(self.lines) if who == pid and word == "saved"), default=0)

    def end(self) -> None:
        """Kill the process and its children."""
        for pid in {pid for pid, _, _ in self.lines} - {self.process.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait(30)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _check(finding: Finding, root: Path, acknowledged: int, what: str) -> None:
    from c2l_lsp.engine.storage.store import FolderStore
    from tests.soak.harness.saver import whole

    store = FolderStore(root)
    try:
        loaded = store.load()
    except StateError as error:
        finding.fail(f"{what}: {error}")
        return
    finally:
        store.close()
    if loaded is None:
        finding.expect(acknowledged == 0, f"{what}: no state, although {acknowledged} generations were saved")
        return
    finding.expect(whole(loaded), f"{what}: a mixture of generations")
    lost = acknowledged - loaded[0].generation
    finding.expect(lost <= 0, f"{what}: {lost} saved generations lost")


def _check_embeddings(finding: Finding, root: Path, acknowledged: int, what: str) -> None:
    """The database is intact and contains every embedding that was reported as saved."""
    from c2l_lsp.engine.storage.store import FolderStore
    from tests.soak.harness.saver import RULE, reading

    wanted = dict(reading(number) for number in range(1, acknowledged + 1))
    store = FolderStore(root)
    try:
        found = store.cache.get(wanted, RULE)
    finally:
        store.close()
    lost = [key for key, value in wanted.items() if key not in found or not found[key]["q"].equal(value["q"])]
    finding.expect(not lost, f"{what}: {len(lost)} of {len(wanted)} embeddings lost or changed")
    with contextlib.closing(sqlite3.connect(root / "readings.sqlite")) as db:
        (reported,) = db.execute("PRAGMA integrity_check").fetchone()
    finding.expect(reported == "ok", f"{what}: integrity check of the database: {reported!r}")


def run(task: Task) -> Finding:
    """A kill and two errors at each system call of a save, then `count` kills at random times."""
    finding = Finding()
    saver = Saver(task, task.plant)
    rng = random.Random(0)
    try:
        calls = _points(task, finding, saver)
        finding.figures["system_calls"] = (float(len(calls)), "calls")
        finding.figures["writes"] = (float(calls.count("write")), "calls")
        for kind in {"write", "fsync", "rename", "replace", "mkdir", "open"} - set(calls) if not task.plant else set():
            finding.fail(f"a save made no call of {kind}, so it was not tested")
        for turn, code in enumerate((errno.ENOSPC, errno.EIO)):
            few = range(1 + turn, len(calls) + 1, 4)  # every fourth call in the short form
            _errors(finding, saver, range(1, len(calls) + 1) if task.count >= ALL_CALLS else few, code)
        for number in range(task.count):
            root = task.work / f"random-{number}"
            saved = _killed(saver, root, rng.random() * 0.1)
            finding.tried += 1
            _check(finding, root, saved, f"kill {number}")
            if task.plant != "in_place":
                _check_embeddings(finding, root, saved, f"kill {number}")
    finally:
        saver.end()
    return finding


def _killed(saver: Saver, root: Path, after: float) -> int:
    """Kill a child that saves continuously; the last generation that it reported as saved.

    The database writes in C, so only a kill from outside can interrupt it.
    """
    children = len({pid for pid, word, _ in saver.lines if word == "saved"})
    saver.say(f"loop {root}")
    saver.until(lambda: len({p for p, word, _ in saver.lines if word == "saved"}) > children, 60.0)
    pid = next(p for p, word, _ in reversed(saver.lines) if word == "saved")
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(psutil.NoSuchProcess):
        process, until = psutil.Process(pid), time.monotonic() + 10.0
        while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
            time.sleep(0.001)
    return saver.saved_by(pid)


def _points(task: Task, finding: Finding, saver: Saver) -> list[str]:
    """Kill at the first, second, … system call until a save completes; the names of the calls."""
    for number in range(1, 500):
        root = task.work / f"point-{number}"
        saver.say(f"point {number} {root}")
        saver.until(lambda n=number: len(saver.of("over")) >= n, 60.0)
        finding.tried += 1
        _check(finding, root, 1, f"killed at call {number}")
        if saver.of("survived"):
            return [name for _, _, name in saver.of("at")]
    finding.fail("a save needs more than 500 system calls")
    return []


def _errors(finding: Finding, saver: Saver, calls: Iterable[int], code: int) -> None:
    """Let one system call fail: the error is reported, the old state stays complete, and the next save works."""
    for number in calls:
        root = saver.work / f"error-{code}-{number}"
        over, start = len(saver.of("over")), len(saver.lines)
        saver.say(f"error {number} {code} {root}")
        saver.until(lambda n=over: len(saver.of("over")) > n, 60.0)
        reported = [(word, value) for _, word, value in saver.lines[start:]]
        at = next((value for word, value in reported if word == "at"), "no call")
        what = f"{errno.errorcode[code]} at call {number} ({at})"
        finding.tried += 1
        finding.expect(at != "no call", f"{what}: nothing failed")
        finding.expect(("saved", "3") in reported, f"{what}: the next save failed")
        refused = ("refused", "") in reported
        finding.expect(refused or ("saved", "2") in reported, f"{what}: neither saved nor reported")
        finding.expect(("torn", "") not in reported, f"{what}: the saved state is not complete")
        _check(finding, root, 3, what)


def two(task: Task) -> Finding:
    """Two processes save into one folder; exactly one may write until it exits."""
    finding = Finding()
    saver = Saver(task, task.plant)
    try:
        for number in range(task.count):
            root = task.work / f"race-{number}"
            seen = len(saver.lines)
            saver.say(f"loop {root}")
            saver.say(f"loop {root}")

            def heard(start: int = seen) -> list[tuple[int, str, str]]:
                return saver.lines[start:]

            saver.until(lambda: len({pid for pid, _, _ in heard()}) >= 2, 60.0)
            writers = {pid for pid, word, _ in heard() if word == "saved"}
            readers = {pid for pid, word, _ in heard() if word == "busy"}
            finding.tried += 1
            finding.expect(len(writers) == 1 and len(readers) == 1, f"race {number}: {len(writers)} processes wrote")
            for pid in writers | readers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
            _check(finding, root, max((saver.saved_by(pid) for pid in writers), default=0), f"race {number}")
    finally:
        saver.end()
    return finding
