"""Drives Emacs with lsp-mode, a client that is not part of this project.

Each scenario must pass, and fail with its planted fault.

lsp-mode does not announce inline completion in its capabilities and has no partial acceptance, so that is not tested.
`C2L_FAULT=1` in the environment of `drive.el` plants the faults.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.editors.availability import ROOT, requires_editor
from tests.support.hostile import MODULES, installed_script, plant

HERE = Path(__file__).parent
PACKAGES = ROOT / "build/editors/emacs/usr/share/emacs/site-lisp/elpa-src"
MODEL = ROOT / "c2l_lsp" / "assets" / "c2l-nano"
FAKE = [sys.executable, str(HERE.parent / "vscode" / "fake_server.py")]
REAL = [sys.executable, "-m", "c2l_lsp", "serve", "--stdio"]
SCENARIOS = re.findall(r"^\(defun drive/([\w-]+)", (HERE / "drive.el").read_text(encoding="utf-8"), re.MULTILINE)
CODE = """values = []
values.append(1)
values.append(2)
values.append(3)
values."""
PROMPTS = ["import ", "from zebra import ", "def quokka_", "result = wombat_"]

pytestmark = [
    pytest.mark.editors,
    pytest.mark.timeout(900),
    requires_editor("emacs", installed=bool(shutil.which("emacs")) and PACKAGES.is_dir()),
]
shipped = pytest.mark.skipif(not MODEL.is_dir(), reason="the shipped model is not in this checkout")


def drive(
    work: Path,
    server: list[str],
    text: str,
    *scenarios: str,
    expected: str = "",
    fault: bool = False,
    timeout: float = 840,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    (work / "files").mkdir(exist_ok=True)
    settings = {
        "C2L_SERVER": json.dumps(server),
        "C2L_WORK": str(work / "files"),
        "C2L_PACKAGES": str(PACKAGES),
        "C2L_SCENARIOS": " ".join(scenarios),
        "C2L_TEXT": text,
        "C2L_EXPECTED": expected,
        "C2L_PROMPTS": json.dumps(PROMPTS),
        "C2L_FAULT": "1" * fault,
        "HOME": str(work),
    }
    return subprocess.run(
        ["emacs", "-Q", "--batch", "-l", HERE / "drive.el"],
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("before", ["", 's = "né😀" + '], ids=["ascii", "unicode"])
def test_scenarios_pass_with_fake_engine(tmp_path: Path, before: str) -> None:
    done = drive(tmp_path, FAKE, f"# demo\n{before}word", *SCENARIOS, expected="_word_g1_0()")
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.findall(r"^PASSED (\S+)", done.stderr, re.MULTILINE) == SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario_fails_with_planted_fault(tmp_path: Path, scenario: str) -> None:
    done = drive(tmp_path, FAKE, "# demo\nword", scenario, expected="_word_g1_0()", fault=True)
    assert done.returncode == 1
    assert "FAILED" in done.stderr
    assert "the first server" not in done.stderr, done.stderr[-2000:]


@shipped
def test_scenarios_pass_with_shipped_model(tmp_path: Path) -> None:
    done = drive(tmp_path, REAL, CODE, *SCENARIOS)
    assert done.returncode == 0, done.stderr[-3000:]


@shipped
def test_wrong_text_is_detected_with_shipped_model(tmp_path: Path) -> None:
    done = drive(tmp_path, REAL, CODE, "accept", fault=True)
    assert done.returncode == 1
    assert "FAILED buffer: got" in done.stderr


@shipped
def test_no_module_of_a_hostile_folder_runs(tmp_path: Path) -> None:
    folder = _hostile_folder(tmp_path)
    done = drive(tmp_path, installed_script(tmp_path / "bin"), CODE, "accept", PYTHONPATH=str(folder))
    assert sorted(path.name for path in (tmp_path / "ran").iterdir()) == []
    assert done.returncode == 0, done.stderr[-3000:]


@shipped
def test_module_of_a_hostile_folder_is_detected(tmp_path: Path) -> None:
    """The fault: `python -m` in that folder, which `docs/editors.md` forbids."""
    _hostile_folder(tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):  # Emacs waits for the server, which is a module of the folder
        drive(tmp_path, REAL, CODE, "accept", timeout=60)
    assert (tmp_path / "ran" / "c2l_lsp.__init__").exists()


def _hostile_folder(work: Path) -> Path:
    """The folder that `drive` will open, with modules that leave a file in `work / "ran"`."""
    folder = work / "files" / "one"
    plant(folder, work / "ran", *MODULES, "sitecustomize", "re", "c2l_lsp/__init__", "c2l_lsp/__main__")
    return folder
