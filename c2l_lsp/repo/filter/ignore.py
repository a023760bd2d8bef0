"""The ignore rules of one folder: .gitignore files at every level, git's own exclude files, the project's ignore file,
the setting, and the names that are always off. Reads ignore files once and keeps what holds in each directory.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple, TypeAlias

from c2l_lsp import config
from c2l_lsp.errors import SettingError
from c2l_lsp.repo.filter import reading, rules
from c2l_lsp.repo.git import git_config, git_directory

_RULE_FILE_LIMIT = 1 << 20
_FOLDERS_KEPT = 100_000

Chain: TypeAlias = "tuple[tuple[str, tuple[rules.Rule, ...]], ...]"
"""Rule files from the deepest directory up, each with the directory (from the repository's top) it stands in."""


class Folder(NamedTuple):
    """What holds inside one directory. `stamp` is the content of the rule files in it."""

    off: bool
    git: Chain = ()
    own: Chain = ()
    stamp: bytes = b""


_OFF = Folder(off=True)


class IgnoreRules:
    """Whether a path below `root` (resolved) is left out. Raises SettingError when a setting cannot be understood."""

    def __init__(self, root: Path, settings: config.Files) -> None:
        self._root = root
        self._settings = settings
        self._exclude = _exclude_rules(settings)
        place = git_directory.find(root) if settings.respect_gitignore else None
        self._prefix = root.relative_to(place.top).as_posix() if place and place.top != root else ""
        self._top = self._outside(place)
        self._folders: dict[str, Folder] = {}

    def stamp(self) -> bytes:
        """All that holds for the whole folder, for a digest."""
        settings = self._settings
        parts = (rules.VERSION, settings.exclude, settings.respect_gitignore, settings.ignore_file, self._prefix)
        return repr(parts).encode() + self._top.stamp

    def ignores_file(self, path: str) -> bool:
        """Whether a file is left out. `path` is relative to the root and well formed."""
        parent, _, name = path.rpartition("/")
        folder = self.folder(parent)
        return folder.off or rules.is_secret_file(name) or self._ignored(folder, path, directory=False)

    def folder(self, path: str) -> Folder:
        """What holds in a directory. Goes down from the deepest known parent, without recursion."""
        missing = []
        while (known := self._folders.get(path)) is None and path:
            missing.append(path)
            path = path.rpartition("/")[0]
        if known is None:
            known = self._folders[""] = self._enter(self._top, "")
        if len(self._folders) > _FOLDERS_KEPT:
            self._folders = {"": self._folders[""]}
        for below in reversed(missing):
            known = self._folders[below] = self._enter(known, below)
        return known

    def _enter(self, parent: Folder, path: str) -> Folder:
        if parent.off:
            return _OFF
        here = self._root / path
        if path and (rules.is_ignored_directory(path) or self._ignored(parent, path, directory=True)):
            return _OFF
        if path and any(os.path.lexists(here / marker) for marker in rules.MARKERS):
            return _OFF
        full = f"{self._prefix}/{path}".strip("/")
        try:
            git = _rule_file(here / ".gitignore") if self._settings.respect_gitignore else b""
            own = _rule_file(here / self._settings.ignore_file)
        except OSError:
            return _OFF
        return Folder(
            off=False,
            git=_with(git, full, parent.git),
            own=_with(own, full, parent.own),
            stamp=b"%d:%b%d:%b" % (len(git), git, len(own), own) if git or own else b"",
        )

    def _outside(self, place: git_directory.GitDir | None) -> Folder:
        """What git's own files and the directories above the root say about the root."""
        if place is None:
            return Folder(off=False)
        own = [path for path in (git_config.global_excludes(), place.common / "info" / "exclude") if path]
        parts = self._prefix.split("/") if self._prefix else []
        above = ["/".join(parts[:n]) for n in range(len(parts))]
        sources = [(path, "", True) for path in own]
        sources += [(place.top / base / ".gitignore", base, False) for base in above]
        folder = Folder(off=False)
        try:
            for path, base, linked in sources:
                data = _rule_file(path, linked=linked)
                folder = Folder(off=False, git=_with(data, base, folder.git), stamp=folder.stamp + data + b"\0")
        except OSError:
            return _OFF
        if any(_decide(folder.git, full, directory=True) for full in (*above[1:], *([self._prefix] if parts else []))):
            return _OFF
        return folder

    def _ignored(self, folder: Folder, path: str, *, directory: bool) -> bool:
        full = f"{self._prefix}/{path}" if self._prefix else path
        chains = (folder.git, folder.own, ((self._prefix, self._exclude),))
        return any(_decide(chain, full, directory=directory) for chain in chains)


def well_formed(path: str) -> bool:
    """Whether a relative path is plain: no way up, nothing empty, encodable, nothing special to the platform."""
    if os.sep != "/" and (os.sep in path or ":" in path):
        return False
    if not path.isascii():
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            return False
    return "\0" not in path and not {"", ".", ".."} & set(path.split("/"))


def _exclude_rules(settings: config.Files) -> tuple[rules.Rule, ...]:
    name = settings.ignore_file
    if not well_formed(name) or "/" in name:
        raise SettingError(f"c2l.files.ignoreFile must be a plain file name, not {name!r}; no file is read until then.")
    parsed = []
    for pattern in settings.exclude:
        try:
            rule = rules.parse(pattern)
        except rules.PatternError as error:
            raise SettingError(
                f"c2l.files.exclude: {pattern!r} is not a .gitignore pattern; no file is read until it is corrected."
            ) from error
        if rule is not None:
            parsed.append(rule)
    return tuple(parsed)


def _decide(chain: Chain, full: str, *, directory: bool) -> bool:
    for base, level in chain:
        found = rules.last_match(level, full[len(base) + 1 :] if base else full, directory=directory)
        if found is not None:
            return found
    return False


def _with(data: bytes, base: str, chain: Chain) -> Chain:
    if not data:
        return chain
    lines = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").split("\n")
    return ((base, rules.parse_all(lines)), *chain)


def _rule_file(path: Path, *, linked: bool = False) -> bytes:
    """An ignore file's content, empty when there is none. Raises OSError when there is one that cannot be used.

    A link is followed only where it is `linked`, the user's own files: one in the folder may lead anywhere, and git
    does not take its rules. What it was meant to leave out is not known then.
    """
    try:
        before = path.stat() if linked else path.lstat()  # asked before opening too: that of a device can do things
        if stat.S_ISDIR(before.st_mode):
            return b""
        _require_usable(before)
        descriptor = os.open(path, reading.FLAGS if linked else reading.FLAGS | reading.NO_FOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    try:
        _require_usable(os.fstat(descriptor))
        return reading.read_up_to(descriptor, _RULE_FILE_LIMIT)
    finally:
        os.close(descriptor)


def _require_usable(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_size > _RULE_FILE_LIMIT:
        raise OSError(errno.EFBIG, "not a usable ignore file")
