"""What a user of VS Code does and sees, with the real server and the shipped model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.editors.found import needs
from tests.editors.vscode import code_server
from tests.editors.vscode.checks import CHECKS, OF_THE_EXTENSION, run
from tests.editors.vscode.workbench import Workbench

pytestmark = [pytest.mark.editors, pytest.mark.timeout(900), needs("vscode", here=code_server.installed())]


REAL = [check for check in CHECKS if check not in OF_THE_EXTENSION]


@pytest.mark.parametrize("check", REAL, ids=[check.__name__ for check in REAL])
def test_holds(real: Workbench, check: Callable[[Workbench], None]) -> None:
    run(real, check)
