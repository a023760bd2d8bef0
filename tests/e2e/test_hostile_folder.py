"""A folder with modules that are named like the server's imports: none of them runs, and completions work.

The server is started in that folder in every way that an editor might: as the installed script, with PYTHONPATH naming
the folder, with `python -m`, and with the command of the Neovim and VS Code plugins.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from c2l_lsp import isolation
from c2l_lsp.model.lm.base import ASSETS, NANO
from tests.support.editor import Editor
from tests.support.hostile import MODULES, installed_script, plant

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "editors/neovim/lua/c2l/launch.lua", ROOT / "editors/vscode/src/discovery.ts"
pytestmark = pytest.mark.skipif(
    not (ASSETS / NANO / "model.safetensors").exists(), reason="the shipped model is not in this checkout"
)
STARTUP = ("sitecustomize", "usercustomize", "encodings", "runpy", "pkgutil", "re", "types", "c2l_lsp")
"""Modules that run before the server's own code does; only the program that starts Python can prevent it."""
TEXT = "def open_warehouse(name):\n    return name\n\n\nwarehouse = open_"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """The folder. Each module leaves a file in `ran` beside it when it runs."""
    folder = tmp_path / "hostile"
    plant(folder, tmp_path / "ran", *MODULES, "c2l_lsp/__main__")
    (folder / "app.py").write_text(TEXT)
    return folder


def plugin_command(python: str = sys.executable) -> list[str]:
    """The command with which both plugins start an interpreter; they must agree."""
    lua, typescript = (path.read_text(encoding="utf-8") for path in PLUGINS)
    program = re.search(r'^M\.PROGRAM =\s+"(.+)"$', lua, re.MULTILINE)[1]
    assert re.search(r'^export const PROGRAM =\s+"(.+)";$', typescript, re.MULTILINE)[1] == program
    assert program.startswith(isolation.CLEAN)
    return [python, *isolation.OPTIONS, program, "serve", "--stdio"]


def test_plugins_remove_the_variables_that_the_server_removes() -> None:
    for path in PLUGINS:
        assert re.findall(r"^  ['\"](PYTHON[A-Z]+)['\"],$", path.read_text(encoding="utf-8"), re.MULTILINE) == [
            *isolation.VARIABLES
        ]


def _ran_and_completions(
    hostile: Path, command: list[str], cwd: Path, **environment: str
) -> tuple[list[str], list[str]]:
    config = hostile.parent / "config.toml"
    config.write_text(f'[model]\nid = "{NANO}"\n')
    private = {"C2L_CONFIG": str(config), "OMP_NUM_THREADS": "1", **environment}
    editor = Editor(command, hostile.parent / "engine.log", cwd=cwd, **private)
    editor.timeout = 90.0
    try:
        patient = {"completion": {"maxLatencyInvokedMs": 20_000, "speculative": False, "maxNewTokens": 8}}
        editor.initialize([hostile], options=patient)
        editor.ready()
        uri = (hostile / "app.py").as_uri()
        editor.open(uri, TEXT)
        texts = editor.texts(uri, 4, len("warehouse = open_"))
        folders = {psutil.Process(process.pid).cwd() for process in editor.family()}
    finally:
        editor.end()
    assert folders == {isolation.SAFE_FOLDER}, "server and engine run outside the folder"
    return sorted(path.name for path in (hostile.parent / "ran").iterdir()), texts


@pytest.mark.parametrize("way", ["script", "PYTHONPATH", "PYTHONPATH from elsewhere", "-m"])
def test_no_module_of_the_folder_runs(hostile: Path, tmp_path: Path, way: str) -> None:
    command = (
        [sys.executable, "-m", "c2l_lsp", "serve", "--stdio"] if way == "-m" else installed_script(tmp_path / "bin")
    )
    named = [str(ROOT), *([str(hostile)] if way.startswith("PYTHONPATH") else [])]
    cwd = tmp_path if way.endswith("elsewhere") else hostile
    ran, texts = _ran_and_completions(hostile, command, cwd, PYTHONPATH=os.pathsep.join(named))
    assert ran == []
    assert texts


def test_command_of_the_plugins_also_starts_the_right_interpreter_and_package(hostile: Path, tmp_path: Path) -> None:
    plant(hostile, tmp_path / "ran", *STARTUP, "c2l_lsp/__init__")
    ran, texts = _ran_and_completions(hostile, plugin_command(), hostile, PYTHONPATH=str(hostile))
    assert ran == []
    assert texts


def test_cleared_pythonpath_protects_from_the_first_instruction(hostile: Path, tmp_path: Path) -> None:
    """What docs/editors.md asks of editors without our plugin."""
    plant(hostile, tmp_path / "ran", *STARTUP)
    command = installed_script(tmp_path / "bin")
    ran, texts = _ran_and_completions(hostile, command, hostile, PYTHONPATH="")
    assert ran == []
    assert texts


def test_every_configuration_of_the_documentation_clears_pythonpath() -> None:
    page = (ROOT / "docs/editors.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"^```\w+\n(.+?)^```", page, re.M | re.S) if "c2l-lsp" in block]
    starts = [block for block in blocks if "serve" in block]
    assert len(starts) >= 4
    assert [block for block in starts if "PYTHONPATH" not in block] == []


@pytest.mark.parametrize("module", ["sitecustomize", "c2l_lsp/__init__"])
def test_what_python_takes_from_pythonpath_before_the_server_runs(tmp_path: Path, module: str) -> None:
    """SECURITY.md names both as not protected: they have run before any code of the server, whatever that does."""
    folder = tmp_path / "folder"
    plant(folder, tmp_path / "ran", module)
    script = [*installed_script(tmp_path / "bin")[:2], "--version"]

    def ran(pythonpath: str) -> list[str]:
        environment = {**os.environ, "PYTHONPATH": pythonpath}
        subprocess.run(script, cwd=folder, env=environment, capture_output=True, timeout=60, check=False)
        return [path.name for path in (tmp_path / "ran").iterdir()]

    assert ran("") == []
    assert ran(str(folder)) == [module.replace("/", ".")]
