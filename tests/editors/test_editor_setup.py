"""An editor that cannot be set up is no failure: its tests are skipped, and say why."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.editors import found

SCRIPTS = ("neovim/setup.sh", "emacs/setup.sh", "setup_vscode.sh")


def test_what_cannot_be_had_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tests" / "editors"
    for name in SCRIPTS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"#!/bin/sh\necho no way to the mirror >&2\nexit {int(name.startswith('emacs'))}\n")
        (folder / name).chmod(0o755)
    shutil.copy(Path(found.__file__).with_name("setup.sh"), folder)
    done = subprocess.run([folder / "setup.sh"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "emacs IS NOT THERE" in done.stdout
    assert "neovim is there" in done.stdout
    monkeypatch.setattr(found, "BUILD", tmp_path / "build" / "editors")
    absent = found.needs("emacs", here=False)
    assert absent.args == (True,)
    assert "no way to the mirror" in absent.kwargs["reason"]
    assert found.needs("neovim", here=True).args == (False,)
    monkeypatch.setattr(found, "REQUIRED", True)
    assert found.needs("emacs", here=False).args == (False,)
