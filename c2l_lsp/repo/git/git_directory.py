"""Where a folder's git directory is, and whether git is writing the working tree right now.

Reads a few small files and runs no git, so that it is cheap, works without git installed and executes nothing that a
repository configures.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

STALE_LOCK_S = 120.0
"""A lock was left behind by a killed git if nothing has changed for so long: not it, the index, HEAD or the files."""

LONGEST_LOCK_S = 3600.0
"""Older than this it is stale whatever changes; waiting for it would stop learning for good."""

_CLOCK_S = 30.0  # how far another machine's clock may be ahead

_LOCKS = ("index.lock", "HEAD.lock")
_REPLAYS = ("rebase-merge", "rebase-apply", "sequencer")
_REPLAY_STEP_S = 2.0


class GitDir(NamedTuple):
    """Three folders: `dir` has HEAD and the index, `common` the objects and info/, `top` is the working tree's root."""

    dir: Path
    common: Path
    top: Path


def find(root: Path) -> GitDir | None:
    """The git directory that covers `root`, in it or above it; None outside of any working tree.

    Linked worktrees and submodules have a `.git` file that names the real directory.
    """
    for top in (root, *root.parents):
        dot = top / ".git"
        target = dot if dot.is_dir() else _pointed_at(dot)
        if target is not None and (target / "HEAD").is_file():
            return GitDir(target, _common(target), top)
    return None


def _pointed_at(dot: Path) -> Path | None:
    line = _first_line(dot)
    if not line.startswith("gitdir:"):
        return None
    return (dot.parent / line.removeprefix("gitdir:").strip()).resolve()


def _common(git_dir: Path) -> Path:
    line = _first_line(git_dir / "commondir")
    return (git_dir / line).resolve() if line else git_dir


def _first_line(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            return file.readline(4096).rstrip("\r\n")
    except (OSError, ValueError):
        return ""


def git_busy(root: Path, quiet_s: float = float("inf")) -> bool:
    """Whether git is changing the working tree at this moment (checkout, merge, a rebase between two picks).

    `quiet_s` is for how long no file has changed: git takes its lock once and then may write files for many minutes.
    A rebase that stopped for the user is not busy: it may stay so for days.
    """
    place = find(root)
    if place is None:
        return False
    if any(_age(place.dir / name) < _REPLAY_STEP_S for name in _REPLAYS):
        return True
    lock = min(_age(place.dir / name) for name in _LOCKS)
    moved = min(lock, quiet_s, *(_age(place.dir / name) for name in ("index", "HEAD")))
    return lock < LONGEST_LOCK_S and moved < STALE_LOCK_S


def _age(path: Path) -> float:
    """Seconds since a file was written; infinite if it is not there, or so far in the future that clocks jumped."""
    try:
        age = time.time() - path.lstat().st_mtime
    except OSError:
        return float("inf")
    return max(0.0, age) if age > -_CLOCK_S else float("inf")
