"""Temporary git repositories with tests, and a small benchmark with the published columns."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "lab" / "benchmarks" / "repopeft" / "golden"
MIT = "MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy of this software\n"


def golden(name: str) -> Any:
    """A golden file: inputs and expected outputs."""
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


class Repo:
    """A repository with a fixed identity and clock below a mirror folder."""

    def __init__(self, mirror: Path, name: str, *init: str) -> None:
        self.name = name
        self.root = mirror / name.replace("/", "+") / "repo"
        self.clock = 1_600_000_000
        self.root.mkdir(parents=True)
        self.git("init", "-q", "-b", "main", *init)

    def git(self, *args: str) -> str:
        self.clock += 60
        date = f"{self.clock} +0200"
        env = {**os.environ, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        for role in ("AUTHOR", "COMMITTER"):
            env |= {f"GIT_{role}_NAME": "Test", f"GIT_{role}_EMAIL": "test@example.invalid"}
        done = subprocess.run(["git", *args], cwd=self.root, env=env, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def write(self, files: Mapping[str, str | bytes | None]) -> None:
        for name, content in files.items():
            path = self.root / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def commit(self, files: Mapping[str, str | bytes | None] | None = None) -> str:
        self.write(files or {})
        self.git("add", "-A", "-f")
        self.git("commit", "-q", "--allow-empty", "-m", "change")
        return self.git("rev-parse", "HEAD")


def suite(*asserts: str, name: str = "test_it") -> str:
    """A test file with one function."""
    return "\n".join([f"def {name}():", *(f"    {line}" for line in asserts), ""])


def grow(repo: Repo, commits: int, start: int = 0) -> list[str]:
    """Commits that each add one assertion and change the module under test."""
    made = []
    for i in range(start, start + commits):
        lines = [f"assert f({j}) == value_{j}" for j in range(i + 1)]
        made.append(repo.commit({"pkg/a.py": f"def f(x):\n    return x + {i}\n", "tests/test_a.py": suite(*lines)}))
    return made
