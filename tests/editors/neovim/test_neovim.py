"""Drives real Neovims through scenarios of a user. Each scenario must pass, and fail with its planted fault.

`make test-editors` installs the Neovims; C2L_NVIM may name other executables, separated like PATH. With the fake
engine, every completion is known in advance; with the real server and the shipped model, tests compare with the text on
screen. The runs execute in parallel, one per processor, and each test waits for its own run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.editors.availability import requires_editor

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
MODEL = ROOT / "c2l_lsp" / "assets" / "c2l-nano"
SCENARIOS = re.findall(r"^function S\.(\w+)", (HERE / "scenarios.lua").read_text(encoding="utf-8"), re.MULTILINE)
NEEDS = {"core": (0, 12), "pack": (0, 12)}
"""The first Neovim version that supports a scenario."""
REAL_FAULTS = ("real_adapter", "real_hostile_folder")
"""Scenarios whose planted fault needs the real server, too."""
LAZY = os.environ.get("LAZY_NVIM", "")
"""Path of a clone of lazy.nvim, which is in no package registry."""


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _neovims() -> dict[str, Path]:
    """Return the Neovim executables by version, oldest first."""
    named = [Path(one) for one in os.environ.get("C2L_NVIM", "").split(os.pathsep) if one]
    found = {}
    for path in named or sorted((ROOT / "build" / "editors").glob("nvim-*/nvim")):
        output = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
        found[re.match(r"NVIM v(\d+\.\d+)", output)[1]] = path
    return dict(sorted(found.items(), key=lambda one: _number(one[0])))


NEOVIMS = _neovims()
pytestmark = [pytest.mark.editors, pytest.mark.timeout(900), requires_editor("neovim", installed=bool(NEOVIMS))]


@dataclass(frozen=True)
class Run:
    """One scenario in one Neovim version, with or without its planted fault."""

    version: str
    scenario: str
    fault: bool = False

    @property
    def real(self) -> bool:
        """Whether the run needs the real server and model. Other faults are in the plugin and need neither."""
        return self.scenario.startswith("real_") and (not self.fault or self.scenario in REAL_FAULTS)

    def __str__(self) -> str:
        return f"{self.version}-{self.scenario}"

    def drive(self, work: Path) -> subprocess.CompletedProcess[str]:
        (work / "files").mkdir()
        settings = {"C2L_WORK": str(work / "files"), "C2L_STATE_DIR": str(work / "state"), "HF_HUB_OFFLINE": "1"}
        if self.real:
            settings |= {"C2L_PYTHON": sys.executable, "C2L_WAIT": "120000"}
        else:
            settings["C2L_SERVER"] = json.dumps([sys.executable, str(HERE / "fake_server.py")])
        if self.fault:
            settings |= {"C2L_FAULT": "1", "C2L_WAIT": "20000" if self.real else "3000"}
        return subprocess.run(
            [NEOVIMS[self.version], "--clean", "-l", HERE / "drive.lua", self.scenario],
            env={**os.environ, "C2L_CONFIG": str(work / "none.toml"), **settings},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
            stdin=subprocess.DEVNULL,
        )


RUNS = [
    Run(version, scenario)
    for version in NEOVIMS
    for scenario in SCENARIOS
    if _number(version) >= NEEDS.get(scenario, (0, 0))
]
FAULTS = [Run(version, scenario, fault=True) for version in list(NEOVIMS)[-1:] for scenario in SCENARIOS]
Runs = dict[Run, "Future[subprocess.CompletedProcess[str]]"]


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Start every selected run; yield their futures."""
    items = [item for item in request.session.items if item.path == Path(__file__) and hasattr(item, "callspec")]
    selected = [item.callspec.params["run"] for item in items]
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        yield {run: pool.submit(run.drive, tmp_path_factory.mktemp("run")) for run in selected if not _skip_reason(run)}
        pool.shutdown(cancel_futures=True)


def _skip_reason(run: Run) -> str:
    """Return why a run is skipped; empty if it is not."""
    if run.real and not MODEL.is_dir():
        return "the shipped model is not in this checkout"
    if run.scenario.startswith("lazy") and not LAZY:
        return "LAZY_NVIM does not name a clone of lazy.nvim"
    return ""


def _result(run: Run, runs: Runs) -> subprocess.CompletedProcess[str]:
    if run not in runs:
        pytest.skip(_skip_reason(run))
    return runs[run].result()


@pytest.mark.skipif("C2L_NVIM" in os.environ, reason="C2L_NVIM names other Neovims")
def test_oldest_and_newest_supported_neovim_are_installed() -> None:
    assert list(NEOVIMS) == ["0.10", "0.12"]


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_scenario_passes(run: Run, runs: Runs) -> None:
    done = _result(run, runs)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"OK {run.scenario}" in done.stderr


@pytest.mark.parametrize("run", FAULTS, ids=str)
def test_scenario_fails_with_planted_fault(run: Run, runs: Runs) -> None:
    done = _result(run, runs)
    assert done.returncode == 1, "the planted fault was not detected"
    assert f"FAILED {run.scenario}" in done.stderr
    assert "the child did not start" not in done.stderr
