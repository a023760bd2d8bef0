"""The ignore rules of one folder.

Sources: .gitignore files at every level, git's own exclude files, what git tracks, the project's ignore file
(files.ignoreFile), the setting files.exclude, and the names that are always ignored. Ignore files are read once and
cached per directory.

A repository below the root (a submodule, a clone, a linked worktree) is part of the folder. In it the git rules of that
repository apply, and no git rules of the one around it, exactly as for git itself. The other rules apply everywhere.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from c2l_lsp import config
from c2l_lsp.errors import SettingError
from c2l_lsp.repo.filter import patterns, repositories, rules
from c2l_lsp.repo.filter.repositories import FOLDS_CASE, Chain, Repository
from c2l_lsp.repo.git import git_directory
from c2l_lsp.repo.git.git_directory import GitDir
from c2l_lsp.repo.git.stamps import stamp

_MAX_CACHED_DIRECTORIES = 100_000
_MANY_CHANGES = 2000  # files that a checkout added to the index or removed from it


class DirectoryRules(NamedTuple):
    """The rules inside one directory. `fingerprint` contains the bytes of the directory's own ignore files.

    `tracked_only`: git ignores the directory, but tracks files below it; only these count. `copy`: the directory lies
    in a further working tree of a repository of this folder.
    """

    ignored: bool
    repository: Repository
    git: Chain = ()
    own: Chain = ()
    fingerprint: bytes = b""
    tracked_only: bool = False
    copy: bool = False


_NO_REPOSITORY = Repository(None)
_IGNORED = DirectoryRules(True, _NO_REPOSITORY)


class IgnoreRules:
    """Decides whether a path below `root` (resolved) is ignored. Raises SettingError if a setting is invalid."""

    def __init__(self, root: Path, settings: config.Files) -> None:
        self._root = root
        self._settings = settings
        self._tops: dict[Path, object] = {}
        git_dir = self._find_repository() if settings.respect_gitignore else None
        base = root.relative_to(git_dir.top).as_posix() if git_dir and git_dir.top != root else ""
        self._repository = Repository(git_dir, base=base)
        self._repositories = [self._repository]
        self._folds_case = self._repository.excludes.folds_case
        self._exclude = _exclude_patterns(settings, fold_case=self._folds_case)
        self._cache: dict[str, DirectoryRules] = {}

    def _find_repository(self) -> GitDir | None:
        for top in (self._root, *self._root.parents):  # a repository may appear where there is none yet
            self._note_repository(top)
            found = git_directory.at(top)
            if found is not None:
                return found
        return None

    def _note_repository(self, top: Path) -> None:
        self._tops[top] = _identity(top)

    def fingerprint(self) -> bytes:
        """Return bytes that identify the rules for the whole folder, for use in a digest.

        They stay the same from one release to the next for a folder whose rules are the same: its state is kept.
        """
        settings, repository = self._settings, self._repository
        parts = (rules.VERSION, settings.exclude, settings.respect_gitignore, settings.ignore_file, repository.base)
        case = b"" if self._folds_case == FOLDS_CASE else b"%d" % self._folds_case
        return repr(parts).encode() + case + repository.excludes.fingerprint

    def outdated(self) -> bool:
        """Return whether files outside of the watched directories changed, so that the rules must be read again.

        These are the configuration of git, its exclude files and its indexes. Blocks while git lists an index.
        """
        if any(_identity(top) != seen for top, seen in list(self._tops.items())):
            return True
        return any(
            repository.outdated() or self._depends_on(repository, repository.tracked_changes())
            for repository in list(self._repositories)
        )

    def _depends_on(self, repository: Repository, changed: set[str]) -> bool:
        """Return whether it decides about one of some files, relative to the repository's top, that git tracks it."""
        if len(changed) > _MANY_CHANGES:
            return True
        paths = (path for name in changed if (path := repository.path_in_root(name)) and well_formed(path))
        return any(self._only_tracked(repository, path) for path in paths)

    def _only_tracked(self, repository: Repository, path: str) -> bool:
        """Return whether git ignores a file, or a submodule, unless it tracks it."""
        found, full = self.directory(path.rpartition("/")[0]), repository.path(path)
        if found.ignored or found.tracked_only:
            return True
        return any(repository.ignores(found.git, full, directory=directory) for directory in (False, True))

    def wait(self, seconds: float) -> bool:
        """Wait until it is known what git tracks in the repositories seen so far; return whether it is."""
        return all(repository.wait(seconds) for repository in list(self._repositories))

    def ignores_file(self, path: str) -> bool:
        """Return whether a file is ignored. `path` is relative to the root and well formed."""
        parent, _, name = path.rpartition("/")
        found = self.directory(parent)
        if found.ignored or rules.is_secret_file(name) or self._excludes(found, path, directory=False):
            return True
        repository, full = found.repository, found.repository.path(path)
        ignored = found.tracked_only or repository.ignores(found.git, full, directory=False)
        return ignored and not repository.tracks(full)

    def directory(self, path: str) -> DirectoryRules:
        """Return the rules inside a directory. Descends iteratively from the deepest cached parent."""
        missing = []
        while (known := self._cache.get(path)) is None and path:
            missing.append(path)
            path = path.rpartition("/")[0]
        if known is None:
            known = self._cache[""] = self._with_rule_files(self._outside_root(), "")
        if len(self._cache) > _MAX_CACHED_DIRECTORIES:
            self._cache = {"": self._cache[""]}
        for below in reversed(missing):
            known = self._cache[below] = self._descend(known, below)
        return known

    def _outside_root(self) -> DirectoryRules:
        """Return the rules from git's own exclude files and the directories above the root."""
        repository = self._repository
        if not repository.excludes.usable:
            return _IGNORED
        parts = repository.base.split("/") if repository.base else []
        parents = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        ignored = any(repository.ignores(repository.excludes.chain, parent, directory=True) for parent in parents)
        if ignored and not repository.tracks(repository.base, directory=True):
            return _IGNORED
        return DirectoryRules(False, repository, git=repository.excludes.chain, tracked_only=ignored)

    def _descend(self, parent: DirectoryRules, path: str) -> DirectoryRules:
        if parent.ignored or rules.is_ignored_directory(path) or self._excludes(parent, path, directory=True):
            return _IGNORED
        repository, full = parent.repository, parent.repository.path(path)
        ignored = parent.tracked_only or repository.ignores(parent.git, full, directory=True)
        if ignored and not repository.tracks(full, directory=True):
            return _IGNORED
        here = self._root / path
        if any(os.path.lexists(here / marker) for marker in rules.MARKERS):
            return _IGNORED
        inside = parent._replace(tracked_only=ignored, fingerprint=b"")
        if os.path.lexists(here / ".git"):
            inside = self._enter_repository(parent, path)
        return self._with_rule_files(inside, path)

    def _enter_repository(self, parent: DirectoryRules, path: str) -> DirectoryRules:
        """Return the rules in a repository below the root, before its own .gitignore is read.

        A `.git` that git cannot use excludes the directory: its intended rules are unknown.
        """
        self._note_repository(self._root / path)
        git_dir = git_directory.at(self._root / path)
        if git_dir is None:
            return _IGNORED
        copy = parent.copy or self._is_copy(git_dir)
        if not self._settings.respect_gitignore:
            return DirectoryRules(False, parent.repository, own=parent.own, copy=copy)
        repository = Repository(git_dir, below=path)
        self._repositories.append(repository)
        if not repository.excludes.usable:
            return _IGNORED
        fingerprint = b"%d:%b" % (len(repository.excludes.fingerprint), repository.excludes.fingerprint)
        return DirectoryRules(False, repository, repository.excludes.chain, parent.own, fingerprint, copy=copy)

    def _is_copy(self, git_dir: GitDir) -> bool:
        """Return whether a working tree is a further one of a repository whose files this folder holds already."""
        if git_dir.dir == git_dir.common:
            return False
        held = {repository.git_dir.common for repository in self._repositories if repository.git_dir}
        return git_dir.common in held or (git_dir.common.name == ".git" and git_dir.common.is_relative_to(self._root))

    def _with_rule_files(self, found: DirectoryRules, path: str) -> DirectoryRules:
        """Return the rules with those of the directory's own ignore files."""
        if found.ignored:
            return _IGNORED
        here = self._root / path
        try:
            git = repositories.read_rule_file(here / ".gitignore") if self._settings.respect_gitignore else b""
            own = repositories.read_rule_file(here / self._settings.ignore_file)
        except OSError:
            return _IGNORED
        fingerprint = b"%d:%b%d:%b" % (len(git), git, len(own), own) if git or own else b""
        return found._replace(
            git=found.repository.prepend(git, found.repository.path(path), found.git),
            own=repositories.prepend(own, path, found.own, fold_case=self._folds_case),
            fingerprint=found.fingerprint + fingerprint,
        )

    def _excludes(self, parent: DirectoryRules, path: str, *, directory: bool) -> bool:
        """Return whether the project's ignore files or files.exclude exclude a path, tracked by git or not."""
        chains = (parent.own, ((b"", self._exclude),))
        return any(
            repositories.matches(chain, path, directory=directory, fold_case=self._folds_case) for chain in chains
        )


