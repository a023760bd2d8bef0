"""Emacs' lsp-mode, which is not ours and announces no inline completion: type, see, accept, compare buffer and file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from found import needs

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PACKAGES = ROOT / "build/editors/emacs/usr/share/emacs/site-lisp/elpa-src"
MODEL = ROOT / "c2l_lsp" / "assets" / "c2l-default"
FAKE = [sys.executable, str(HERE.parent / "neovim" / "fake_server.py")]
REAL = [sys.executable, "-m", "c2l_lsp", "serve", "--stdio"]
CODE = """values = []
values.append(1)
values.append(2)
values.append(3)
values."""

pytestmark = [
    pytest.mark.editors,
    pytest.mark.timeout(400),
    needs("emacs", here=bool(shutil.which("emacs")) and PACKAGES.is_dir()),
]


def drive(
    work: Path, server: list[str], text: str, want: str = "", fault: str = ""
) -> subprocess.CompletedProcess[str]:
    (work / "files" / ".git").mkdir(parents=True)
    settings = {
        "C2L_SERVER": json.dumps(server),
        "C2L_WORK": str(work / "files"),
        "C2L_PACKAGES": str(PACKAGES),
        "C2L_TEXT": text,
        "C2L_WANT": want,
        "C2L_FAULT": fault,
        "HOME": str(work),
    }
    return subprocess.run(
        ["emacs", "-Q", "--batch", "-l", HERE / "drive.el"],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=360,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("before", ["", 's = "né😀" + '], ids=["ascii", "unicode"])
def test_type_see_accept(tmp_path: Path, before: str) -> None:
    done = drive(tmp_path, FAKE, f"# demo\n{before}word", "_word_g1_0()")
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_wrong_suggestion_is_seen(tmp_path: Path) -> None:
    done = drive(tmp_path, FAKE, "# demo\nword", "_word_g1_0()", fault="yes")
    assert done.returncode == 1
    assert "FAILED buffer: got" in done.stderr


@pytest.mark.skipif(not MODEL.is_dir(), reason="the shipped model is not in this checkout")
def test_with_the_shipped_model(tmp_path: Path) -> None:
    done = drive(tmp_path, REAL, CODE)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.skipif(not MODEL.is_dir(), reason="the shipped model is not in this checkout")
def test_with_the_shipped_model_a_wrong_suggestion_is_seen(tmp_path: Path) -> None:
    done = drive(tmp_path, REAL, CODE, fault="yes")
    assert done.returncode == 1
    assert "FAILED buffer: got" in done.stderr
