"""Forbidden calls in the packages, imports from the workspace, and private files."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from c2l_lsp.engine import wire
from c2l_lsp.server.transport.engine_client import ENGINE_COMMAND

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "c2l_lsp"
MODULES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "lab" / "c2l_lab").rglob("*.py")])
"""All modules that users run. The planted faults of tests/soak do what is forbidden here, on purpose."""

UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "xmlrpc", "telnetlib"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "getoutput", "getstatusoutput", "start_tcp"}
UNSAFE_CALLS |= {"start_ws", "create_subprocess_shell", "execv", "spawnl"}


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]


def called_name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def used_attributes(path: Path, module: str) -> set[str]:
    """Return the attributes of a module that a file uses."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {n.attr for n in nodes if isinstance(n, ast.Attribute) and ast.unparse(n.value) == module}


def test_no_module_unpickles_evaluates_code_or_opens_a_shell():
    found = []
    for path in MODULES:
        here = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if names == ["pickle"] and used_attributes(path, "pickle") == {"UnpicklingError"}:
                continue  # the error of torch.load(weights_only=True)
            found += [f"{here}: imports {name}" for name in names if name.split(".")[0] in UNSAFE_MODULES]
        for call in calls(path):
            is_builtin = isinstance(call.func, ast.Name) or ast.unparse(call.func).startswith(
                ("os.", "subprocess.", "asyncio.")
            )
            if called_name(call) in UNSAFE_CALLS and is_builtin:
                found.append(f"{here}:{call.lineno}: {ast.unparse(call.func)}")
            if any(keyword.arg == "shell" for keyword in call.keywords):
                found.append(f"{here}:{call.lineno}: shell=")
    assert not found


def test_weights_are_loaded_without_executing_code():
    for path in MODULES:
        for call in calls(path):
            keywords = {keyword.arg: keyword.value for keyword in call.keywords}
            if ast.unparse(call.func) == "torch.load":
                assert ast.unparse(keywords["weights_only"]) == "True", f"{path}:{call.lineno}"
            assert "allow_pickle" not in keywords, f"{path}:{call.lineno}"
            if "trust_remote_code" in keywords:
                assert ast.unparse(keywords["trust_remote_code"]) == "False", f"{path}:{call.lineno}"
        if "trust_remote_code" in path.read_text(encoding="utf-8"):
            assert '"trust_remote_code": True' not in path.read_text(encoding="utf-8")


def test_no_module_listens_on_a_socket():
    listeners = ("start_server", "create_server", "socketserver", "http.server", "start_unix_server")
    text = "".join(p.read_text(encoding="utf-8") for p in PACKAGE.rglob("*.py"))
    assert not [name for name in listeners if name in text]


def test_engine_imports_nothing_from_the_current_folder(tmp_path: Path):
    """An editor starts the server in the workspace, which PYTHONPATH may name. A `msgspec.py` there must not run."""
    marker = tmp_path / "executed"
    for name in ("msgspec", "msgpack", "torch", "logging", "c2l_lsp", "sitecustomize", "usercustomize"):
        (tmp_path / f"{name}.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    ping = wire.pack(wire.Request(id=1, method="ping", params={}))
    hostile = {**os.environ, "PYTHONPATH": str(tmp_path)}
    completed = subprocess.run(
        ENGINE_COMMAND, input=ping, cwd=tmp_path, capture_output=True, timeout=90, check=True, env=hostile
    )
    assert wire.unpack(completed.stdout[4:]) == wire.Reply(id=1, result={})
    assert not marker.exists()
    unsafe = [sys.executable, "-m", "c2l_lsp.engine.worker"]
    path = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    subprocess.run(unsafe, input=ping, cwd=tmp_path, capture_output=True, timeout=90, check=False, env=path)
    assert marker.exists(), "the trap works"


@pytest.mark.skipif(os.name == "nt", reason="modes")
def test_statistics_file_is_private(tmp_path: Path):
    from c2l_lsp.server.reporting.statistics import Statistics

    made = Statistics(tmp_path / "state" / "statistics.json")
    made.record_completion("engine")
    made.save()
    assert stat.S_IMODE((tmp_path / "state" / "statistics.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
