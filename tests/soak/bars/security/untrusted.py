"""A folder that the user does not trust: no file of it is opened but its ignore rules, and nothing of it is kept.

The kernel reports every open of a file, by any process and under any name. The state directory must stay empty.
"""

from __future__ import annotations

import random
import re
import subprocess
from functools import partial
from pathlib import Path

from c2l_lab.clients.lsp import LanguageClient

from tests.soak.harness import secret_places
from tests.soak.harness.bar import Finding, Task
from tests.soak.harness.file_opens import Opens
from tests.soak.harness.sources import project
from tests.support.processes import server_command, start_server

RULES = re.compile(
    r"(^|/)(\.gitignore|\.c2lignore|\.git|\.git/(config|config\.worktree|index|HEAD|commondir|info/exclude))$"
)
"""Files that decide whether the open document may be a prompt."""


def run(task: Task) -> Finding:
    """One session per round: open, type, save, complete, and ask for every report."""
    finding, rng = Finding(), random.Random(0)
    for number in range(task.count):
        canary = secret_places.canary(rng)
        root = _folder(task.work / f"round-{number}", canary)
        state = task.work / f"state-{number}"
        opens = Opens(path for path in root.rglob("*") if path.is_file())
        command = server_command("+".join(filter(None, ("loud", task.plant))))
        with start_server(task.work, command, C2L_STATE_DIR=str(state), C2L_LOG_LEVEL="INFO") as editor:
            _session(task, finding, editor, root, canary)
            if task.planted("keeps"):  # a buffer reaches the engine a moment after it was typed
                editor.wait_until(partial(_is_kept, state), 20 * task.patience)
        assert editor.log is not None
        read = sorted(str(path.relative_to(root)) for path in opens.seen())
        opens.close()
        finding.tried += 1
        content = [path for path in read if not RULES.search(path)]
        finding.expect(not content, f"{len(content)} files of an untrusted folder were opened: {content[:3]}")
        kept = [str(path.relative_to(state)) for path in state.rglob("*") if path.is_file()]
        finding.expect(not kept, f"{len(kept)} files are stored of an untrusted folder: {kept[:3]}")
        finding.expect(canary not in editor.log.read_text(encoding="utf-8", errors="replace"), "text is in the log")
        if opens.blind:
            finding.note = "file opens are detected only on Linux"
    return finding


def _is_kept(state: Path) -> bool:
    return any(state.rglob("buffer"))


def _folder(path: Path, canary: str) -> Path:
    root = project(path, 6, folders=2)
    (root / "pkg0" / "own.py").write_text(f"def {canary}():\n    return '{canary}'\n")
    (root / ".gitignore").write_text("ignored.py\n")
    (root / ".env").write_text(f"KEY={canary}\n")
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=root, check=True, capture_output=True, timeout=60)
    return root


def _session(task: Task, finding: Finding, editor: LanguageClient, root: Path, canary: str) -> None:
    editor.initialize([root], {"trusted": False, "completion": {"maxLatencyInvokedMs": 60_000}})
    editor.ready(180 * task.patience)
    uri, text = (root / "pkg0" / "own.py").as_uri(), f"def {canary}():\n    return "
    editor.open(uri, text)
    editor.change(uri, text + "len(")
    answer = editor.reply(editor.send_completion(uri, 1, 15), 60 * task.patience)
    finding.expect("result" in answer, f"no completion in an untrusted folder: {answer}")
    editor.notify("textDocument/didSave", {"textDocument": {"uri": uri}})
    for method in ("c2l/status", "c2l/statistics", "c2l/adapter/info"):
        editor.request(method, {"textDocument": {"uri": uri}}, 60 * task.patience)
    editor.command("c2l.showReport", {"textDocument": {"uri": uri}}, timeout=60 * task.patience)
    if task.planted("nosy"):  # learning begins only now and then, after the answers
        editor.wait_until(lambda: editor.adapters, 20 * task.patience)
