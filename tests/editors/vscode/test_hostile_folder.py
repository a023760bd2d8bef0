"""A real VS Code opens a folder with modules that are named like the server's imports: none of them runs.

code-server runs in that folder and has PYTHONPATH name it, as a user's shell may do.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.editors.availability import requires_editor
from tests.editors.vscode import code_server
from tests.editors.vscode.code_server import PATIENCE
from tests.editors.vscode.conftest import MODEL, TEXT
from tests.editors.vscode.workbench import PATIENT, Workbench
from tests.support.hostile import MODULES, plant

pytestmark = [
    pytest.mark.editors,
    pytest.mark.timeout(900),
    requires_editor("vscode", installed=code_server.installed()),
    pytest.mark.skipif(not MODEL.is_dir(), reason="the shipped model is not in this checkout"),
]
STARTUP = ("sitecustomize", "usercustomize", "runpy", "re")
"""Modules that Python imports before any code of the server runs."""


@pytest.fixture
def hostile(tmp_path: Path, vsix: Path) -> Iterator[Workbench]:
    """A VS Code on the folder `project`, whose modules leave files in `ran` when they run."""
    folder = tmp_path / "project"
    plant(folder, tmp_path / "ran", *MODULES, *STARTUP, "c2l_lsp/__init__", "c2l_lsp/__main__")
    (folder / "app.py").write_text(TEXT)
    environment = {"PYTHONPATH": str(folder), "C2L_STATE_DIR": str(tmp_path / "state"), "C2L_CONFIG": "/nonexistent"}
    vscode = Workbench(tmp_path, vsix, ["unused"], {**PATIENT, "c2l.model.id": "c2l-nano"}, **environment)
    yield vscode
    vscode.close()


def ran(vscode: Workbench) -> list[str]:
    return sorted(path.name for path in (vscode.work / "ran").iterdir())


def test_no_module_of_the_folder_runs(hostile: Workbench) -> None:
    hostile.set(**{"c2l.server.path": "", "c2l.server.interpreter": sys.executable})
    hostile.begin("app.py")
    hostile.generation(0)
    assert ran(hostile) == []


def test_module_of_the_folder_that_runs_is_detected(hostile: Workbench) -> None:
    """Planted fault: a server that is started in the folder, with its PYTHONPATH, as plugins usually do."""
    folder = shlex.quote(str(hostile.folder))
    start = f'cd {folder}; PYTHONPATH={folder} exec {shlex.quote(sys.executable)} -m c2l_lsp "$@"'
    launcher = hostile.work / "careless.sh"
    launcher.write_text(f"#!/bin/sh\n{start}\n")
    launcher.chmod(0o755)
    hostile.set(**{"c2l.server.path": str(launcher)})
    hostile.begin("app.py")
    hostile.until("a module of the folder to run", lambda: ran(hostile), 60 * PATIENCE)
