"""Real Neovims, driven by another one: what a user does and sees. Each scenario must hold, and fail with its fault.

`make test-editors` installs the editors; elsewhere C2L_NVIM may name executables, separated like PATH. With the fake
engine every text is known beforehand; with the real server and the shipped model it is what was shown. The runs go on
side by side, as many as there are processors; each test waits for its own.
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

from tests.editors.found import needs

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
MODEL = ROOT / "c2l_lsp" / "assets" / "c2l-nano"
SCENARIOS = re.findall(r"^function S\.(\w+)", (HERE / "scenarios.lua").read_text(encoding="utf-8"), re.MULTILINE)
NEEDS = {"core": (0, 12), "pack": (0, 12)}
"""Scenarios that only newer Neovims have."""
LAZY = os.environ.get("LAZY_NVIM", "")
"""A clone of lazy.nvim, which no package registry has."""


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _found() -> dict[str, Path]:
    """Neovims by version, oldest first."""
    named = [Path(one) for one in os.environ.get("C2L_NVIM", "").split(os.pathsep) if one]
    found = {}
    for path in named or sorted((ROOT / "build" / "editors").glob("nvim-*/nvim")):
        told = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
        found[re.match(r"NVIM v(\d+\.\d+)", told)[1]] = path
    return dict(sorted(found.items(), key=lambda one: _number(one[0])))


NEOVIMS = _found()
pytestmark = [pytest.mark.editors, pytest.mark.timeout(900), needs("neovim", here=bool(NEOVIMS))]


@dataclass(frozen=True)
class Run:
    """One scenario in one Neovim, with or without its planted fault."""

    version: str
    scenario: str
    fault: bool = False

    @property
    def real(self) -> bool:
        """With the real server and the shipped model. A fault of the plugin shows without it as well."""
        return self.scenario.startswith("real_") and (not self.fault or self.scenario == "real_adapter")

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
Done = dict[Run, "Future[subprocess.CompletedProcess[str]]"]


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """Every selected run, started."""
    here = [item for item in request.session.items if item.path == Path(__file__) and hasattr(item, "callspec")]
    selected = [item.callspec.params["run"] for item in here]
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        yield {run: pool.submit(run.drive, tmp_path_factory.mktemp("run")) for run in selected if not _impossible(run)}
        pool.shutdown(cancel_futures=True)


def _impossible(run: Run) -> str:
    """Why a run is left out, if it is."""
    if run.real and not MODEL.is_dir():
        return "the shipped model is not in this checkout"
    if run.scenario.startswith("lazy") and not LAZY:
        return "no package registry has lazy.nvim: LAZY_NVIM names no clone of it"
    return ""


def _done(run: Run, runs: Done) -> subprocess.CompletedProcess[str]:
    if run not in runs:
        pytest.skip(_impossible(run))
    return runs[run].result()


@pytest.mark.skipif("C2L_NVIM" in os.environ, reason="C2L_NVIM names other Neovims")
def test_the_oldest_and_the_newest_are_there() -> None:
    assert list(NEOVIMS) == ["0.10", "0.12"]


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_it_works(run: Run, runs: Done) -> None:
    done = _done(run, runs)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"OK {run.scenario}" in done.stderr


@pytest.mark.parametrize("run", FAULTS, ids=str)
def test_its_planted_fault_is_seen(run: Run, runs: Done) -> None:
    done = _done(run, runs)
    assert done.returncode == 1, "the planted fault was not seen"
    assert f"FAILED {run.scenario}" in done.stderr
    assert "the child did not start" not in done.stderr
