"""Folders with modules that are named like the server's imports and leave a file when they run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("queue", "click", "torch", "random", "msgspec", "typer", "transformers", "asyncio", "c2l_lab")
SCRIPT = "import re, sys\nfrom {module} import {function}\nsys.exit({function}())\n"
"""What pip writes for an entry point."""


def plant(folder: Path, marks: Path, *names: str) -> None:
    """Write modules into `folder`. One that runs leaves a file of its name in `marks`."""
    marks.mkdir(exist_ok=True)
    for name in names:
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"open({str(marks / name.replace('/', '.'))!r}, 'w').close()\n", encoding="utf-8")


def installed_script(folder: Path) -> list[str]:
    """The command of the installed `c2l-lsp` that starts a server; the script is written to `folder`."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    entry = re.search(r'^c2l-lsp = "([\w.]+):(\w+)"', text, re.MULTILINE)
    assert entry is not None
    folder.mkdir()
    script = folder / "c2l-lsp"
    script.write_text(SCRIPT.format(module=entry[1], function=entry[2]), encoding="utf-8")
    return [sys.executable, str(script), "serve", "--stdio"]
