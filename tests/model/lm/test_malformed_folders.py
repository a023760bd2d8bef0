"""A model folder that is malformed in any way loads or gives a ModelError, within limits of time and memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import malformed_models

pytestmark = [pytest.mark.timeout(900), pytest.mark.skipif(sys.platform != "linux", reason="FIFOs, devices")]
LONGEST_S = 20.0
"""Of one folder, on a busy machine. A folder takes 0.05 s."""
MEMORY_MIB = 400
"""More than the first folder. The model itself has less than 1 MiB."""
LEAST = 200


@pytest.fixture(params=["qwen2", "llama"])
def sound(request: pytest.FixtureRequest, tiny_folder: Path, tmp_path: Path) -> Path:
    """A sound folder: one that transformers loads, and one for our own loader."""
    folder = tmp_path / "sound"
    shutil.copytree(tiny_folder, folder)
    if request.param == "llama":
        from tests.model.lm.test_fast_loader import folder_of

        return folder_of(tmp_path, tiny_folder, "plain")
    return folder


def test_malformed_folders_load_or_are_refused(sound: Path, tmp_path: Path) -> None:
    folders, names = [sound], ["sound"]
    (tmp_path / "cases").mkdir()
    for name, damage in malformed_models.damages(sound):
        folder = tmp_path / "cases" / f"{len(folders)}"
        shutil.copytree(sound, folder)
        damage(folder)
        folders.append(folder)
        names.append(name)
    assert len(folders) > LEAST
    command = [sys.executable, "-m", "tests.support.malformed_models", *map(str, folders)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False, env=environment)
    lines = [line.split(maxsplit=3) for line in done.stdout.splitlines() if " begins" not in line]
    assert len(lines) == len(folders), (names[len(lines)], done.stderr[-2000:])
    assert lines[0][3] == "loaded"
    faults = [f"{names[int(n)]}: {what}" for n, _, _, what in lines if not what.startswith(("loaded", "refused"))]
    faults += [f"{names[int(n)]}: {seconds} s" for n, seconds, _, _ in lines if float(seconds) > LONGEST_S]
    before = int(lines[0][2])
    for n, _, peak, _ in lines:
        if int(peak) > before + MEMORY_MIB:
            faults.append(f"{names[int(n)]}: {peak} MiB after {before}")
            before = int(peak)
    assert not faults, "\n".join(faults)
    refused = sum(what.startswith("refused") for _, _, _, what in lines)
    assert refused > len(lines) // 3
    assert json.loads((sound / "config.json").read_text())
