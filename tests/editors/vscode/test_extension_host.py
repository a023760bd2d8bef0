"""Tests that run in VS Code's extension host (`extension_host/index.js`), and the extension's lint and unit tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.editors.availability import requires_editor
from tests.editors.vscode import code_server
from tests.editors.vscode.code_server import EXTENSION, HERE, INSTALLED, PATIENCE
from tests.editors.vscode.workbench import PATIENT, Workbench

pytestmark = [
    pytest.mark.editors,
    pytest.mark.timeout(900),
    requires_editor("vscode", installed=code_server.installed()),
]
FAKE = [sys.executable, str(HERE / "fake_server.py")]
REAL = [sys.executable, "-m", "c2l_lsp", "serve", "--stdio"]
TESTS = re.findall(
    r"^async function (\w+)\(\)", (HERE / "extension_host" / "index.js").read_text(encoding="utf-8"), re.M
)


@pytest.fixture(scope="module")
def vscode(tmp_path_factory: pytest.TempPathFactory, vsix: Path) -> Iterator[Workbench]:
    """One VS Code; each run uses its own window, folder and server."""
    opened = Workbench(tmp_path_factory.mktemp("extension-host"), None, FAKE, PATIENT)
    yield opened
    opened.close()


def run_tests(vscode: Workbench, server: list[str], expected: str = "", fault: str = "") -> tuple[int, str]:
    """Run the tests in the extension host; return exit code and log."""
    for name, text in (("expected", expected), ("fault", fault), ("patience", str((60, 8)[bool(fault)] * PATIENCE))):
        (vscode.control / name).write_text(text)
    folder = Path(tempfile.mkdtemp(dir=vscode.work))
    vscode.code.serve(server)
    code = vscode.run_in_extension_host(HERE / "extension_host" / "index.js", folder)
    return code, (vscode.control / "extension-host.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("server", [FAKE, REAL], ids=["fake", "real"])
def test_extension_host_tests_pass(vscode: Workbench, server: list[str]) -> None:
    code, log = run_tests(vscode, server, "_word_g1_0()" if server is FAKE else "")
    assert (code, re.findall(r"PASSED (\w+)", log)) == (0, TESTS), log


@pytest.mark.parametrize("fault", ["wrong-text", "ignore-toggle"])
def test_extension_host_tests_fail_with_planted_fault(vscode: Workbench, fault: str) -> None:
    code, log = run_tests(vscode, FAKE, "_word_g1_0()", fault)
    assert code != 0
    assert "FAILED" in log


@pytest.mark.parametrize("script", ["check", "test"])
def test_lint_and_unit_tests_of_the_extension_pass(vsix: Path, script: str) -> None:
    environment = {**os.environ, "PATH": f"{INSTALLED / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["npm", "run", script], cwd=EXTENSION, capture_output=True, text=True, timeout=600, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
