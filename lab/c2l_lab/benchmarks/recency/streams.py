"""Commit streams for the recent memory: the tracked files of a repository at each of its last commits.

A batch is one first-parent commit. The files that the commits change come first, then others, up to a size. A commit
that changes very many files (a move or a reformatting) ends the stream towards the past.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from c2l_lab.corpus import licence
from c2l_lab.corpus.commit_stream import licence_of, locate_repository
from c2l_lab.corpus.sources import SourceProblem
from c2l_lab.repositories.source import rank, usable
from c2l_lsp.errors import GitError
from c2l_lsp.repo.history import git_history

MAX_COMMITS = 300
"""First-parent commits that are searched for changes of Python files."""

MAX_CHANGED = 40
"""Python files; a commit that changes more ends the stream."""

_MAX_FILE = 20_000  # characters; only the first lines of a longer file are used


@dataclass(frozen=True)
class Sizes:
    """`commits`: batches of a stream, and one more that is only scored. `chars`: text of the first state."""

    commits: int = 24
    least_commits: int = 8
    chars: int = 64_000
    changed_chars: int = 40_000


@dataclass(frozen=True)
class Snapshot:
    """The tracked files at a commit; `time` in seconds since 1970."""

    time: int
    texts: Mapping[str, str]


@dataclass(frozen=True)
class Hunk:
    """Lines that a commit adds to a file, and the text of the new file before them."""

    before: str
    added: str


def read_stream(name: str, mirror: Path, sizes: Sizes) -> list[Snapshot] | str:
    """Snapshots of a repository's last commits, oldest first, or the reason why there are none."""
    try:
        root = locate_repository(name, mirror)
        head = git_history.head_commit(root) or ""
        stated = licence_of(root, git_history.tree(root, head))
        if stated not in licence.PERMISSIVE:
            return f"licence {stated}"
        shas = _python_commits(root, sizes.commits + 2)
        if len(shas) < sizes.least_commits + 2:
            return "too few commits"
        return list(_snapshots(root, shas, sizes))
    except (SourceProblem, GitError) as problem:
        return str(problem)


def hunks(before: Snapshot, after: Snapshot) -> Iterator[Hunk]:
    """The lines that were added between two snapshots, by path order."""
    for path, text in sorted(after.texts.items()):
        old = before.texts.get(path)
        if old == text:
            continue
        lines = text.splitlines(keepends=True)
        old_lines = old.splitlines(keepends=True) if old is not None else []
        for tag, _, _, start, end in difflib.SequenceMatcher(None, old_lines, lines, autojunk=False).get_opcodes():
            added = "".join(lines[start:end])
            if tag in ("insert", "replace") and added.strip():
                yield Hunk("".join(lines[:start]), added)


def _python_commits(root: Path, most: int) -> list[tuple[str, int, list[str]]]:
    """(sha, time, changed Python paths) of the last commits that change Python files, oldest first."""
    commits = git_history.first_parent_commits(root, MAX_COMMITS)
    found: list[tuple[str, int, list[str]]] = []
    for before, after in zip(commits[-2::-1], commits[:0:-1], strict=True):
        try:
            changes = git_history.changed_files(root, before.sha, after.sha)
        except GitError:
            break  # a partial clone lacks older objects
        paths = [c.path or c.old_path or "" for c in changes]
        paths = [path for path in paths if path.endswith(".py")]
        if len(paths) > MAX_CHANGED or len(found) == most:
            break
        if paths:
            found.append((after.sha, after.time, paths))
    return found[::-1]


def _snapshots(root: Path, commits: Sequence[tuple[str, int, list[str]]], sizes: Sizes) -> Iterator[Snapshot]:
    trees = [git_history.tree(root, sha) for sha, _, _ in commits]
    tracked = _tracked(root, trees, [paths for _, _, paths in commits[1:]], sizes)
    read: dict[str, str | None] = {}
    for (_, time, _), tree in zip(commits, trees, strict=True):
        wanted = {path: tree[path] for path in tracked if path in tree}
        new = [blob for blob in dict.fromkeys(wanted.values()) if blob not in read]
        for blob, raw in git_history.blobs(root, new):
            read[blob] = usable("a.py", raw)
        yield Snapshot(time, {path: _clipped(text) for path, blob in wanted.items() if (text := read[blob])})


def _tracked(root: Path, trees: Sequence[Mapping[str, str]], changed: Sequence[list[str]], sizes: Sizes) -> list[str]:
    """Changed paths, the latest first, up to `changed_chars`; then others up to `chars`."""
    recent = list(dict.fromkeys(path for paths in changed[::-1] for path in sorted(paths, key=rank)))
    others = sorted((p for p in trees[0] if p.endswith(".py") and p not in set(recent)), key=rank)[:200]
    tracked: list[str] = []
    total = 0
    for paths, budget in ((recent, sizes.changed_chars), (others, sizes.chars)):
        blobs = {path: next((tree[path] for tree in trees if path in tree), "") for path in paths}
        texts = dict(git_history.blobs(root, [blob for blob in blobs.values() if blob]))
        for path in paths:
            text = usable(path, texts.get(blobs[path]))
            if text is not None and total < budget:
                tracked.append(path)
                total += len(_clipped(text))
    return tracked


def _clipped(text: str) -> str:
    return text if len(text) <= _MAX_FILE else text[: text.rfind("\n", 0, _MAX_FILE) + 1]
