"""The rules by which one git repository ignores files: its exclude files, and what it tracks all the same.

The rules of its .gitignore files are chained by directory; `IgnoreRules` reads them while it descends.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from c2l_lsp import regular_files
from c2l_lsp.errors import GitError
from c2l_lsp.repo.filter import patterns
from c2l_lsp.repo.git import git_config, tracked_files
from c2l_lsp.repo.git.git_directory import GitDir
from c2l_lsp.repo.git.stamps import Stamp, stamp

Chain: TypeAlias = "tuple[tuple[bytes, patterns.PatternList], ...]"
"""(directory that its paths are relative to, patterns of its file) pairs, from the deepest directory up."""

FOLDS_CASE = sys.platform in ("win32", "darwin")

_RULE_FILE_LIMIT = 1 << 20


class ExcludeRules(NamedTuple):
    """The rules of a repository from outside of the folder's own ignore files.

    These are its exclude files and, for the root's repository, the .gitignore files above the root. `usable` False:
    git refuses its configuration or a file is irregular, so that the intended rules are unknown. `sources` are the
    files that decide.
    """

    chain: Chain = ()
    fingerprint: bytes = b""
    folds_case: bool = FOLDS_CASE
    usable: bool = True
    sources: Mapping[Path, Stamp | None] = MappingProxyType({})

    def equals(self, other: ExcludeRules) -> bool:
        """Return whether the other rules decide the same."""
        return (self.fingerprint, self.folds_case, self.usable) == (other.fingerprint, other.folds_case, other.usable)


class Repository:
    """The working tree that contains the root, or one below it. Without `git_dir` only .gitignore files count.

    `base` is the path of the root relative to the repository's top if the root lies in the repository; `below` is the
    path of the top relative to the root otherwise.
    """

    def __init__(self, git_dir: GitDir | None, *, base: str = "", below: str = "") -> None:
        self.git_dir, self.base, self.below = git_dir, base, below
        self.excludes = _read_excludes(git_dir, base) if git_dir else ExcludeRules()
        self._tracked = tracked_files.of(git_dir) if git_dir else None
        self._names = self._tracked.names if self._tracked and self._tracked.version else None
        self._guessed: set[bytes] = set()

    # --- rules -----------------------------------------------------------------------------------------------------

    def path(self, path: str) -> str:
        """Return a path below the root, or the root itself (""), relative to the repository's top."""
        if self.below:
            return path[len(self.below) + 1 :]
        return f"{self.base}/{path}".strip("/") if self.base else path

    def path_in_root(self, path: str) -> str:
        """Return the path of a file of the repository relative to the root; "" if it is not below the root."""
        if self.below:
            return f"{self.below}/{path}"
        start = f"{self.base}/" if self.base else ""
        return path[len(start) :] if path.startswith(start) else ""

    def prepend(self, data: bytes, directory: str, chain: Chain) -> Chain:
        """Return the chain with the rules of one ignore file before it; `directory` is relative to the top."""
        return prepend(data, directory, chain, fold_case=self.excludes.folds_case)

    def ignores(self, chain: Chain, path: str, *, directory: bool) -> bool:
        """Return whether the patterns of a chain ignore a path, which is relative to the top."""
        return matches(chain, path, directory=directory, fold_case=self.excludes.folds_case)

    # --- what git tracks -------------------------------------------------------------------------------------------

    def tracks(self, path: str, *, directory: bool = False) -> bool:
        """Return whether git tracks a file (`directory`: a submodule, or files below it); relative to the top.

        False if it is not known yet; `outdated` is true if that was wrong.
        """
        if self._tracked is None:
            return False
        name = os.fsencode(path) + (b"/" if directory else b"")
        found = self._tracks(self._tracked, name)
        if not self._tracked.version:
            self._guessed.add(name)
        return found

    @staticmethod
    def _tracks(tracked: tracked_files.TrackedFiles, name: bytes) -> bool:
        if name.endswith(b"/"):
            return tracked.contains_below(name[:-1]) or tracked.contains(name[:-1])
        return tracked.contains(name)

    def wait(self, seconds: float) -> bool:
        """Wait until it is known what git tracks; return whether it is."""
        return self._tracked is None or self._tracked.wait(seconds)

    def outdated(self) -> bool:
        """Return whether the exclude rules are others by now, or an answer about a tracked file was a wrong guess."""
        if self.git_dir is None or self._tracked is None:
            return False
        if any(stamp(path) != seen for path, seen in self.excludes.sources.items()):
            found = _read_excludes(self.git_dir, self.base)
            if not found.equals(self.excludes):
                return True
            self.excludes = found
        if not self._tracked.version:
            return False
        guessed, self._guessed = self._guessed, set()
        return any(self._tracks(self._tracked, name) for name in guessed)

    def tracked_changes(self) -> set[str]:
        """Return the files that git tracks now and did not at the last call, or the reverse; relative to the top.

        The first call compares with the names that the first answers were given from. Blocks while git lists an index.
        """
        if self._tracked is None:
            return set()
        self._tracked.refresh()
        before = self._tracked.first_names if self._names is None else self._names
        self._names = self._tracked.names
        if before is None or before is self._names:
            return set()
        changed = set(before.split(b"\0")) ^ set(self._names.split(b"\0"))
        return {os.fsdecode(name) for name in changed}


