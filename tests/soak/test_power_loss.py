"""The model of a power loss: it finds every fsync of a save that is left out."""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path

import pytest

from c2l_lsp.engine.storage.store import FolderStore
from c2l_lsp.errors import StateError
from tests.soak.bars.storage import power_loss
from tests.soak.harness import saver
from tests.soak.harness.bar import Finding
from tests.soak.harness.power import ROOT, Call, Recorder, crashes, put

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="directories are not synced there")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """Two saves."""
    store = FolderStore(tmp_path_factory.mktemp("power") / "state")
    store.acquire()
    recorder = Recorder(store.root)
    with recorder:
        for generation in (1, 2):
            store.save(*saver.content(generation))
            recorder.saved(generation)
    store.close()
    return recorder


def violations(recorder: Recorder, work: Path) -> int:
    finding = Finding()
    for point, acknowledged, tree in crashes(recorder, 2, random.Random(0)):
        put(tree, work / "left")
        power_loss._check(finding, work / "left", acknowledged, str(point))
        shutil.rmtree(work / "left")
        if finding.failed:
            break
    return finding.failed


def syncs(calls: list[Call]) -> list[int]:
    return [index for index, call in enumerate(calls) if call.kind == "sync"]


def test_the_log_holds_what_is_on_the_disk(recorded: Recorder):
    *_, (_, acknowledged, tree) = crashes(recorded, 0, random.Random(0))
    assert acknowledged == 2
    real = {str(path.relative_to(recorded.root)): path for path in recorded.root.rglob("*") if path.name != "lock"}
    assert set(tree) == set(real)
    assert all(content is None or real[name].read_bytes() == content for name, content in tree.items())


def test_every_sync_of_a_save_is_needed(recorded: Recorder, tmp_path: Path):
    sound = recorded.calls
    assert violations(recorded, tmp_path) == 0
    second = [index for index in syncs(sound) if index > next(i for i, c in enumerate(sound) if c.kind == "saved")]
    assert len(second) >= 7
    needless = []
    for left_out in second:
        recorded.calls = [call for index, call in enumerate(sound) if index != left_out]
        if not violations(recorded, tmp_path):
            needless.append(left_out)
    recorded.calls = sound
    assert not needless, [sound[index] for index in needless]


def test_a_generation_with_a_shared_file_is_whole_after_a_loss_of_power(tmp_path: Path):
    """Its extra tensors are those of the generation before; the link to them must last as the other files do."""
    store = FolderStore(tmp_path / "state")
    store.acquire()
    recorder = Recorder(store.root)
    with recorder:
        for generation in (1, 2, 3):
            saved, state, extra = saver.content(generation)
            store.save(saved, state, extra if generation == 1 else None)
            recorder.saved(generation)
    store.close()

    def faults() -> int:
        count = 0
        for _, acknowledged, tree in crashes(recorder, 2, random.Random(0)):
            put(tree, tmp_path / "left")
            left = FolderStore(tmp_path / "left")
            try:
                loaded = left.load()
            except StateError:
                count += 1
            else:
                generation = 0 if loaded is None else loaded[0].generation
                count += generation < acknowledged
                if loaded is not None:
                    count += not saver.whole((loaded[0], loaded[1], {"P": loaded[2]["P"] * generation}))
            left.close()
            shutil.rmtree(tmp_path / "left")
        return count

    assert faults() == 0
    last = next(index for index in reversed(syncs(recorder.calls)) if recorder.calls[index].node != ROOT)
    recorder.calls = [call for index, call in enumerate(recorder.calls) if index != last]  # of the directory
    assert faults() > 0
