"""The ignore rules of one folder.

Sources: .gitignore files at every level, git's own exclude files, the project's ignore file (files.ignoreFile),
the setting files.exclude, and the names that are always ignored. Ignore files are read once and cached per directory.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import NamedTuple, TypeAlias

from c2l_lsp import config, regular_files
from c2l_lsp.errors import GitError, SettingError
from c2l_lsp.repo.filter import patterns, rules
from c2l_lsp.repo.git import git_config, git_directory

_RULE_FILE_LIMIT = 1 << 20
_MAX_CACHED_DIRECTORIES = 100_000

Chain: TypeAlias = "tuple[tuple[bytes, patterns.PatternList], ...]"
"""(directory relative to the repository's top, patterns of its file) pairs, from the deepest directory up."""

_FOLDS_CASE = sys.platform in ("win32", "darwin")


class DirectoryRules(NamedTuple):
    """The rules inside one directory. `fingerprint` contains the bytes of the directory's own ignore files."""

    ignored: bool
    git: Chain = ()
    own: Chain = ()
    fingerprint: bytes = b""


_IGNORED = DirectoryRules(ignored=True)


class IgnoreRules:
    """Decides whether a path below `root` (resolved) is ignored. Raises SettingError if a setting is invalid."""

    def __init__(self, root: Path, settings: config.Files) -> None:
        self._root = root
        self._settings = settings
        git_dir = git_directory.find(root) if settings.respect_gitignore else None
        self._prefix = root.relative_to(git_dir.top).as_posix() if git_dir and git_dir.top != root else ""
        git = _read_config(git_dir)
        configured = git.ignore_case if git else None
        self._folds_case = _FOLDS_CASE if configured is None else configured
        self._exclude = _exclude_patterns(settings, fold_case=self._folds_case)
        self._outer = self._rules_outside_root(git_dir, git)
        self._cache: dict[str, DirectoryRules] = {}

    def fingerprint(self) -> bytes:
        """Return bytes that identify the rules for the whole folder, for use in a digest.

        They stay the same from one release to the next for a folder whose rules are the same: its state is kept.
        """
        settings = self._settings
        parts = (rules.VERSION, settings.exclude, settings.respect_gitignore, settings.ignore_file, self._prefix)
        case = b"" if self._folds_case == _FOLDS_CASE else b"%d" % self._folds_case
        return repr(parts).encode() + case + self._outer.fingerprint

    def ignores_file(self, path: str) -> bool:
        """Return whether a file is ignored. `path` is relative to the root and well formed."""
        parent, _, name = path.rpartition("/")
        found = self.directory(parent)
        return found.ignored or rules.is_secret_file(name) or self._is_ignored(found, path, directory=False)

    def directory(self, path: str) -> DirectoryRules:
        """Return the rules inside a directory. Descends iteratively from the deepest cached parent."""
        missing = []
        while (known := self._cache.get(path)) is None and path:
            missing.append(path)
            path = path.rpartition("/")[0]
        if known is None:
            known = self._cache[""] = self._descend(self._outer, "")
        if len(self._cache) > _MAX_CACHED_DIRECTORIES:
            self._cache = {"": self._cache[""]}
        for below in reversed(missing):
            known = self._cache[below] = self._descend(known, below)
        return known

    def _descend(self, parent: DirectoryRules, path: str) -> DirectoryRules:
        if parent.ignored:
            return _IGNORED
        here = self._root / path
        if path and (rules.is_ignored_directory(path) or self._is_ignored(parent, path, directory=True)):
            return _IGNORED
        if path and any(os.path.lexists(here / marker) for marker in rules.MARKERS):
            return _IGNORED
        full = f"{self._prefix}/{path}".strip("/")
        try:
            git = _read_rule_file(here / ".gitignore") if self._settings.respect_gitignore else b""
            own = _read_rule_file(here / self._settings.ignore_file)
        except OSError:
            return _IGNORED
        return DirectoryRules(
            ignored=False,
            git=self._prepend(git, full, parent.git),
            own=self._prepend(own, full, parent.own),
            fingerprint=b"%d:%b%d:%b" % (len(git), git, len(own), own) if git or own else b"",
        )

    def _rules_outside_root(
        self, git_dir: git_directory.GitDir | None, git: git_config.IgnoreConfig | None
    ) -> DirectoryRules:
        """Return the rules for the root from git's own exclude files and the directories above the root."""
        if git_dir is None or git is None:
            return _IGNORED if git_dir else DirectoryRules(ignored=False)
        git_files = [path for path in (git.excludes_file, git_dir.common / "info" / "exclude") if path]
        parts = self._prefix.split("/") if self._prefix else []
        above = ["/".join(parts[:n]) for n in range(len(parts))]
        sources = [(path, "", True) for path in git_files]
        sources += [(git_dir.top / base / ".gitignore", base, False) for base in above]
        found = DirectoryRules(ignored=False)
        try:
            for path, base, follow_link in sources:
                data = _read_rule_file(path, follow_link=follow_link)
                chain = self._prepend(data, base, found.git)
                found = DirectoryRules(ignored=False, git=chain, fingerprint=found.fingerprint + data + b"\0")
        except OSError:
            return _IGNORED
        parents = (*above[1:], *([self._prefix] if parts else []))
        if any(self._matches(found.git, full, directory=True) for full in parents):
            return _IGNORED
        return found

    def _is_ignored(self, parent: DirectoryRules, path: str, *, directory: bool) -> bool:
        full = f"{self._prefix}/{path}" if self._prefix else path
        chains = (parent.git, parent.own, ((os.fsencode(self._prefix), self._exclude),))
        return any(self._matches(chain, full, directory=directory) for chain in chains)

    def _matches(self, chain: Chain, full: str, *, directory: bool) -> bool:
        path = os.fsencode(full)
        if self._folds_case:
            path = path.lower()
        for base, found in chain:
            ignored = found.last_match(path[len(base) + 1 :] if base else path, directory=directory)
            if ignored is not None:
                return ignored
        return False

    def _prepend(self, data: bytes, base: str, chain: Chain) -> Chain:
        if not data:
            return chain
        return ((os.fsencode(base), patterns.PatternList.from_file(data, fold_case=self._folds_case)), *chain)


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


def _read_config(git_dir: git_directory.GitDir | None) -> git_config.IgnoreConfig | None:
    """Return None if git refuses its configuration: the intended rules are unknown, so nothing may be read."""
    try:
        return git_config.read(git_dir.top) if git_dir else git_config.IgnoreConfig(None, None)
    except GitError:
        return None


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


def _read_rule_file(path: Path, *, follow_link: bool = False) -> bytes:
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
