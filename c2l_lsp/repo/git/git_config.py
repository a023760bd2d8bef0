"""The configuration by which git ignores files, from all files that git itself reads: the system's, the user's and the
repository's, with their includes.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from c2l_lsp.repo.git import git_directory, git_process
from c2l_lsp.repo.git.git_directory import GitDir
from c2l_lsp.repo.git.stamps import Stamp, stamp

_EXCLUDES_FILE, _IGNORE_CASE = "core.excludesfile", "core.ignorecase"
_RELEVANT = re.compile(
    rb"excludesfile|ignorecase|include|extensions|repositoryformatversion *=(?! *[01]\s)", re.IGNORECASE
)
_SECTION = re.compile(rb"\[[a-z0-9.-]+(?: \"[^\"\\]*\")?\]", re.IGNORECASE)
_ENTRY = re.compile(rb"[a-z][a-z0-9-]*(?:[ \t]*=[^\"\\]*)?", re.IGNORECASE)
_LIMIT = 1 << 20


class IgnoreConfig(NamedTuple):
    """`excludes_file` may not exist; None if there is none. `ignore_case` is None if git does not set it.

    `sources` are the files that decide, also those that do not exist yet, as they were before they were read.
    """

    excludes_file: Path | None
    ignore_case: bool | None
    sources: Mapping[Path, Stamp | None]


class _Values(NamedTuple):
    """The two values as git prints them, and the files with any entry. `conditional`: a repository can change them."""

    excludes_file: bytes | None
    ignore_case: bytes | None
    files: tuple[Path, ...]
    conditional: bool


_NOTHING = _Values(None, None, (), False)


def read(git_dir: GitDir) -> IgnoreConfig:
    """Return the configuration for a working tree. Without git, its defaults.

    Raises GitError if git cannot read the configuration: git then refuses to work in this tree as well.
    """
    before = {path: stamp(path) for path in files(git_dir)}
    try:
        values = _user_values()
        if values.conditional or any(map(_may_decide, _own_files(git_dir))):
            values = _values(git_dir.top)
    except git_process.GitMissing:
        values = _NOTHING
    # git interprets a relative path in the root of the working tree. An empty value turns the default off.
    name = values.excludes_file
    path = _default() if name is None else git_dir.top / os.fsdecode(name) if name else None
    folds = None if values.ignore_case is None else values.ignore_case == b"true"
    included = {file: stamp(file) for file in values.files}
    return IgnoreConfig(path, folds, included | before)


def files(git_dir: GitDir) -> tuple[Path, ...]:
    """Return the files in which git looks for a configuration, before any include.

    HEAD is one of them: an include can depend on the branch.
    """
    return (*_own_files(git_dir), git_dir.dir / "HEAD", *_user_files())


def _own_files(git_dir: GitDir) -> tuple[Path, Path]:
    return git_dir.common / "config", git_dir.dir / "config.worktree"


def _values(folder: Path) -> _Values:
    entries = list(git_process.config_keys(folder))
    keys = {key for _, key in entries}
    return _Values(
        git_process.config(folder, _EXCLUDES_FILE, "path") if _EXCLUDES_FILE in keys else None,
        git_process.config(folder, _IGNORE_CASE, "bool") if _IGNORE_CASE in keys else None,
        tuple(dict.fromkeys(file for file, _ in entries)),
        any(key.startswith("includeif.") for key in keys),
    )


def _may_decide(file: Path) -> bool:
    """Return whether a repository's own configuration may set one of the values, or be one that git refuses.

    Most do neither. In a folder of hundreds of repositories, starting git for each of them would take seconds.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return True
        with file.open("rb") as opened:
            data = opened.read(_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return len(data) == _LIMIT or _RELEVANT.search(data) is not None or not _is_plain(data)


def _is_plain(data: bytes) -> bool:
    """Return whether a configuration consists of sections and simple entries, all of which git accepts."""
    lines = [line for raw in data.split(b"\n") if (line := raw.strip()) and not line.startswith((b"#", b";"))]
    if lines and not _SECTION.fullmatch(lines[0]):
        return False
    return all(_SECTION.fullmatch(line) or _ENTRY.fullmatch(line) for line in lines)


# --- the configuration outside of repositories ------------------------------------------------------------------------

_reading = threading.Lock()
_known: tuple[object, dict[Path, Stamp | None], _Values] | None = None


def _user_values() -> _Values:
    """Return the values that hold where no repository decides, remembered until one of their files changes."""
    global _known
    environment = {key: value for key, value in os.environ.items() if key.startswith("GIT_") or key in _VARIABLES}
    with _reading:
        if _known is not None and _known[0] == environment and all(stamp(f) == s for f, s in _known[1].items()):
            return _known[2]
        _known = None
        before = {file: stamp(file) for file in _user_files()}
        outside = Path(os.path.abspath(os.sep))  # noqa: PTH100 - has no parent that could be a repository
        if git_directory.at(outside) is not None:
            return _NOTHING._replace(conditional=True)
        values = _values(outside)
        _known = environment, {file: stamp(file) for file in values.files} | before, values
        return values


_VARIABLES = frozenset({"HOME", "XDG_CONFIG_HOME", "USERPROFILE", "HOMEDRIVE", "HOMEPATH", "PATH"})


def _user_files() -> list[Path]:
    """Return where git looks for the user's and the system's configuration, whether a file is there or not."""
    named = [os.environ.get("GIT_CONFIG_GLOBAL"), os.environ.get("GIT_CONFIG_SYSTEM")]
    found = [Path(name) for name in named if name]
    found.append(Path("/etc/gitconfig"))
    folder = _user_folder()
    if folder is not None:
        found.append(folder / "config")
    with contextlib.suppress(RuntimeError):  # the user has no home directory
        found.append(Path.home() / ".gitconfig")
    return found


def _user_folder() -> Path | None:
    """Return git's folder in the user's configuration; None if the user has no home directory."""
    configured = os.environ.get("XDG_CONFIG_HOME")
    try:
        return (Path(configured) if configured else Path.home() / ".config") / "git"
    except RuntimeError:
        return None


def _default() -> Path | None:
    """Return git's default exclude file."""
    folder = _user_folder()
    return folder / "ignore" if folder else None
