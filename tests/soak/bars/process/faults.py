"""The engine dies, has no memory left, loses its device, computes NaN or hangs: the editor is told, it comes back."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from c2l_lab.clients.lsp import LanguageClient, Plain

from tests.soak.harness.bar import Finding, Task
from tests.soak.harness.sources import project
from tests.support.processes import server_command, start_server

BACK_S = 10.0
HANG_S = 35.0
"""A hang is known only by silence: pings are sent every 5 s and waited for 20 s."""
LIVES = 3
"""At its first completion every new engine has the fault again, each a fault of its own: after so many comes the safe
mode."""

KINDS = ("die", "oom", "cuda", "nan", "hang")


def run(task: Task) -> Finding:
    """Fault after fault, each in a server of its own; at full counts every kind at each of the first 50 completions."""
    finding = Finding()
    faults = [_which(number, task.count) for number in range(task.count)]
    hangs = [fault for fault in faults if fault[0] == "hang"]  # mostly waiting: beside the others
    others = [fault for fault in faults if fault[0] != "hang"]
    lanes = {"hangs": hangs, "ones": others[::2], "others": others[1::2]}
    with ThreadPoolExecutor(len(lanes)) as pool:
        slowest = list(pool.map(lambda lane: _lane(task, finding, *lane), lanes.items()))
    finding.tried = task.count
    finding.figures |= {"hang_back_max_s": (slowest[0], "s"), "back_max_s": (max(slowest[1:]), "s")}
    return finding


def _lane(task: Task, finding: Finding, name: str, faults: Iterable[tuple[str, int]]) -> float:
    """One fault after the other, with folders of their own; the longest that one took to come back."""
    work = task.work / name
    root = project(work / "project", 4)
    slowest = 0.0
    for kind, call in faults:
        plan = f"{kind}:{call}" + (f"+{task.plant}" if task.plant else "")
        with start_server(work, server_command(plan)) as editor:
            try:
                editor.initialize([root], {"completion": {"speculative": False, "cacheSize": 0, "maxNewTokens": 1}})
                editor.ready(180 * task.patience, adapter=True)
                slowest = max(slowest, _fault(task, finding, editor, kind, call))
            except TimeoutError as error:
                finding.fail(f"{kind} at call {call}: {error}")
        task.say(f"  {kind} at call {call}")
    return slowest


def _which(number: int, count: int) -> tuple[str, int]:
    """Every kind at calls spread over 1 to 50, each with as many of them; of a few faults one at each of the first."""
    if count < len(KINDS):
        return KINDS[number], number + 1
    rounds = -(-count // len(KINDS))
    return KINDS[number % len(KINDS)], 1 + (number // len(KINDS)) * 49 // max(rounds - 1, 1)


def _fault(task: Task, finding: Finding, editor: LanguageClient, kind: str, call: int) -> float:
    """Ask until the fault comes and goes; how long it took to come back."""
    what = f"{kind} at call {call}"
    uri = "file:///soak/fault.py"
    editor.open(uri, "import os\n")
    for _ in range(call - 1):
        _ask(task, editor, uri)
    pid = [process.pid for process in editor.family()[1:]]
    seen = len(editor.statuses)
    began = time.monotonic()
    first = _ask(task, editor, uri)
    finding.expect("result" in first or "error" in first, f"{what}: no reply")
    allowed = (HANG_S if kind == "hang" else BACK_S) * (LIVES if call == 1 else 1)
    limit = allowed
    while time.monotonic() - began <= limit:
        limit = max(limit, allowed * task.patience)  # the machine may get busier
        _ask(task, editor, uri)
        if _well(task, editor, uri) or _safe_mode(editor):
            break
        time.sleep(0.1)
    took = time.monotonic() - began
    states = {status["state"] for status in editor.statuses[seen:]}
    finding.expect(states & {"starting", "degraded", "failed"}, f"{what}: the editor saw only {sorted(states)}")
    finding.expect(took <= limit, f"{what}: not back within {limit:.0f} s")
    if kind in ("die", "cuda", "hang"):
        now = [process.pid for process in editor.family()[1:]]
        finding.expect(now != pid or _safe_mode(editor), f"{what}: the same engine goes on")
    return took


def _well(task: Task, editor: LanguageClient, uri: str) -> bool:
    """Whether the last request got an answer of the model, if only that it suggests nothing."""
    report = editor.command("c2l.showReport", {"textDocument": {"uri": uri}}, timeout=40 * task.patience)
    return (report["lastReason"] or {}).get("code") in (None, "empty")


def _safe_mode(editor: LanguageClient) -> bool:
    return any(status["state"] == "failed" for status in editor.statuses[-1:])


def _ask(task: Task, editor: LanguageClient, uri: str) -> Plain:
    text = f"import os\n\nx{time.monotonic_ns()} = "
    edit = {"textDocument": {"uri": uri, "version": 2}, "contentChanges": [{"text": text}]}
    editor.notify("textDocument/didChange", edit)
    return editor.reply(editor.send_completion(uri, 2, 40), 40 * task.patience)
