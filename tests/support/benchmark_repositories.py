"""Texts and repositories for the tests of the benchmarks."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.training_text import MIT, module


def program(topic: str, salt: int) -> dict[str, str]:
    """The files of a small project about a topic, with modules that call each other."""
    files = {"LICENSE": MIT, "README.md": f"# {topic}\n"}
    for i in range(8):
        call = f"\nfrom {topic}.part_{(i + 1) % 8} import {topic}_part_{(i + 1) % 8}_1\n\n"
        call += f"VALUE_{i} = {topic}_part_{(i + 1) % 8}_1({salt}, {i})\n"
        files[f"{topic}/part_{i}.py"] = module(f"{topic}_part_{i}", salt + i) + call
    return files


def git(folder: Path, *arguments: str) -> str:
    """Run git with a fixed author."""
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def commit(folder: Path, files: dict[str, str], message: str = "more") -> None:
    """Write files and commit everything."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    git(folder, "add", "-A", "-f")
    git(folder, "commit", "-q", "-m", message)
