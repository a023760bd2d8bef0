"""Unusual files: devices, pipes, links out of the folder, huge or binary files. None may block or be read too far."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from c2l_lsp import config, regular_files
from c2l_lsp.repo.filter import files
from c2l_lsp.repo.filter.files import FileFilter, FileText, Refusal
from tests.soak.harness.bar import Finding, Task

MAX_READ, MAX_S = 1 << 20, 0.1


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


def _loop(path: Path) -> None:
    path.symlink_to("other.py")
    path.with_name("other.py").symlink_to(path.name)


REFUSED: dict[str, Callable[[Path], object]] = {
    "1 GB": _sparse,
    "FIFO": lambda path: os.mkfifo(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "socket": _socket,
    "link to itself": lambda path: path.symlink_to(path.name),
    "loop of links": _loop,
    "link out of the folder": lambda path: path.symlink_to("/etc/passwd"),
    "link to a sibling": lambda path: path.symlink_to("plain.py"),
    "folder": lambda path: path.mkdir(),
    "invalid UTF-8": lambda path: path.write_bytes(b"x = '\xff\xfe'\n"),
    "surrogate in UTF-8": lambda path: path.write_bytes(b"x = '\xed\xa0\x80'\n"),
    "NUL": lambda path: path.write_bytes(b"x = 1\n\0"),
    "UTF-16": lambda path: path.write_text("x = 1\n", encoding="utf-16"),
    "one long line": lambda path: path.write_text("x=1;" * 20_000),
}
READ: dict[str, bytes] = {
    "CRLF": b"a = 1\r\nb = 2\r\n",
    "lone CR": b"a = 1\rb = 2\r",
    "form feed": b"a = 1\n\x0c\nb = 2\n",
    "astral": "s = '𝄞 👩‍🚀 e\u0301'\n".encode(),
    "BOM": b"\xef\xbb\xbfa = 1\n",
    "empty": b"",
    "U+2028": "a = '\u2028\u2029\x85'\n".encode(),
}


@contextlib.contextmanager
def _counted(task: Task) -> Iterator[list[int]]:
    """Records the sizes of all reads within the block, and plants the fault."""
    counts: list[int] = []
    real, flags, judged = os.read, regular_files.NO_FOLLOW, regular_files._require_regular

    def counting(descriptor: int, size: int) -> bytes:
        data = real(descriptor, size)
        counts.append(len(data))
        return data

    os.read = counting
    try:
        if task.planted("follow"):
            regular_files.NO_FOLLOW = 0
            regular_files._require_regular = lambda status, path: None
        yield counts
    finally:
        os.read, regular_files.NO_FOLLOW, regular_files._require_regular = real, flags, judged


def run(task: Task) -> Finding:
    """All kinds in one folder, each loaded by name, and the folder walked."""
    finding = Finding()
    root = task.work / "folder"
    root.mkdir()
    (root / "plain.py").write_text("x = 1\n")
    names = {f"odd_{number}.py": kind for number, kind in enumerate([*REFUSED, *READ])}
    for name, kind in names.items():
        if kind in READ:
            (root / name).write_bytes(READ[kind])
        else:
            REFUSED[kind](root / name)
    (root / "deep").mkdir()
    (root / "deep" / "up").symlink_to("..")
    longest = 0.0
    settings = config.Files(max_size_kb=65536) if task.planted("unbounded") else config.Files()
    with _counted(task) as counts:
        for _ in range(task.count):
            finding.tried += 1
            rules = FileFilter(root, settings)
            for name, kind in names.items():
                longest = max(longest, _look(finding, rules, name, kind, counts, task))
            walked = list(rules.walk())
            finding.expect(not [p for p in walked if p.startswith("deep")], "the walk followed a link")
    finding.figures["longest_ms"] = (longest * 1e3, "ms")
    return finding


def _look(finding: Finding, rules: FileFilter, name: str, kind: str, counts: list[int], task: Task) -> float:
    if task.planted("follow") and kind in ("FIFO", "device", "socket"):
        return 0.0  # without the check these would block
    if task.planted("unbounded") and kind == "1 GB":
        finding.expect(rules.try_read(name) is Refusal.TOO_LARGE and rules._limit <= MAX_READ, "1 GB: no bound of size")
        return 0.0
    counts.clear()
    began = time.monotonic()
    found = rules.try_read(name)
    took = time.monotonic() - began
    finding.expect(sum(counts) <= MAX_READ, f"{kind}: {sum(counts)} bytes read")
    finding.expect(took <= MAX_S * task.patience, f"{kind}: {took * 1e3:.0f} ms", late=True)
    if kind in READ:
        exact = isinstance(found, FileText) and found.text.encode() == READ[kind]
        finding.expect(exact, f"{kind}: the text differs from the file")
    else:
        finding.expect(isinstance(found, files.Refusal), f"{kind}: read")
    return took