def _identity(top: Path) -> object:
    """Return what identifies the repository in a directory, if there is one. Another one has another identity."""
    found = stamp(top / ".git")
    return found and (found[:2], (top / ".git" / "HEAD").exists() if (top / ".git").is_dir() else found)


def well_formed(path: str) -> bool:
    """Return whether a relative path is encodable and has no empty, '.' or '..' part and no other path syntax."""
    if os.sep != "/" and (os.sep in path or ":" in path):
        return False
    if not path.isascii():
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            return False
    return "\0" not in path and not {"", ".", ".."} & set(path.split("/"))


def _exclude_patterns(settings: config.Files, *, fold_case: bool) -> patterns.PatternList:
    name = settings.ignore_file
    if not well_formed(name) or "/" in name:
        raise SettingError(
            f"c2l.files.ignoreFile must be a plain file name, not {name!r}; no file is read until this is corrected."
        )
    parsed = []
    for line in settings.exclude:
        try:
            pattern = patterns.parse(line, fold_case=fold_case)
        except patterns.PatternError as error:
            raise SettingError(
                f"c2l.files.exclude: {line!r} is not a .gitignore pattern; no file is read until this is corrected."
            ) from error
        if pattern is not None:
            parsed.append(pattern)
    return patterns.PatternList(parsed)