def _read_excludes(git_dir: GitDir, base: str) -> ExcludeRules:
    parts = base.split("/") if base else []
    sources: dict[Path, Stamp | None] = {}
    try:
        config = git_config.read(git_dir)
    except GitError:
        sources = {path: stamp(path) for path in git_config.files(git_dir)}
        return ExcludeRules(usable=False, sources=sources)
    sources |= config.sources
    folds_case = FOLDS_CASE if config.ignore_case is None else config.ignore_case
    own = [path for path in (config.excludes_file, git_dir.common / "info" / "exclude") if path]
    files = [(path, "", True) for path in own]
    for directory in ("/".join(parts[:n]) for n in range(len(parts))):
        files.append((git_dir.top / directory / ".gitignore", directory, False))
    chain: Chain = ()
    fingerprint, usable = b"", True
    for path, directory, follow_link in files:
        sources[path] = stamp(path)
        try:
            data = read_rule_file(path, follow_link=follow_link)
        except OSError:
            usable = False
            continue
        chain = prepend(data, directory, chain, fold_case=folds_case)
        fingerprint += data + b"\0"
    return ExcludeRules(chain, fingerprint, folds_case, usable, sources)


def prepend(data: bytes, directory: str, chain: Chain, *, fold_case: bool) -> Chain:
    """Return a chain with the rules of an ignore file's content before it."""
    if not data:
        return chain
    return ((os.fsencode(directory), patterns.PatternList.from_file(data, fold_case=fold_case)), *chain)


def matches(chain: Chain, path: str, *, directory: bool, fold_case: bool) -> bool:
    """Return whether a chain ignores a path: the first of its files with a matching pattern decides."""
    name = os.fsencode(path)
    if fold_case:
        name = name.lower()
    for base, found in chain:
        ignored = found.last_match(name[len(base) + 1 :] if base else name, directory=directory)
        if ignored is not None:
            return ignored
    return False


def read_rule_file(path: Path, *, follow_link: bool = False) -> bytes:
    """Return the content of an ignore file, empty if there is none. Raises OSError if the file cannot be used.

    A link is followed only for the user's own files (`follow_link`). A link inside the folder may lead anywhere, and
    git ignores its rules; because its intended rules are unknown, the whole directory is then ignored.
    """
    try:
        # Checked before opening as well, because opening a device can have effects.
        before = path.stat() if follow_link else path.lstat()
        if stat.S_ISDIR(before.st_mode):
            return b""
        _require_usable(before)
        descriptor = os.open(path, regular_files.OPEN_FLAGS | (0 if follow_link else regular_files.NO_FOLLOW))
    except (FileNotFoundError, NotADirectoryError):
        return b""
    try:
        _require_usable(os.fstat(descriptor))
        return regular_files.read_up_to(descriptor, _RULE_FILE_LIMIT)
    finally:
        os.close(descriptor)


def _require_usable(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_size > _RULE_FILE_LIMIT:
        raise OSError(errno.EFBIG, "not a usable ignore file")
