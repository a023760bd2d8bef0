"""The editor ends, with or without closing its pipe: server and engine must exit at any time."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time

from tests.soak.harness.bar import Finding, Task, percentile
from tests.soak.harness.sources import project
from tests.support.processes import server_command, start_server, still_running

LIMIT_S = 5.0


def run(task: Task) -> Finding:
    """In turn: close the pipe, and kill the editor's process while the pipe stays open."""
    finding = Finding()
    root = project(task.work / "project", 4)
    rng, times = random.Random(0), []
    for number in range(task.count):
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        editor = start_server(task.work, server_command(task.plant))
        try:
            editor.initialize([root], process_id=sleeper.pid, timeout=60 * task.patience)
            uri = (root / "pkg0" / "m0.py").as_uri()
            editor.open(uri, "import os\n")
            # immediately, or while the engine starts, loads, indexes, or completes
            time.sleep(0 if number % 8 > 5 else rng.random() * 8)
            editor.send_completion(uri, 1, 0)
            everyone = editor.family()
            began = time.monotonic()
            how = "pipe" if number % 2 == 0 else "process"
            if how == "pipe" and editor.process.stdin is not None:
                editor.process.stdin.close()
            else:
                sleeper.kill()
                sleeper.wait(10)
            limit = 3.0 if task.plant else LIMIT_S * task.patience
            left = still_running(everyone, limit)
            times.append(time.monotonic() - began)
            finding.tried += 1
            still = f"{how} {number}: {len(left)} of {len(everyone)} processes are still running"
            finding.expect(not left, still, late=True)
        finally:
            with contextlib.suppress(OSError):
                sleeper.kill()
            sleeper.wait(10)
            editor.kill()
        if task.plant and finding.failed:
            break
    finding.figures["end_p50_s"] = (percentile(times, 0.5), "s")
    finding.figures["end_max_s"] = (max(times, default=0.0), "s")
    return finding
