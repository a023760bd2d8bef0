"""With no remote configured nothing is connected to, and with no network at all everything works.

In a network namespace whose one device is down there is nobody to talk to, and the kernel counts every try, of native
code too. With a network every address that Python is asked for is written down, and open sockets are looked for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import psutil
from c2l_lab.clients.lsp import LanguageClient

from tests.soak.harness.bar import Finding, Task
from tests.soak.harness.sources import project
from tests.support.processes import server_command, start_server

COUNTERS = (
    "Ip:OutRequests", "Ip:OutNoRoutes", "Tcp:ActiveOpens", "Udp:OutDatagrams", "Ip6OutRequests", "Ip6OutNoRoutes",
)  # fmt: skip
"""Of the kernel: each goes up with whatever tries to talk to anybody."""

KINDS = ("with a network", "without any")


def run(task: Task) -> Finding:
    """Whole sessions from start to end: load, learn, complete, edit, report."""
    finding = Finding()
    reason = unreachable()
    if reason:
        finding.note = f"no network namespace could be made ({reason}): only what Python connects to was seen"
    for number in range(task.count):
        for kind in KINDS[: 1 if reason else 2]:
            _session(task, finding, f"{number}-{kind.split()[-1]}", (lambda c: c) if kind == KINDS[0] else alone)
            finding.tried += 1
    return finding


@cache
def unreachable() -> str:
    """Why no process can be put where there is no network; "" if one can."""
    if sys.platform != "linux":
        return "not Linux"
    try:
        ran = subprocess.run(alone(["true"]), capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if ran.returncode == 0 else ran.stderr.strip()[:200]


def alone(command: Sequence[str]) -> Sequence[str]:
    """A command in a network namespace of its own: its one device is down."""
    return ["unshare", "-n" if os.geteuid() == 0 else "-rn", *command]


def _session(task: Task, finding: Finding, name: str, around: object) -> None:
    root = project(task.work / f"project-{name}", 4)
    notes = task.work / f"connections-{name}"
    command = server_command("noted" + (f"+{task.plant}" if task.plant else ""))
    command = around(command)  # type: ignore[operator]
    state = str(task.work / f"state-{name}")
    env = {"C2L_SOAK_NOTES": str(notes), "C2L_STATE_DIR": state, "HF_HUB_OFFLINE": "0"}
    with start_server(task.work, command, None, **env) as editor, _Sockets(editor) as sockets:
        editor.initialize([root])
        editor.ready(120 * task.patience, adapter=True)
        uri = (root / "pkg0" / "m0.py").as_uri()
        editor.open(uri, "import os\n\ndef main():\n    return os.")
        answer = editor.reply(editor.send_completion(uri, 3, 14), 60 * task.patience)
        finding.expect("result" in answer, f"{name}: no completion: {answer}")
        seen = len(editor.adapters)
        (root / "pkg0" / "m1.py").write_text("def changed():\n    return 1\n")
        editor.until(lambda: len(editor.adapters) > seen, 60 * task.patience, "new adapter after a change")
        editor.request("c2l/statistics", {})
        tried = _tried(editor.process.pid) if around is alone else {}
    for counter, times in tried.items():
        finding.fail(f"{name}: {counter} is {times}: something was sent, or would have been")
    finding.expect(sockets.looks > 3, f"{name}: nobody looked at its sockets")
    for what in sorted(sockets.seen):
        finding.fail(f"{name}: {what}")
    said = notes.read_text().splitlines() if notes.exists() else []
    finding.expect(not said, f"{name}: {said[:3]}")


def _tried(pid: int) -> dict[str, int]:
    """What a process' network namespace counted of packets sent and of places that no way leads to: exact, all code."""
    lines = Path(f"/proc/{pid}/net/snmp").read_text(encoding="ascii").splitlines()
    rows = {
        f"{title.split()[0]}{name}": int(value)
        for title, values in zip(lines[::2], lines[1::2], strict=True)
        for name, value in zip(title.split()[1:], values.split()[1:], strict=True)
    }
    newer = Path(f"/proc/{pid}/net/snmp6")
    if newer.exists():
        rows |= {name: int(value) for name, value in map(str.split, newer.read_text(encoding="ascii").splitlines())}
    return {name: rows[name] for name in COUNTERS if rows.get(name)}


class _Sockets:
    """Looks again and again, at the kernel's own tables, for sockets of a server and its children."""

    def __init__(self, editor: LanguageClient) -> None:
        self._editor, self._end = editor, threading.Event()
        self.seen: set[str] = set()
        self.looks = 0
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Sockets:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(10)

    def _look(self) -> None:
        while not self._end.wait(0.2):
            for process in self._editor.family():
                self.seen.update(_inet(process))
            self.looks += 1


def _inet(process: psutil.Process) -> list[str]:
    """Descriptors of a process that are sockets of IPv4 or IPv6, by its own namespace's tables."""
    found = []
    try:
        links = [str(entry.readlink()) for entry in Path(f"/proc/{process.pid}/fd").iterdir()]
        held = {link[8:-1] for link in links if link.startswith("socket:[")}
        for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6") if held else ():
            rows = Path(f"/proc/{process.pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]
            found += [f"a {table} socket to {row.split()[2]}" for row in rows if row.split()[9] in held]
    except OSError:  # it has ended meanwhile, or there is no such table here
        return found
    return found
