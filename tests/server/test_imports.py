"""What importing the server loads, and which packages import pygls."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import c2l_lsp

PACKAGE = Path(c2l_lsp.__file__).parent
HEAVY = {"torch", "transformers", "peft", "numpy", "safetensors", "tokenizers"}


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout + done.stderr


def test_importing_the_server_loads_no_torch() -> None:
    paths = [path.relative_to(PACKAGE.parent).with_suffix("") for path in (PACKAGE / "server").rglob("[a-z]*.py")]
    modules = ", ".join(".".join(path.parts) for path in paths)
    out = run(f"import sys, {modules}; print(sorted(set(sys.modules) & {HEAVY!r}))")
    assert out.strip() == "[]"


def test_importing_the_entry_point_loads_no_pygls() -> None:
    out = run(
        "import sys, c2l_lsp.server.app; print([m for m in sys.modules if m.startswith(('pygls', 'lsprotocol'))])"
    )
    assert out.strip() == "[]"


def test_only_the_server_imports_pygls() -> None:
    offenders = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] != "server"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        if name.split(".")[0] in ("pygls", "lsprotocol")
    ]
    assert offenders == []
