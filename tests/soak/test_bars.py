"""Every bar in its short form, and every planted fault: a bar that holds under its fault measures nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from c2l_lsp.repo.history import snapshot
from tests.soak.bars import table
from tests.soak.harness.run import measure

pytestmark = pytest.mark.timeout(900)  # real processes, and a machine that may be busy
BARS = {bar.name: bar for bar in table.BARS}
LINUX = {"save_styles", "odd_files", "torn_saves", "two_servers", "full_disk", "checkout"}
PLANTED_COUNT = {
    "documents": 60, "frames": 60, "edit_storm": 150, "checkout": 60, "cancels": 4, "folders": 3, "torn_saves": 2,
    "damaged_state": 10,
}  # fmt: skip
QUICK = {
    "documents-splitlines", "documents-codepoints", "documents-unpaired", "save_styles-blind", "odd_files-follow",
    "odd_files-unbounded", "damaged_state-unchecked", "torn_saves-in_place", "hot_swaps-half",
    "secrets-peeks", "secrets-remembers", "secrets-prompts", "secrets-quotes", "hostile-trusting", "hostile-unpickles",
    "hostile-trusts_code", "replies-twice",
}  # fmt: skip
"""Planted faults that are found with every test. Those of the others take more processes and minutes: -m slow runs
them, and `bench soak --bars NAME --plant FAULT` at any time."""

PLANTED = [
    pytest.param(bar, plant, marks=() if f"{bar.name}-{plant}" in QUICK else pytest.mark.slow, id=f"{bar.name}-{plant}")
    for bar in table.BARS
    for plant in bar.plants
]


SAYS = {
    "secrets-peeks": "opened", "secrets-remembers": "in the state", "secrets-prompts": "seen by the model",
    "secrets-quotes": "on the wire", "secrets-chatty": "in the log", "secrets-open_filter": "still learned",
    "torn_saves-in_place": "is damaged", "torn_saves-swallows": "not whole",
    "hostile-unpickles": "executed", "hostile-trusts_code": "executed", "hostile-obeys_git": "executed",
    "edit_storm-piles": "stood in the queue",
    "edit_storm-drops": "not the editor's", "checkout-shrugs": "never seen", "full_disk-resigned": "not kept again",
    "no_network-calls_natively": "OutNoRoutes", "damaged_state-believing": "workspaces on",
    "cancels-deaf": "steps began", "cancels-forget": "no reply",
}  # fmt: skip
"""What a bar says of a fault: the check that is meant found it, and not another beside it."""


@pytest.fixture(autouse=True)
def small_model(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes with the tiny model; one thread each."""
    Path(os.environ["C2L_CONFIG"]).write_text(f'[model]\npath = "{tiny_folder}"\ndtype = "float32"\n')
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize("name", BARS)
def test_the_bar_holds(name: str):
    if name in LINUX and sys.platform != "linux":
        pytest.skip("fork, inotify, resource limits")
    finding = measure(BARS[name], BARS[name].short)
    assert finding.holds, finding.failures


@pytest.mark.parametrize(("bar", "plant"), PLANTED)
def test_the_planted_fault_is_found(bar: table.Bar, plant: str):
    if bar.name in LINUX and sys.platform != "linux":
        pytest.skip("fork, inotify, resource limits")
    finding = measure(bar, PLANTED_COUNT.get(bar.name, bar.short), plant)
    assert not finding.holds
    assert any(SAYS.get(f"{bar.name}-{plant}", "") in failure for failure in finding.failures), finding.failures


def test_times_that_settle_meanwhile_are_no_violation(monkeypatch: pytest.MonkeyPatch):
    """A run of more than two seconds took every later save for a wrong one."""
    monkeypatch.setattr(snapshot, "RACY_NS", 300_000_000)
    finding = measure(table.select("save_styles")[0], 14)
    assert finding.holds, finding.failures
