"""The source of a case: the cleaned Python files of a repository at a commit and at earlier ones.

Two classes implement it: `History` for a git repository, and `Snapshot` for the files of a corpus, without history.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from c2l_lab.corpus import filters
from c2l_lab.corpus.sources import SourceProblem, git_folder
from c2l_lsp.errors import CorpusError, GitError
from c2l_lsp.repo.history import git_history

WALK = 100
"""Commits that are searched for changed files."""

_MAX_CHANGED = 60  # Python files; a commit that changes more is a move or a reformatting


class Source(Protocol):
    """The files of one repository at `commit`, and at each of `ages` commits before it."""

    name: str
    commit: str
    gaps: int
    """Pairs of commits that git could not compare because objects are missing."""

    @property
    def ages(self) -> Sequence[int]:
        """The available ages in commits, 0 first."""
        ...

    def touched(self) -> Iterator[str]:
        """Paths at age 0, the most recently changed first, perhaps repeated."""
        ...

    def paths(self) -> list[str]:
        """All Python paths at age 0, ordered by a hash."""
        ...

    def read(self, paths: Sequence[str], age: int) -> dict[str, str]:
        """The cleaned texts at an age of the files whose paths at age 0 are `paths`."""
        ...


def rank(path: str) -> bytes:
    """A sort key of a path that is independent of its name."""
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def usable(path: str, raw: bytes | None) -> str | None:
    """The cleaned text of a file; None if the corpus filters reject it."""
    if raw is None or not path.endswith(".py") or filters.skip_reason_by_path(path, len(raw)):
        return None
    text, reason = filters.clean(raw)
    return text if reason is None else None


class Snapshot:
    """A repository in a corpus, without history."""

    def __init__(self, name: str, commit: str, texts: Mapping[str, str]) -> None:
        self.name, self.commit = name, commit
        self._texts = dict(texts)
        self.gaps = 0

    @property
    def ages(self) -> Sequence[int]:
        """Only age 0."""
        return (0,)

    def touched(self) -> Iterator[str]:
        """All paths, since change dates are unknown."""
        yield from self.paths()

    def paths(self) -> list[str]:
        """All paths, ordered by a hash."""
        return sorted(self._texts, key=rank)

    def read(self, paths: Sequence[str], age: int) -> dict[str, str]:
        """The texts of some paths. CorpusError for an age other than 0."""
        if age:
            raise CorpusError(f"{self.name} has no history without its git repository: pass --mirror.")
        return {path: self._texts[path] for path in paths if path in self._texts}


class History:
    """A git repository up to a commit, along first parents, with renames."""

    def __init__(self, name: str, folder: Path, commit: str, ages: Sequence[int]) -> None:
        self.name, self.commit, self._root = name, commit, folder
        line = git_history.first_parent_commits(folder, max(max(ages), WALK) + 1, until=commit)
        self._line = [one.sha for one in reversed(line)]  # the commit itself first
        self._ages = tuple(age for age in ages if age < len(self._line))
        self._tree = {path: blob for path, blob in git_history.tree(folder, commit).items() if path.endswith(".py")}
        self._old: dict[int, dict[str, str]] = {}
        self.gaps = 0

    @property
    def ages(self) -> Sequence[int]:
        """The requested ages that the history is long enough for."""
        return self._ages

    def touched(self) -> Iterator[str]:
        """Paths changed by the latest first-parent commits, without commits that change very many files."""
        names = {path: path for path in self._tree}  # name at that time → name now
        for new, old in zip(self._line[:WALK], [*self._line[1:], None], strict=False):
            changes = [c for c in self._changed(old, new) if (c.path or c.old_path or "").endswith(".py")]
            if len(changes) <= _MAX_CHANGED:
                yield from sorted({names[c.path] for c in changes if c.path in names}, key=rank)
            for change in changes:
                if change.kind == "renamed" and change.path in names and change.old_path:
                    names[change.old_path] = names.pop(change.path)

    def paths(self) -> list[str]:
        """All Python paths of the commit, ordered by a hash."""
        return sorted(self._tree, key=rank)

    def read(self, paths: Sequence[str], age: int) -> dict[str, str]:
        """Texts at an age under the paths of age 0; renames are followed."""
        blobs = {path: blob for path, blob in self._at(age).items() if path in set(paths)}
        wanted = sorted(set(blobs.values()))
        raw = dict(git_history.blobs(self._root, wanted))
        texts = {path: usable(path, raw.get(blob)) for path, blob in sorted(blobs.items())}
        return {path: text for path, text in texts.items() if text is not None}

    def _changed(self, old: str | None, new: str) -> list[git_history.Change]:
        """The changes between two commits; none if objects are missing (a partial clone)."""
        try:
            return git_history.changed_files(self._root, old, new)
        except GitError:
            self.gaps += 1
            return []

    def _at(self, age: int) -> dict[str, str]:
        """Path at age 0 → blob at an age."""
        if age == 0:
            return self._tree
        if age not in self._old:
            sha = self._line[age]
            then = git_history.tree(self._root, sha)
            now = {path: path for path in then if path.endswith(".py")}
            for change in self._changed(sha, self.commit):
                if change.kind == "renamed" and change.old_path in now and change.path:
                    now[change.old_path] = change.path
            self._old[age] = {today: then[path] for path, today in now.items()}
        return self._old[age]


def open_source(
    name: str, commit: str, texts: Mapping[str, str], mirror: Path | None, ages: Sequence[int]
) -> Source | None:
    """The git history from `mirror`, or without `mirror` the corpus files; None if git cannot read the repository."""
    if mirror is None:
        return Snapshot(name, commit, texts)
    try:
        folder = git_folder(name, mirror)
        return History(name, folder, commit, ages)
    except (GitError, SourceProblem):
        return None
