"""Tests inside VS Code's real extension host (`inside/index.js`), and the extension's own checks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.editors.found import needs
from tests.editors.vscode import code_server
from tests.editors.vscode.code_server import EXTENSION, HERE, INSTALLED, PATIENCE
from tests.editors.vscode.workbench import PATIENT, Workbench

pytestmark = [pytest.mark.editors, pytest.mark.timeout(900), needs("vscode", here=code_server.installed())]
FAKE = [sys.executable, str(HERE / "fake_server.py")]
REAL = [sys.executable, "-m", "c2l_lsp", "serve", "--stdio"]
INSIDE = re.findall(r"^async function (\w+)\(\)", (HERE / "inside" / "index.js").read_text(encoding="utf-8"), re.M)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, vsix: Path) -> Iterator[Workbench]:
    """One VS Code; each run has a window, a folder and a server of its own."""
    opened = Workbench(tmp_path_factory.mktemp("inside"), None, FAKE, PATIENT)
    yield opened
    opened.close()


def inside(shown: Workbench, server: list[str], wanted: str = "", fault: str = "") -> tuple[int, str]:
    """Exit code and log of the tests inside."""
    for name, text in (("wanted", wanted), ("fault", fault), ("patience", str((60, 8)[bool(fault)] * PATIENCE))):
        (shown.control / name).write_text(text)
    folder = Path(tempfile.mkdtemp(dir=shown.work))
    shown.code.serve(server)
    code = shown.inside(HERE / "inside" / "index.js", folder)
    return code, (shown.control / "inside.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("server", [FAKE, REAL], ids=["fake", "real"])
def test_it_holds_inside(shown: Workbench, server: list[str]) -> None:
    code, log = inside(shown, server, "_word_g1_0()" if server is FAKE else "")
    assert (code, re.findall(r"HELD (\w+)", log)) == (0, INSIDE), log


@pytest.mark.parametrize("fault", ["wrong-text", "deaf"])
def test_a_planted_fault_is_seen_inside(shown: Workbench, fault: str) -> None:
    code, log = inside(shown, FAKE, "_word_g1_0()", fault)
    assert code != 0
    assert "FAILED" in log


@pytest.mark.parametrize("script", ["check", "test"])
def test_the_extensions_own_checks(vsix: Path, script: str) -> None:
    """Strict types and lint; the parts that need no editor."""
    environment = {**os.environ, "PATH": f"{INSTALLED / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["npm", "run", script], cwd=EXTENSION, capture_output=True, text=True, timeout=600, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
