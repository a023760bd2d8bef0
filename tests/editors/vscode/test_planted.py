"""Each check of VS Code fails with its fault planted, and says what the fault does. With texts known beforehand.

That the checks hold without a fault is shown with the shipped model, in `test_workbench.py`; here for those that no
model has a part in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.editors.found import needs
from tests.editors.vscode import code_server
from tests.editors.vscode.checks import CHECKS, OF_THE_EXTENSION, Fault, recover, run
from tests.editors.vscode.workbench import Workbench

pytestmark = [pytest.mark.editors, pytest.mark.timeout(900), needs("vscode", here=code_server.installed())]
PLANTED = [(check, fault) for check, faults in CHECKS.items() for fault in faults]


@pytest.mark.parametrize("check", OF_THE_EXTENSION, ids=[check.__name__ for check in OF_THE_EXTENSION])
def test_holds(fake: Workbench, check: Callable[[Workbench], None]) -> None:
    run(fake, check)


@pytest.mark.parametrize(
    ("check", "fault"), PLANTED, ids=[f"{check.__name__}-{fault.name}" for check, fault in PLANTED]
)
def test_fails_with_its_fault(fake: Workbench, check: Callable[[Workbench], None], fault: Fault) -> None:
    with fake.fault(fault.name), pytest.raises(AssertionError) as failed:
        check(fake)
    # A server that heard nothing of a switch is told by the extension, which keeps it, when it starts anew.
    recover(fake, restart=fault.name == "deaf")
    said = list(_chain(failed.value))
    print(f"{check.__name__} said: {said}")
    assert re.search(fault.symptom, "\n".join(said)), said


def _chain(error: BaseException | None) -> Iterator[str]:
    """An error, and those that it came from: tidying up may fail, too, with a fault planted."""
    while error is not None:
        yield str(error)
        error = error.__context__


def test_activation_is_quick(fake: Workbench) -> None:
    """VS Code's own measure of loading and activating the extension; what else runs here makes it slower."""
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
    crowded = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    print(f"activation: {found[0][1]} ms with {crowded:.1f} times as much to do as there are cores")
    assert int(found[0][1]) <= 200 * crowded


def test_the_package_is_small(vsix: Path) -> None:
    size = vsix.stat().st_size
    print(f"VSIX: {size} bytes")
    assert size <= 1_000_000
