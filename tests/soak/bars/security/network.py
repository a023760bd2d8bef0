"""Without a remote setting there is no network connection, and everything works without a network.

In a network namespace whose only device is down, the kernel counts every attempt, also of native code. With a network,
every address that Python connects to is recorded, and open sockets are polled.
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
"""Kernel counters that grow with every attempt to send."""

KINDS = ("with a network", "without any")


def run(task: Task) -> Finding:
    """Whole sessions: load, index, complete, edit, report."""
    finding = Finding()
    reason = no_namespace_reason()
    if reason:
        finding.note = f"no network namespace could be created ({reason}); only connections by Python were checked"
    for number in range(task.count):
        for kind in KINDS[: 1 if reason else 2]:
            _session(task, finding, f"{number}-{kind.split()[-1]}", (lambda c: c) if kind == KINDS[0] else alone)
            finding.tried += 1
    return finding


@cache
def no_namespace_reason() -> str:
    """The reason why no network namespace can be created; "" if it can."""
    if sys.platform != "linux":
        return "not Linux"
    try:
        ran = subprocess.run(alone(["true"]), capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if ran.returncode == 0 else ran.stderr.strip()[:200]


def alone(command: Sequence[str]) -> Sequence[str]:
    """The command in its own network namespace, whose only device is down."""
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
        tried = _nonzero_counters(editor.process.pid) if around is alone else {}
    for counter, times in tried.items():
        finding.fail(f"{name}: {counter} is {times}, so something tried to send")
    finding.expect(sockets.polls > 3, f"{name}: its sockets were not polled")
    for what in sorted(sockets.seen):
        finding.fail(f"{name}: {what}")
    addresses = notes.read_text().splitlines() if notes.exists() else []
    finding.expect(not addresses, f"{name}: {addresses[:3]}")


def _nonzero_counters(pid: int) -> dict[str, int]:
    """The counters of a process's network namespace that are not 0."""
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
    """Polls the kernel's tables for network sockets of a server and its children."""

    def __init__(self, editor: LanguageClient) -> None:
        self._editor, self._end = editor, threading.Event()
        self.seen: set[str] = set()
        self.polls = 0
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> _Sockets:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(10)

    def _poll(self) -> None:
        while not self._end.wait(0.2):
            for process in self._editor.family():
                self.seen.update(_inet(process))
            self.polls += 1


def _inet(process: psutil.Process) -> list[str]:
    """The IPv4 and IPv6 sockets of a process."""
    found = []
    try:
        links = [str(entry.readlink()) for entry in Path(f"/proc/{process.pid}/fd").iterdir()]
        sockets = {link[8:-1] for link in links if link.startswith("socket:[")}
        for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6") if sockets else ():
            rows = Path(f"/proc/{process.pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]
            found += [f"a {table} socket to {row.split()[2]}" for row in rows if row.split()[9] in sockets]
    except OSError:  # the process has ended, or the table does not exist
        return found
    return found
