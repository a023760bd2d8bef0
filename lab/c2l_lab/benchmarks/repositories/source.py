"""A repository as a benchmark sees it: its cleaned Python files at a commit and at earlier ones, and what was touched.

Two ways to the same shape: a git repository (with its past), or the files of a built corpus (one moment, no past).
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
"""Commits looked back for files that were touched."""

_MOST_TOUCHED = 60  # Python files; a commit that touches more moved or reformatted the whole


class Source(Protocol):
    """Files of one repository. `commit` names the moment; `ages` are the numbers of commits one can go back."""

    name: str
    commit: str
    gaps: int
    """Comparisons of commits that git could not make because objects are missing."""

    @property
    def ages(self) -> Sequence[int]:
        """Ages there are, 0 first."""
        ...

    def touched(self) -> Iterator[str]:
        """Paths at age 0, the latest touched first; may repeat."""
        ...

    def paths(self) -> list[str]:
        """All Python paths at age 0, in the order of a hash."""
        ...

    def read(self, paths: Sequence[str], age: int) -> dict[str, str]:
        """Cleaned texts of the files that are known under `paths` at age 0, as they were at an age."""
        ...


def rank(path: str) -> bytes:
    """The place of a path in an order that has nothing to do with names."""
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def usable(path: str, raw: bytes | None) -> str | None:
    """The text to keep of a file; None where it is refused."""
    if raw is None or not path.endswith(".py") or filters.skip_reason_by_path(path, len(raw)):
        return None
    text, reason = filters.clean(raw)
    return text if reason is None else None


class Snapshot:
    """A repository of a built corpus: one moment."""

    def __init__(self, name: str, commit: str, texts: Mapping[str, str]) -> None:
        self.name, self.commit = name, commit
        self._texts = dict(texts)
        self.gaps = 0

    @property
    def ages(self) -> Sequence[int]:
        """Only the present."""
        return (0,)

    def touched(self) -> Iterator[str]:
        """Nothing is known to be newer than the rest: the order of the hash."""
        yield from self.paths()

    def paths(self) -> list[str]:
        """All paths, by their hash."""
        return sorted(self._texts, key=rank)

    def read(self, paths: Sequence[str], age: int) -> dict[str, str]:
        """The texts of some paths; `age` must be 0."""
        if age:
            raise CorpusError(f"{self.name} has no past without its git repository; give --mirror.")
        return {path: self._texts[path] for path in paths if path in self._texts}


class History:
    """A git repository up to a commit, following its first parents and renames."""

    def __init__(self, name: str, folder: Path, commit: str, ages: Sequence[int]) -> None:
        self.name, self.commit, self._root = name, commit, folder
        line = git_history.first_parent_commits(folder, max(max(ages), WALK) + 1, until=commit)
        self._line = [one.sha for one in reversed(line)]  # the present first
        self._ages = tuple(age for age in ages if age < len(self._line))
        self._tree = {path: blob for path, blob in git_history.tree(folder, commit).items() if path.endswith(".py")}
        self._old: dict[int, dict[str, str]] = {}
        self.gaps = 0

    @property
    def ages(self) -> Sequence[int]:
        """The wanted ages that the history is long enough for."""
        return self._ages

    def touched(self) -> Iterator[str]:
        """Paths changed by the latest commits of the main line; sweeping changes are left out."""
        names = {path: path for path in self._tree}  # name at that time → name now
        for new, old in zip(self._line[:WALK], [*self._line[1:], None], strict=False):
            changes = [c for c in self._changed(old, new) if (c.path or c.old_path or "").endswith(".py")]
            if len(changes) <= _MOST_TOUCHED:
                yield from sorted({names[c.path] for c in changes if c.path in names}, key=rank)
            for change in changes:
                if change.kind == "renamed" and change.path in names and change.old_path:
                    names[change.old_path] = names.pop(change.path)

    def paths(self) -> list[str]:
        """All Python paths of the commit, by their hash."""
        return sorted(self._tree, key=rank)

    def read(self, paths: Sequence[str], age: int) -> dict[str, str]:
        """Texts at an age under today's paths: a file that had another name then is the same file."""
        blobs = {path: blob for path, blob in self._at(age).items() if path in set(paths)}
        wanted = sorted(set(blobs.values()))
        raw = dict(git_history.blobs(self._root, wanted))
        texts = {path: usable(path, raw.get(blob)) for path, blob in sorted(blobs.items())}
        return {path: text for path, text in texts.items() if text is not None}

    def _changed(self, old: str | None, new: str) -> list[git_history.Change]:
        """What differs between two commits; nothing where objects are missing (a partial clone)."""
        try:
            return git_history.changed_files(self._root, old, new)
        except GitError:
            self.gaps += 1
            return []

    def _at(self, age: int) -> dict[str, str]:
        """Today's path → blob at an age."""
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
    """The repository's history where `mirror` has it, else its corpus files; None if git can't read it."""
    if mirror is None:
        return Snapshot(name, commit, texts)
    try:
        folder = git_folder(name, mirror)
        return History(name, folder, commit, ages)
    except (GitError, SourceProblem):
        return None
