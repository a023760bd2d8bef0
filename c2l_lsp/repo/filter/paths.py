"""The path rules of the file filter: which files of a folder may be read. Opens ignore files only.

It fails closed: what cannot be judged (an unreadable ignore file, a malformed name) is excluded. No link is followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from c2l_lsp import config, regular_files
from c2l_lsp.errors import FolderError
from c2l_lsp.languages import LANGUAGE_SUFFIXES
from c2l_lsp.repo.filter import rules
from c2l_lsp.repo.filter.ignore import IgnoreRules, well_formed

_F = TypeVar("_F", bound="PathFilter")
_WAIT_S = 0.005  # a step of waiting for git


class PathFilter:
    """The rules of one folder. Paths are relative to the root, with '/'.

    Ignore files are read once. When one changes (`affects_rules`), the caller makes a new filter with `reloaded`.
    Unknown languages in files.languages are skipped; the settings report them. Raises FolderError if `root` is not a
    directory, and SettingError if files.exclude or files.ignoreFile is invalid: without them no file may be read.
    """

    def __init__(self, root: Path, settings: config.Files) -> None:
        try:
            self.root = root.resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise FolderError(f"{root} cannot be opened: {error}.") from error
        if not self.root.is_dir():
            raise FolderError(f"{root} is not a folder.")
        self._settings = settings
        self._limit = settings.max_size_kb * 1024
        suffixes = {suffix for language in settings.languages for suffix in LANGUAGE_SUFFIXES.get(language, ())}
        self._suffixes = tuple(sorted(suffixes))
        self._ignores = IgnoreRules(self.root, settings)
        self._digest: str | None = None

    def reloaded(self: _F) -> _F:
        """Return a filter with the same settings and the present ignore files. Raises as the constructor does."""
        return type(self)(self.root, self._settings)

    # --- path rules ------------------------------------------------------------------------------------------------

    def includes(self, path: str) -> bool:
        """Return whether a file has a suffix of the chosen languages, is not ignored, and is no copy.

        The files of a linked worktree below the root are copies: those of the repository are read already.
        """
        return path.lower().endswith(self._suffixes) and not self.is_ignored(path) and not self._is_copy(path)

    def is_ignored(self, path: str) -> bool:
        """Return whether the ignore rules exclude a file. Its language does not matter."""
        return not well_formed(path) or self._ignores.ignores_file(path)

    def _is_copy(self, path: str) -> bool:
        return self._ignores.directory(path.rpartition("/")[0]).copy

    def includes_directory(self, path: str) -> bool:
        """Return whether files below a directory ("" is the root) can be included. If not, it needs no watch."""
        if path == "":
            return True
        if not well_formed(path):
            return False
        found = self._ignores.directory(path)
        return not found.ignored and not found.copy

    def affects_rules(self, path: str) -> bool:
        """Return whether a change of this path can change the rules, so that the filter must be reloaded."""
        name = path.rpartition("/")[2]
        return name in (".gitignore", ".git", self._settings.ignore_file) or name in rules.MARKERS

    def outdated(self) -> bool:
        """Return whether a change of git's configuration, exclude files or indexes makes other rules; then reload it.

        No event of the folder tells so. Blocks while git lists an index that changed.
        """
        return self._ignores.outdated()

    @property
    def digest(self) -> str:
        """The digest of all rules, with the contents of the ignore files.

        A complete walk computes it as well; without one, the first access walks the folder.
        """
        if self._digest is None:
            for _ in self.walk_in_steps():
                pass
        if self._digest is None:  # pragma: no cover - walk_in_steps() always sets it
            raise FolderError(f"{self.root} could not be walked.")
        return self._digest

    # --- walking ---------------------------------------------------------------------------------------------------

    def walk(self) -> Iterator[str]:
        """Yield the included files, sorted, without following links. A directory that cannot be listed is skipped."""
        return (path for path in self.walk_in_steps() if path is not None)

    def survey_in_steps(self) -> Iterator[None]:
        """Read the rules of all directories, a step for each. `includes_directory` then answers at once.

        Of hundreds of repositories inside the folder, each has rules of its own.
        """
        for _ in self.walk_in_steps(directories_only=True):
            yield None

    def walk_in_steps(self, start: str = "", *, directories_only: bool = False) -> Iterator[str | None]:
        """As `walk`, below `start`; also yield None for each directory, so that the caller can limit its time."""
        yield from self._find_repositories(start)
        digest = blake2b(self._fingerprint(), digest_size=16)
        usable = self.includes_directory(start) and not (start and regular_files.passes_through_link(self.root, start))
        pending = [iter((start,))] if usable else []
        while pending:
            path = next(pending[-1], None)
            if path is None:
                pending.pop()
            elif path == start or path.endswith("/"):
                directory = path.rstrip("/")
                found = self._ignores.directory(directory)
                if not found.ignored and not found.copy:
                    yield None
                    yield from self._wait_for_git()
                    if found.fingerprint:
                        digest.update(b"%d:%b%b" % (len(directory), directory.encode(), found.fingerprint))
                    pending.append(iter(self._list_directory(directory)))
            elif not directories_only and self.includes(path):
                yield path
        if start == "":
            self._digest = digest.hexdigest()

    def _find_repositories(self, start: str) -> Iterator[None]:
        """Wait for what git tracks around a directory. Only then is it decided whether a directory is ignored."""
        yield from self._wait_for_git()
        for end, char in enumerate(start):
            if char == "/":
                self._ignores.directory(start[:end])
                yield from self._wait_for_git()

    def _wait_for_git(self) -> Iterator[None]:
        while not self._ignores.wait(_WAIT_S):
            yield None

    def _list_directory(self, directory: str) -> list[str]:
        """Return the sorted paths of the regular files and, with a '/' at the end, of the subdirectories."""
        prefix = f"{directory}/" if directory else ""
        found = []
        try:
            with os.scandir(self.root / directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False) and not getattr(entry, "is_junction", bool)():
                        found.append(f"{prefix}{entry.name}/")
                    elif entry.is_file(follow_symlinks=False):
                        found.append(prefix + entry.name)
        except OSError:
            return []
        return sorted(path for path in found if well_formed(path.rstrip("/")))

    def has_exact_name(self, path: str) -> bool:
        """Return whether the directory lists a file with exactly this name, case included."""
        return path in self._list_directory(path.rpartition("/")[0])

    def _fingerprint(self) -> bytes:
        return repr((self._limit, self._suffixes)).encode() + self._ignores.fingerprint()
