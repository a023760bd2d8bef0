"""A full or read-only disk: completions continue, the status reports it, and state is saved again once possible."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from c2l_lab.clients.lsp import LanguageClient

from tests.soak.harness.bar import Finding, Task
from tests.soak.harness.small_disk import Disk, Limited, SmallDisk, mountable
from tests.soak.harness.sources import project
from tests.support.processes import server_command, start_server

KINDS = ("no room", "read-only")
REAL_INTERVAL_ROUNDS = 10
"""From this number of rounds on, the first one uses the real interval between attempts to save."""


def run(task: Task) -> Finding:
    """Both kinds of fault in each round, and the recovery from each."""
    finding = Finding()
    reason = mountable()
    if reason:
        finding.note = (
            f"no small disk could be mounted ({reason}); a file size limit and a blocked folder are used instead"
        )
    for number, kind in itertools.product(range(task.count), KINDS):
        root = project(task.work / f"project-{number}-{kind[:2]}", 5)
        state = task.work / f"state-{number}-{kind[:2]}"
        patient = task.count >= REAL_INTERVAL_ROUNDS and number == 0
        faults = "+".join(filter(None, ("" if patient else "eager", task.plant)))
        disk: Disk = Limited(state, kind) if reason else SmallDisk(state, kind)
        with start_server(task.work, disk.command(server_command(faults)), C2L_STATE_DIR=str(state)) as editor:
            try:
                disk.close(editor.process.pid)
                editor.initialize([root])
                _check_full(task, finding, editor, root, kind)
                if task.plant != "quiet":
                    _recover(task, finding, editor, root, disk)
            except TimeoutError as error:
                finding.fail(f"round {number}, {kind}: {error}", late=True)
        finding.tried += 1
        if task.plant and finding.failed:
            break
    return finding


def _check_full(task: Task, finding: Finding, editor: LanguageClient, root: Path, kind: str) -> None:
    editor.until(lambda: editor.adapters, 180 * task.patience, "adapter")
    _complete(task, finding, editor, root, kind)
    wait = 5.0 if task.plant == "quiet" else 30 * task.patience
    editor.until(lambda: _state(editor) == "degraded", wait, "status that says that nothing can be saved")
    message = editor.statuses[-1]["message"]
    why = {
        "no room": ("No space left", "File too large", "disk"),
        "read-only": ("Read-only", "Permission", "File exists"),
    }
    finding.expect("cannot be saved" in message, f"{kind}: the status is {message!r}")
    finding.expect(any(word in message for word in why[kind]), f"{kind}: the status names another fault: {message!r}")
    _edit(task, editor, root / "pkg0" / "m2.py", "def learned_without_a_disk():\n    return 1\n")
    _complete(task, finding, editor, root, kind)


def _edit(task: Task, editor: LanguageClient, path: Path, text: str) -> None:
    seen = len(editor.adapters)
    path.write_text(text)
    editor.until(lambda: len(editor.adapters) > seen, 60 * task.patience, "new adapter after a change")


def _complete(task: Task, finding: Finding, editor: LanguageClient, root: Path, kind: str) -> None:
    uri = (root / "pkg0" / "new.py").as_uri()
    editor.open(uri, f"import os\n\n\ndef main():\n    return os.  # {time.monotonic_ns()}")
    answer = editor.reply(editor.send_completion(uri, 4, 14), 60 * task.patience)
    finding.expect("result" in answer, f"{kind}: no completion: {answer}")


def _recover(task: Task, finding: Finding, editor: LanguageClient, root: Path, disk: Disk) -> None:
    """The disk is usable again: state is saved after one of the next changes, and the status is ready."""
    disk.open(editor.process.pid)
    until = time.monotonic() + (20 if task.plant else 120) * task.patience
    while _state(editor) != "ready" and time.monotonic() < until:
        _edit(task, editor, root / "pkg0" / "m1.py", f"def later():\n    return {time.monotonic_ns()}\n")
        editor.wait_until(lambda: _state(editor) == "ready", 0.5)
    finding.expect(_state(editor) == "ready", "not saved again once there is room", late=True)
    if not task.plant:
        saved = disk.saved(editor.process.pid)
        finding.expect(saved > 0, "the status is ready, but nothing is on the disk")


def _state(editor: LanguageClient) -> str:
    return str(editor.statuses[-1]["state"]) if editor.statuses else ""
