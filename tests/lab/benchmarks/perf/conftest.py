"""A repository whose commits insert code, and a minimal workload with the tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
from c2l_lab.benchmarks.perf.workload import Workload

from c2l_lsp.config import Settings, merge


@pytest.fixture(scope="session")
def typed(tmp_path_factory: pytest.TempPathFactory, sources: list[str]) -> Path:
    """Three files of real code; two commits insert small blocks, one inserts a large block."""
    import subprocess

    root = tmp_path_factory.mktemp("typed")

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)

    def put(name: str, text: str) -> None:
        (root / name).write_text(text, encoding="utf-8")
        git("add", "-A")
        git("commit", "-q", "-m", "more")

    git("init", "-q", "-b", "main")
    for number in range(3):
        put(f"m{number}.py", sources[10 + number])
    put("a.py", "def f(a):\n    b = a\n    return b\n")
    put("a.py", "def f(a):\n    b = a\n    if b:\n        b += 1\n    return b\n")
    put("a.py", "import os\n\n\ndef f(a):\n    b = a\n    if b:\n        b += 1\n    return b\n")
    put("b.py", "x = 1\n")
    put("b.py", "x = 1\n" + "".join(f"value_{i} = {i}\n" for i in range(100)))
    return root


@pytest.fixture
def load(tiny_folder: Path, typed: Path, tmp_path: Path) -> Workload:
    values = {"model": {"path": str(tiny_folder), "dtype": "float32", "device": "cpu"}}
    settings, errors = merge(Settings(), values, source="test", machine=True)
    assert not errors
    return Workload(settings, [typed], tmp_path, repeats=2, threads=1, small=True, speed=50.0, places=2)
