"""A disk that takes nothing: completions go on, the status says so, and once there is room it is kept again."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import psutil

from c2l_lsp.bench.soak.bar import Finding, Task
from c2l_lsp.bench.soak.fixtures import project
from c2l_lsp.bench.soak.proc import Editor, planted

_ROOM = 4096
"""Bytes that a file may have at most, by the process' own limit: every larger write fails in the middle."""


def run(task: Task) -> Finding:
    """In turn: no room, and a state directory that is none. With more than one round also the way back."""
    finding = Finding()
    for number in range(task.count):
        root = project(task.work / f"project-{number}", 5)
        blocked = number % 2 == 1
        state = task.work / "blocked" if blocked else task.work / f"state-{number}"
        if blocked:
            state.write_text("a file where the folder should be")
        with Editor(task.work, planted(task.plant, "server"), C2L_STATE_DIR=str(state)) as editor:
            if not blocked:
                psutil.Process(editor.process.pid).rlimit(psutil.RLIMIT_FSIZE, (_ROOM, -1))  # children inherit it
            editor.initialize([root])
            try:
                _full(task, finding, editor, root)
                if task.count > 1 and not task.plant:
                    _room(task, finding, editor, root, state if blocked else None)
            except TimeoutError as error:
                finding.fail(f"round {number}: {error}")
        if blocked and state.is_dir():
            shutil.rmtree(state)
        finding.tried += 1
    return finding


def _full(task: Task, finding: Finding, editor: Editor, root: Path) -> None:
    editor.until(lambda: editor.changes(), 180 * task.patience, "no adapter")
    uri = (root / "pkg0" / "new.py").as_uri()
    editor.open(uri, "import os\n\n\ndef main():\n    return os.")
    answer = editor.reply(editor.complete(uri, 4, 14), 60 * task.patience)
    finding.expect("result" in answer, f"no completion: {answer}")
    wait = 5.0 if task.plant else 30 * task.patience
    editor.until(lambda: _state(editor) == "degraded", wait, "the status does not say that nothing can be kept")
    message = editor.statuses()[-1]["message"]
    finding.expect("cannot be kept" in message, f"the status says {message!r}")


def _room(task: Task, finding: Finding, editor: Editor, root: Path, blocked: Path | None) -> None:
    if blocked is not None:
        blocked.unlink()
    for process in editor.family():
        process.rlimit(psutil.RLIMIT_FSIZE, (-1, -1))
    time.sleep(61)  # it is tried again after a minute
    (root / "pkg0" / "m1.py").write_text("def later():\n    return 1\n")
    editor.until(lambda: _state(editor) == "ready", 120 * task.patience, "not kept again once there is room")
    finding.expect(_state(editor) == "ready", "still degraded")


def _state(editor: Editor) -> str:
    statuses = editor.statuses()
    return str(statuses[-1]["state"]) if statuses else ""
