"""Locating a folder's git directory, and detecting that git is writing the working tree.

Reads a few small files and does not run git. This is cheap, works without git installed, and executes nothing that a
repository configures.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

STALE_LOCK_S = 120.0
"""A lock is stale (left by a killed git) if it, the index, HEAD and the files have not changed for so long."""

MAX_LOCK_AGE_S = 3600.0
"""A lock older than this is stale in any case, so that a forgotten lock cannot stop indexing for ever."""

_CLOCK_SKEW_S = 30.0  # the clock of a file server may be ahead by this much

_LOCKS = ("index.lock", "HEAD.lock")
_REBASE_DIRECTORIES = ("rebase-merge", "rebase-apply", "sequencer")
_REBASE_STEP_S = 2.0


class GitDir(NamedTuple):
    """`dir` contains HEAD and the index, `common` the objects and info/; `top` is the root of the working tree."""

    dir: Path
    common: Path
    top: Path


def find(root: Path) -> GitDir | None:
    """Return the git directory of the working tree that contains `root`; None outside any working tree."""
    return next((found for top in (root, *root.parents) if (found := at(top)) is not None), None)


def at(top: Path) -> GitDir | None:
    """Return the git directory of the working tree with the root `top`; None if it is none, or `.git` is malformed.

    In linked worktrees and submodules `.git` is a file with the path of the actual directory. Raises nothing: a hostile
    `.git` may name anything.
    """
    dot_git = top / ".git"
    target = dot_git if os.path.isdir(dot_git) else _read_git_file(dot_git)  # noqa: PTH112 - a Path's raises
    if target is None or not os.path.isfile(target / "HEAD"):  # noqa: PTH113
        return None
    common = _common(target)
    return GitDir(target, common, top) if common is not None else None


def _read_git_file(dot_git: Path) -> Path | None:
    line = _first_line(dot_git)
    if not line.startswith("gitdir:"):
        return None
    return _resolved(dot_git.parent, line.removeprefix("gitdir:").strip())


def _common(git_dir: Path) -> Path | None:
    line = _first_line(git_dir / "commondir")
    return _resolved(git_dir, line) if line else git_dir


def _resolved(base: Path, name: str) -> Path | None:
    """Return a path that a file of git names; None for one with a NUL character."""
    try:
        return Path(os.path.realpath(base / name))  # Path.resolve raises for a loop of links
    except (OSError, ValueError):
        return None


def _first_line(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            return file.readline(4096).rstrip("\r\n")
    except (OSError, ValueError):
        return ""


def git_busy(root: Path, quiet_s: float = float("inf")) -> bool:
    """Return whether git is writing the working tree now (checkout, merge, a rebase between two picks).

    `quiet_s` is the time since a file of the tree last changed. It matters because git takes its lock once and may
    then write files for many minutes. A rebase that waits for the user does not count: it may wait for days.
    """
    git_dir = find(root)
    if git_dir is None:
        return False
    if any(_age(git_dir.dir / name) < _REBASE_STEP_S for name in _REBASE_DIRECTORIES):
        return True
    lock_age = min(_age(git_dir.dir / name) for name in _LOCKS)
    unchanged_s = min(lock_age, quiet_s, *(_age(git_dir.dir / name) for name in ("index", "HEAD")))
    return lock_age < MAX_LOCK_AGE_S and unchanged_s < STALE_LOCK_S


def _age(path: Path) -> float:
    """Return the seconds since a file was written; infinity if it is missing or dated far in the future."""
    try:
        age = time.time() - path.lstat().st_mtime
    except OSError:
        return float("inf")
    return max(0.0, age) if age > -_CLOCK_SKEW_S else float("inf")
