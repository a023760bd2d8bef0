"""Real Neovims, driven by another one: what a user does and sees. Each scenario must hold, and fail with its fault.

`make test-editors` installs the editors; elsewhere C2L_NVIM may name executables, separated like PATH. With the fake
engine every text is known beforehand; with the real server and the shipped model it is what was shown.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
MODEL = ROOT / "c2l_lsp" / "assets" / "c2l-default"
SCENARIOS = re.findall(r"^function S\.(\w+)", (HERE / "scenarios.lua").read_text(encoding="utf-8"), re.M)
FAKE = [name for name in SCENARIOS if not name.startswith("real_")]
REAL = [name for name in SCENARIOS if name.startswith("real_")]
NEEDS = {"core": (0, 12)}
"""Scenarios that only newer Neovims have."""

pytestmark = [pytest.mark.editors, pytest.mark.timeout(400)]


def _found() -> dict[str, Path]:
    """Neovims by version, oldest first."""
    named = [Path(one) for one in os.environ.get("C2L_NVIM", "").split(os.pathsep) if one]
    found = {}
    for path in named or sorted((ROOT / "build" / "editors").glob("nvim-*/nvim")):
        told = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
        found[re.match(r"NVIM v(\d+\.\d+)", told)[1]] = path
    return dict(sorted(found.items(), key=lambda one: _number(one[0])))


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


NEOVIMS = _found()
NEWEST = list(NEOVIMS)[-1:]
without = pytest.mark.skipif(not NEOVIMS, reason="no Neovim: make test-editors installs some")
without_model = pytest.mark.skipif(not MODEL.is_dir(), reason="the shipped model is not in this checkout")


def drive(version: str, scenario: str, work: Path, **env: str) -> subprocess.CompletedProcess[str]:
    if _number(version) < NEEDS.get(scenario, (0, 0)):
        pytest.skip(f"Neovim {version} does not have it")
    server = [sys.executable, str(HERE / "fake_server.py")]
    here = {"C2L_PYTHON": sys.executable} if scenario in REAL else {"C2L_SERVER": json.dumps(server)}
    (work / "files").mkdir()
    return subprocess.run(
        [NEOVIMS[version], "--clean", "-l", HERE / "drive.lua", scenario],
        env={**os.environ, "C2L_WORK": str(work / "files"), **here, **env},
        capture_output=True,
        text=True,
        timeout=360,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def held(done: subprocess.CompletedProcess[str], scenario: str) -> None:
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"OK {scenario}" in done.stderr


def failed(done: subprocess.CompletedProcess[str], scenario: str) -> None:
    assert done.returncode == 1, "the planted fault was not seen"
    assert f"FAILED {scenario}" in done.stderr
    assert "the child did not start" not in done.stderr


@without
@pytest.mark.parametrize("scenario", FAKE)
@pytest.mark.parametrize("version", NEOVIMS)
def test_scenario(version: str, scenario: str, tmp_path: Path) -> None:
    held(drive(version, scenario, tmp_path), scenario)


@without
@pytest.mark.parametrize("scenario", FAKE)
@pytest.mark.parametrize("version", NEWEST)
def test_scenario_fails_with_its_fault(version: str, scenario: str, tmp_path: Path) -> None:
    failed(drive(version, scenario, tmp_path, C2L_FAULT="1", C2L_WAIT="3000"), scenario)


@without
@without_model
@pytest.mark.parametrize("scenario", REAL)
@pytest.mark.parametrize("version", NEOVIMS)
def test_with_the_shipped_model(version: str, scenario: str, tmp_path: Path) -> None:
    held(drive(version, scenario, tmp_path), scenario)


@without
@without_model
@pytest.mark.parametrize("scenario", REAL)
@pytest.mark.parametrize("version", NEWEST)
def test_with_the_shipped_model_fails_with_its_fault(version: str, scenario: str, tmp_path: Path) -> None:
    failed(drive(version, scenario, tmp_path, C2L_FAULT="1", C2L_WAIT="20000"), scenario)
