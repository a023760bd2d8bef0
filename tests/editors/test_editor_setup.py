"""An editor that cannot be set up is not a failure: its tests are skipped with the reason."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.editors import availability

SCRIPTS = ("neovim/setup.sh", "emacs/setup.sh", "setup_vscode.sh")


def test_failed_set_up_is_reported_and_skips_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tests" / "editors"
    for name in SCRIPTS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"#!/bin/sh\necho mirror unreachable >&2\nexit {int(name.startswith('emacs'))}\n")
        (folder / name).chmod(0o755)
    shutil.copy(Path(availability.__file__).with_name("setup.sh"), folder)
    done = subprocess.run([folder / "setup.sh"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "emacs: NOT INSTALLED" in done.stdout
    assert "neovim: installed" in done.stdout
    monkeypatch.setattr(availability, "BUILD", tmp_path / "build" / "editors")
    missing = availability.requires_editor("emacs", installed=False)
    assert missing.args == (True,)
    assert "mirror unreachable" in missing.kwargs["reason"]
    assert availability.requires_editor("neovim", installed=True).args == (False,)
    monkeypatch.setattr(availability, "REQUIRED", True)
    assert availability.requires_editor("emacs", installed=False).args == (False,)
