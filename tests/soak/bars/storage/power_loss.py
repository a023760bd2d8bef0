"""Loss of power at every point of a save: what is left loads as one complete generation, never older than reported."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from c2l_lsp.errors import StateError
from tests.soak.harness.bar import Finding, Task
from tests.soak.harness.power import Recorder, crashes, put

_CHANCE = 4  # random choices at each point, besides the systematic ones


def run(task: Task) -> Finding:
    """Save `count` generations one after the other, and load what a crash at each point may leave."""
    from c2l_lsp.engine.storage import disk
    from c2l_lsp.engine.storage.store import FolderStore
    from tests.soak.harness import saver

    finding, rng = Finding(), random.Random(0)
    sound = disk.write_durably, disk.sync_directory
    if task.planted("unsynced_files"):
        disk.write_durably = _without_sync
    if task.planted("unsynced_directories"):
        disk.sync_directory = lambda directory: None
    store = FolderStore(task.work / "state")
    store.acquire()
    recorder = Recorder(store.root)
    try:
        with recorder:
            for generation in range(1, task.count + 1):
                store.save(*saver.content(generation))
                recorder.saved(generation)
    finally:
        disk.write_durably, disk.sync_directory = sound
        store.close()
    for point, acknowledged, tree in crashes(recorder, _CHANCE, rng):
        root = task.work / "left"
        put(tree, root)
        finding.tried += 1
        _check(finding, root, acknowledged, f"power lost after call {point}")
        shutil.rmtree(root)
    calls = [call for call in recorder.calls if call.kind != "saved"]
    finding.figures["calls"] = (float(len(calls)), "calls")
    finding.figures["syncs"] = (float(sum(call.kind == "sync" for call in calls)), "calls")
    return finding


def _check(finding: Finding, root: Path, acknowledged: int, what: str) -> None:
    from c2l_lsp.engine.storage.store import FolderStore
    from tests.soak.harness.saver import whole

    store = FolderStore(root)
    try:
        loaded = store.load()
    except StateError as error:
        finding.fail(f"{what}: {error}")
        return
    finally:
        store.close()
    generation = 0 if loaded is None else loaded[0].generation
    finding.expect(loaded is None or whole(loaded), f"{what}: a mixture of generations")
    finding.expect(generation >= acknowledged, f"{what}: generation {generation}, {acknowledged} was reported as saved")


def _without_sync(path: Path, content: bytes) -> None:
    """The planted fault: nothing waits until a file is on the disk."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
