"""A temporary copy of a repository that the demo may edit. The original is only read.

Links, special files and files that are too large for the server are not copied.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from c2l_lsp.errors import FolderError, GitError
from c2l_lsp.repo.git import git_process

MAX_FILES = 100_000
_MAX_BYTES = 1024 * 1024
_CLONE_WITHIN_S = 60.0
_NEVER = {"node_modules", "__pycache__", "site-packages", "venv", "build", "dist", "env"}


@dataclass(frozen=True)
class Copy:
    """The copy at `root`: its number of files, the paths of the Python files, and a description of the source."""

    root: Path
    files: int
    python: tuple[str, ...]
    description: str


def copy_repository(source: Path, target: Path) -> Copy:
    """Copy a git repository with its uncommitted changes, or any other folder. FolderError if that is impossible."""
    if not source.is_dir():
        raise FolderError(f"{source} is not a folder; name a repository: make demo REPO=path/to/it.")
    source = source.resolve()
    tracked = _tracked(source)
    description = "plain folder"
    if tracked is not None:
        description = _share_history(source, target)
    paths = list(_walk(source)) if tracked is None else tracked
    if len(paths) > MAX_FILES:
        raise FolderError(f"{source} holds more than {MAX_FILES} files; name a smaller folder.")
    copied = [path for path in paths if _copy(source / path, target / path)]
    python = tuple(sorted(path for path in copied if path.endswith(".py")))
    if not python:
        raise FolderError(f"{source} holds no Python file, so there is nothing to show; name another repository.")
    return Copy(target, len(copied), python, description)


def _tracked(source: Path) -> list[str] | None:
    """The tracked files and the new files that are not ignored; None if git finds no repository."""
    try:
        listed = git_process.run(source, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    except GitError:
        return None
    return sorted({os.fsdecode(name) for name in listed.split(b"\0") if name})


def _share_history(source: Path, target: Path) -> str:
    """Make `target` a repository with the same history and no files; a description of the source."""
    if not (source / ".git").exists():
        return "part of a git repository, without its history"
    command = ["git", "-c", f"core.hooksPath={os.devnull}", "clone", "--quiet", "--shared", "--no-checkout"]
    try:
        made = [*command, "--", str(source), str(target)]
        subprocess.run(made, check=True, capture_output=True, timeout=_CLONE_WITHIN_S)
        git_process.run(target, "reset", "--quiet")  # set the index to the last commit; no file is written
        changed = git_process.run(source, "status", "--porcelain", "--untracked-files=normal").count(b"\n")
    except (subprocess.SubprocessError, OSError, GitError):
        return "git repository, without its history"
    if changed:
        return f"git repository with {changed} uncommitted {'change' if changed == 1 else 'changes'}"
    return "git repository at its last commit"


def _walk(source: Path) -> Iterator[str]:
    seen = 0
    for folder, folders, files in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _NEVER)
        for name in sorted(files):
            seen += 1
            if seen > MAX_FILES + 1:
                return
            yield (Path(folder) / name).relative_to(source).as_posix()


def _copy(source: Path, target: Path) -> bool:
    """Copy a file if it is readable and regular; whether it was copied."""
    try:
        if source.is_symlink() or not source.is_file() or source.stat().st_size > _MAX_BYTES:
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError:
        return False
    return True
