"""Every check of VS Code fails with each of its planted faults, with a message that describes the symptom.

Uses the fake engine, whose completions are known in advance. `test_workbench.py` runs the checks without a fault on the
shipped model; the checks that need no model run without a fault here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.editors.availability import requires_editor
from tests.editors.vscode import code_server
from tests.editors.vscode.checks import CHECKS, WITHOUT_MODEL, Fault, recover, run
from tests.editors.vscode.workbench import Workbench

pytestmark = [
    pytest.mark.editors,
    pytest.mark.timeout(900),
    requires_editor("vscode", installed=code_server.installed()),
]
CASES = [(check, fault) for check, faults in CHECKS.items() for fault in faults]


@pytest.mark.parametrize("check", WITHOUT_MODEL, ids=[check.__name__ for check in WITHOUT_MODEL])
def test_check_passes(fake: Workbench, check: Callable[[Workbench], None]) -> None:
    run(fake, check)


@pytest.mark.parametrize(("check", "fault"), CASES, ids=[f"{check.__name__}-{fault.name}" for check, fault in CASES])
def test_check_fails_with_planted_fault(fake: Workbench, check: Callable[[Workbench], None], fault: Fault) -> None:
    with fake.fault(fault.name), pytest.raises(AssertionError) as failed:
        check(fake)
    # The extension persists its switches and sends them to a new server, so a restart restores agreement.
    recover(fake, restart=fault.name == "ignore-toggle")
    messages = list(_chain(failed.value))
    print(f"{check.__name__} failed with: {messages}")
    assert re.search(fault.symptom, "\n".join(messages)), messages


def _chain(error: BaseException | None) -> Iterator[str]:
    """Yield the messages of an error and of its contexts, since clean-up may fail with a planted fault too."""
    while error is not None:
        yield str(error)
        error = error.__context__


def test_activation_takes_at_most_200_ms(fake: Workbench) -> None:
    """VS Code's own measurement of loading and activating the extension, scaled by the machine's load."""
    fake.command("Developer: Show Running Extensions")
    listed = ".runtime-extensions-editor .monaco-list-row"
    fake.wait(listed, 30)
    fake.do("click", selector=listed)
    rows: list[str] = []
    for _ in range(10):  # only what is in view is in the page
        rows += [row for row in fake.do("texts", selector=listed) if "C2L" in row]
        fake.press("PageDown")
    fake.press("Escape")
    found = [re.search(r"Activation: (\d+)ms", row) for row in rows]
    assert found and found[0], rows
    load = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    print(f"activation: {found[0][1]} ms at {load:.1f} times the load of a busy machine")
    assert int(found[0][1]) <= 200 * load


def test_package_is_at_most_1_mb(vsix: Path) -> None:
    size = vsix.stat().st_size
    print(f"VSIX: {size} bytes")
    assert size <= 1_000_000
