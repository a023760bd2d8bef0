"""Locations taken from the user's own git configuration, not from a repository's."""

from __future__ import annotations

import os
from pathlib import Path

from c2l_lsp.errors import GitError
from c2l_lsp.repo.git import git_process

_ANY_DIRECTORY = Path(__file__).parent  # git needs an existing working directory, even for global settings


def global_excludes() -> Path | None:
    """Return the path of the user's global ignore file (core.excludesFile), which may not exist.

    Return None when the user has no home directory.
    """
    try:
        output = git_process.run(_ANY_DIRECTORY, "config", "--global", "--type=path", "--get", "core.excludesFile")
        configured = output.decode().strip("\n")
        if configured:
            return Path(configured)
    except (GitError, OSError, UnicodeDecodeError):
        pass  # unset, or git is missing: use git's default location
    try:
        return _config_home() / "git" / "ignore"
    except RuntimeError:
        return None


def _config_home() -> Path:
    configured = os.environ.get("XDG_CONFIG_HOME")
    return Path(configured) if configured else Path.home() / ".config"
