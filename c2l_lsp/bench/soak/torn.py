"""Saving that is killed, and two that save at once: what is loaded afterwards is one whole generation, the last."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from c2l_lsp.bench.soak.bar import Finding, Task
from c2l_lsp.bench.soak.proc import environment
from c2l_lsp.errors import StateError


class Saver:
    """The process that saves, and what its children said."""

    def __init__(self, task: Task, fault: str) -> None:
        command = [sys.executable, "-m", "c2l_lsp.bench.soak.saver", *([fault] if fault else [])]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(task.work)
        )
        self.lines: list[tuple[int, str, str]] = []
        self.news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        self.until(lambda: self.lines, 120.0)

    def _read(self) -> None:
        assert self.process.stdout is not None  # noqa: S101
        for line in self.process.stdout:
            pid, word, *number = line.split()
            with self.news:
                self.lines.append((int(pid), word, number[0] if number else ""))
                self.news.notify_all()

    def say(self, command: str) -> None:
        """A command."""
        assert self.process.stdin is not None  # noqa: S101
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def until(self, holds: object, timeout: float) -> None:
        """Wait for lines."""
        with self.news:
            if not self.news.wait_for(holds, timeout):  # type: ignore[arg-type]
                raise TimeoutError("the process that saves does not answer")

    def of(self, word: str) -> list[tuple[int, str, str]]:
        """The lines with a word."""
        return [line for line in list(self.lines) if line[1] == word]

    def saved_by(self, pid: int) -> int:
        """The last generation that a child said was saved."""
        return max((int(number) for who, word, number in list(self.lines) if who == pid and word == "saved"), default=0)

    def end(self) -> None:
        """Nothing of it is left."""
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
    from c2l_lsp.bench.soak.saver import whole
    from c2l_lsp.engine.store import FolderStore

    store = FolderStore(root)
    try:
        loaded = store.load()
    except StateError as error:
        finding.fail(f"{what}: {error}")
        return
    finally:
        store.close()
    if loaded is None:
        finding.expect(acknowledged == 0, f"{what}: nothing to load, {acknowledged} were saved")
        return
    finding.expect(whole(loaded), f"{what}: parts of several generations")
    lost = acknowledged - loaded[0].generation
    finding.expect(lost <= 0, f"{what}: {lost} generations lost that were saved")


def run(task: Task) -> Finding:
    """A kill at each system call of a save, then `count` kills at random moments."""
    finding = Finding()
    saver = Saver(task, task.plant)
    dice = random.Random(0)  # noqa: S311
    try:
        points = _points(task, finding, saver)
        for number in range(task.count):
            root = task.work / f"random-{number}"
            children = len({pid for pid, word, _ in saver.lines if word == "saved"})
            saver.say(f"loop {root}")
            saver.until(lambda n=children: len({p for p, word, _ in saver.lines if word == "saved"}) > n, 60.0)
            pid = next(p for p, word, _ in reversed(saver.lines) if word == "saved")
            time.sleep(dice.random() * 0.1)
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)  # its last line may still be in the pipe; one that comes later only makes this laxer
            finding.tried += 1
            _check(finding, root, saver.saved_by(pid), f"kill {number}")
    finally:
        saver.end()
    finding.figures["system_calls"] = (float(points), "calls")
    return finding


def _points(task: Task, finding: Finding, saver: Saver) -> int:
    """Kill at the first, second, … call until a save survives; how many calls there are."""
    for number in range(1, 500):
        root = task.work / f"point-{number}"
        saver.say(f"point {number} {root}")
        saver.until(lambda n=number: len(saver.of("over")) >= n, 60.0)
        finding.tried += 1
        _check(finding, root, 1, f"killed at call {number}")
        if saver.of("survived"):
            return number - 1
    finding.fail("a save of more than 500 system calls")
    return 500


def two(task: Task) -> Finding:
    """Two processes save into one folder; exactly one of them may, until it ends."""
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
            finding.expect(len(writers) == 1 and len(readers) == 1, f"race {number}: {len(writers)} wrote")
            for pid in writers | readers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
            _check(finding, root, max((saver.saved_by(pid) for pid in writers), default=0), f"race {number}")
    finally:
        saver.end()
    return finding
