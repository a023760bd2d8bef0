"""The configuration by which git ignores files, from all files that git itself reads: the system's, the user's and the
repository's, with their includes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from c2l_lsp.repo.git import git_process


class IgnoreConfig(NamedTuple):
    """`excludes_file` may not exist; None if there is none. `ignore_case` is None if git does not set it."""

    excludes_file: Path | None
    ignore_case: bool | None


def read(top: Path) -> IgnoreConfig:
    """Return the configuration for the working tree with the root `top`. Without git, its defaults.

    Raises GitError if git cannot read the configuration: git then refuses to work in this tree as well.
    """
    try:
        configured = git_process.config(top, "core.excludesFile", "path")
        folds = git_process.config(top, "core.ignoreCase", "bool")
    except git_process.GitMissing:
        configured = folds = None
    # git interprets a relative path in the root of the working tree. An empty value turns the default off.
    path = _default() if configured is None else top / os.fsdecode(configured) if configured else None
    return IgnoreConfig(path, None if folds is None else folds == b"true")


def _default() -> Path | None:
    """Return git's default location; None if the user has no home directory."""
    configured = os.environ.get("XDG_CONFIG_HOME")
    try:
        return (Path(configured) if configured else Path.home() / ".config") / "git" / "ignore"
    except RuntimeError:
        return None
