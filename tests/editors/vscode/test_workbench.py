"""The checks of VS Code with the real server and the shipped model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.editors.availability import requires_editor
from tests.editors.vscode import code_server
from tests.editors.vscode.checks import CHECKS, WITHOUT_MODEL, run
from tests.editors.vscode.workbench import Workbench

pytestmark = [
    pytest.mark.editors,
    pytest.mark.timeout(900),
    requires_editor("vscode", installed=code_server.installed()),
]


WITH_MODEL = [check for check in CHECKS if check not in WITHOUT_MODEL]


@pytest.mark.parametrize("check", WITH_MODEL, ids=[check.__name__ for check in WITH_MODEL])
def test_check_passes(real: Workbench, check: Callable[[Workbench], None]) -> None:
    run(real, check)
