"""Every bar in its short form, and every planted fault: a bar that passes with its fault planted tests nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from c2l_lsp.repo.history import snapshot
from tests.soak.bars import table
from tests.soak.harness.bar import BUSY
from tests.soak.harness.run import measure

pytestmark = pytest.mark.timeout(900)  # real processes, perhaps on a busy machine
BARS = {bar.name: bar for bar in table.BARS}
LINUX = {
    "save_styles",
    "odd_files",
    "torn_saves",
    "two_servers",
    "full_disk",
    "checkout",
    "untrusted",
    "odd_state_files",
}
PLANTED_COUNT = {
    "documents": 60, "edit_storm": 150, "checkout": 60, "cancels": 4, "folders": 3, "torn_saves": 2,
    "damaged_state": 10, "power_loss": 2, "hostile_readings": 15,
}  # fmt: skip
QUICK = {
    "frames-lenient", "frames-numb", "edit_storm-unlearning",
    "documents-splitlines", "documents-codepoints", "documents-unpaired", "save_styles-blind", "odd_files-follow",
    "odd_files-unbounded", "damaged_state-unchecked", "torn_saves-in_place", "hot_swaps-half",
    "secrets-unscreened", "secrets-peeks",
    "secrets-remembers", "secrets-prompts", "secrets-quotes", "hostile-trusting", "hostile-unpickles",
    "hostile-trusts_code", "replies-twice", "matching-backtracks", "matching-rescans", "typing-rereads",
    "untrusted-nosy", "untrusted-keeps", "power_loss-unsynced_files", "power_loss-unsynced_directories",
    "hostile_readings-believing", "odd_state_files-follows",
}  # fmt: skip
"""Planted faults that run by default. The others take minutes: `-m slow` runs them, and so does
`python -m tests.soak --bars NAME --plant FAULT`."""

PLANTED = [
    pytest.param(bar, plant, marks=() if f"{bar.name}-{plant}" in QUICK else pytest.mark.slow, id=f"{bar.name}-{plant}")
    for bar in table.BARS
    for plant in bar.plants
]


EXPECTED = {
    "secrets-unscreened": "known forms are learned",
    "secrets-peeks": "opened", "secrets-remembers": "in the state", "secrets-prompts": "seen by the model",
    "secrets-quotes": "in a message", "secrets-chatty": "in the log", "secrets-open_filter": "still embedded",
    "hostile_readings-any_schema": "nothing was set aside", "hostile_readings-believing": "embeddings with",
    "odd_state_files-follows": "a link to a sound copy", "power_loss-unsynced_files": "is damaged",
    "torn_saves-in_place": "is damaged", "torn_saves-swallows": "not complete",
    "hostile-unpickles": "executed", "hostile-trusts_code": "executed", "hostile-obeys_git": "executed",
    "matching-backtracks": "line", "matching-rescans": "text", "typing-rereads": "seen by the model",
    "untrusted-nosy": "were opened", "untrusted-keeps": "are stored",
    "frames-lenient": "running without answering", "frames-numb": "running without answering",
    "edit_storm-piles": "were queued", "edit_storm-unlearning": "were not learned", "edit_storm-dawdles": "completions",
    "edit_storm-drops": "differ from the editor's",
    "checkout-shrugs": "never seen", "full_disk-resigned": "not saved again",
    "no_network-calls_natively": "OutNoRoutes", "damaged_state-believing": "still contains",
    "cancels-deaf": "steps started", "cancels-forget": "no reply",
}  # fmt: skip
"""Text in the failure of a planted fault: it shows that the intended check failed, not another one."""


@pytest.fixture(autouse=True)
def small_model(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All processes use the tiny model, with one thread each."""
    Path(os.environ["C2L_CONFIG"]).write_text(f'[model]\npath = "{tiny_folder}"\ndtype = "float32"\n')
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize("name", BARS)
def test_bar_holds(name: str):
    if name in LINUX and sys.platform != "linux":
        pytest.skip("fork, inotify, resource limits")
    finding = measure(BARS[name], BARS[name].short)
    if finding.verdict is None and not finding.holds:
        pytest.skip(f"not measured: {BUSY.format(finding.busiest)}: {finding.failures}")
    assert finding.holds, finding.failures


@pytest.mark.parametrize(("bar", "plant"), PLANTED)
def test_planted_fault_is_detected(bar: table.Bar, plant: str):
    if bar.name in LINUX and sys.platform != "linux":
        pytest.skip("fork, inotify, resource limits")
    finding = measure(bar, PLANTED_COUNT.get(bar.name, bar.short), plant)
    assert not finding.holds
    assert any(EXPECTED.get(f"{bar.name}-{plant}", "") in failure for failure in finding.failures), finding.failures


def test_settled_modification_times_are_no_violation(monkeypatch: pytest.MonkeyPatch):
    """Regression: after two seconds, the bar reported every save as wrong."""
    monkeypatch.setattr(snapshot, "RACY_NS", 300_000_000)
    finding = measure(table.select("save_styles")[0], 14)
    assert finding.holds, finding.failures
