"""Commands that run a module of the tests in a child process."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def module_command(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs `module` as `__main__`, from any working directory."""
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return (sys.executable, "-c", code, *arguments)
