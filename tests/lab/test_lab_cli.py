"""The command line `c2l-lab`: its help, its imports, and how it reports errors."""

import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "c2l_lab", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_help_lists_the_three_groups_of_commands() -> None:
    completed = run("--help")
    assert completed.returncode == 0, completed.stderr
    assert {"corpus", "train", "bench"} <= set(completed.stdout.replace("│", " ").split())


@pytest.mark.parametrize("group", ["corpus", "train", "bench"])
def test_every_group_has_help(group: str) -> None:
    completed = run(group, "--help")
    assert completed.returncode == 0, completed.stderr
    assert "--help" in completed.stdout


def test_importing_the_command_line_does_not_load_torch() -> None:
    code = "import sys, c2l_lab.cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_expected_error_is_one_line_on_stderr_with_exit_code_2(tmp_path: Path) -> None:
    completed = run("corpus", "stats", str(tmp_path))
    assert completed.returncode == 2
    assert completed.stdout == ""
    assert completed.stderr == f"c2l-lab: {tmp_path} contains no corpus: run `c2l-lab corpus build` first.\n"
