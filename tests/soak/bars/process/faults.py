"""The engine dies, runs out of memory, loses its device, computes NaN or hangs: a status reports it, it recovers."""

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
"""A hang is detected by missing replies to pings, which are sent every 5 s and time out after 20 s."""
MAX_RESTARTS = 3
"""A fault at the first completion repeats in every new engine; after so many the server enters safe mode."""

KINDS = ("die", "oom", "cuda", "nan", "hang")


def run(task: Task) -> Finding:
    """One fault per server; at full counts, every kind at each of the first 50 completions."""
    finding = Finding()
    faults = [_which(number, task.count) for number in range(task.count)]
    hangs = [fault for fault in faults if fault[0] == "hang"]  # they mostly wait, so they run beside the others
    others = [fault for fault in faults if fault[0] != "hang"]
    lanes = {"hangs": hangs, "ones": others[::2], "others": others[1::2]}
    with ThreadPoolExecutor(len(lanes)) as pool:
        slowest = list(pool.map(lambda lane: _lane(task, finding, *lane), lanes.items()))
    finding.tried = task.count
    finding.figures |= {"hang_back_max_s": (slowest[0], "s"), "back_max_s": (max(slowest[1:]), "s")}
    return finding


def _lane(task: Task, finding: Finding, name: str, faults: Iterable[tuple[str, int]]) -> float:
    """Run faults one after the other; the longest recovery in seconds."""
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
                finding.fail(f"{kind} at call {call}: {error}", late=True)
        task.say(f"  {kind} at call {call}")
    return slowest


def _which(number: int, count: int) -> tuple[str, int]:
    """The kind of fault and the completion at which it happens; calls are spread evenly over 1 to 50."""
    if count < len(KINDS):
        return KINDS[number], number + 1
    rounds = -(-count // len(KINDS))
    return KINDS[number % len(KINDS)], 1 + (number // len(KINDS)) * 49 // max(rounds - 1, 1)


def _fault(task: Task, finding: Finding, editor: LanguageClient, kind: str, call: int) -> float:
    """Send requests until the fault is over; the seconds until recovery."""
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
    allowed = (HANG_S if kind == "hang" else BACK_S) * (MAX_RESTARTS if call == 1 else 1)
    limit = allowed
    while time.monotonic() - began <= limit:
        limit = max(limit, allowed * task.patience)  # the load may rise
        _ask(task, editor, uri)
        if _recovered(task, editor, uri) or _safe_mode(editor):
            break
        time.sleep(0.1)
    took = time.monotonic() - began
    states = {status["state"] for status in editor.statuses[seen:]}
    finding.expect(
        states & {"starting", "degraded", "failed"}, f"{what}: only these states were reported: {sorted(states)}"
    )
    finding.expect(took <= limit, f"{what}: no recovery within {limit:.0f} s", late=True)
    if kind in ("die", "cuda", "hang"):
        now = [process.pid for process in editor.family()[1:]]
        finding.expect(now != pid or _safe_mode(editor), f"{what}: the engine was not replaced")
    return took


def _recovered(task: Task, editor: LanguageClient, uri: str) -> bool:
    """Whether the model answered the last request, even without a suggestion."""
    report = editor.command("c2l.showReport", {"textDocument": {"uri": uri}}, timeout=40 * task.patience)
    return (report["lastReason"] or {}).get("code") in (None, "empty")


def _safe_mode(editor: LanguageClient) -> bool:
    return any(status["state"] == "failed" for status in editor.statuses[-1:])


def _ask(task: Task, editor: LanguageClient, uri: str) -> Plain:
    text = f"import os\n\nx{time.monotonic_ns()} = "
    edit = {"textDocument": {"uri": uri, "version": 2}, "contentChanges": [{"text": text}]}
    editor.notify("textDocument/didChange", edit)
    return editor.reply(editor.send_completion(uri, 2, 40), 40 * task.patience)
