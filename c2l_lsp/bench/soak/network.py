"""With no remote configured nothing is connected to: every address that server and engine ask for is written down."""

from __future__ import annotations

import psutil

from c2l_lsp.bench.soak.bar import Finding, Task
from c2l_lsp.bench.soak.fixtures import project
from c2l_lsp.bench.soak.proc import Editor, planted


def run(task: Task) -> Finding:
    """Whole sessions from start to end: load, learn, complete, edit, report."""
    finding = Finding()
    for number in range(task.count):
        root = project(task.work / f"project-{number}", 4)
        notes = task.work / f"connections-{number}"
        faults = "noted" + (f"+{task.plant}" if task.plant else "")
        with Editor(task.work, planted(faults, "server"), C2L_SOAK_NOTES=str(notes), HF_HUB_OFFLINE="0") as editor:
            editor.initialize([root])
            editor.ready(120 * task.patience)
            uri = (root / "pkg0" / "m0.py").as_uri()
            editor.open(uri, "import os\n\ndef main():\n    return os.")
            editor.reply(editor.complete(uri, 3, 14), 60 * task.patience)
            (root / "pkg0" / "m1.py").write_text("def changed():\n    return 1\n")
            editor.ask("c2l/statistics", {})
            for process in editor.family():
                inet = [c for c in process.net_connections("inet") if c.status != psutil.CONN_NONE]
                finding.expect(not inet, f"{process.name()}: {len(inet)} connections are open")
        finding.tried += 1
        said = notes.read_text().splitlines() if notes.exists() else []
        finding.expect(not said, f"session {number}: {said[:3]}")
    return finding
