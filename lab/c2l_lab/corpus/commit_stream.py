"""From a git history to the lines of a commit stream (see `commits`), and the tree that both of its ends keep."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from c2l_lab.corpus import filters, licence
from c2l_lab.corpus.sources import SourceProblem, git_folder
from c2l_lsp.repo.git import git_process
from c2l_lsp.repo.history import git_history


@dataclass
class Tally:
    """What went into a stream: commits that change a kept file, their changes, bytes of text, files left out."""

    commits: int = 0
    changes: int = 0
    bytes: int = 0
    skips: Counter[str] = field(default_factory=Counter)


class Tree:
    """Which content stands under which path; contents are counted, so that what stands nowhere can be forgotten."""

    def __init__(self) -> None:
        self.paths: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def __contains__(self, identity: str) -> bool:
        return self._counts[identity] > 0

    def apply(self, changes: Iterable[Sequence[str | None]]) -> None:
        """Take in a commit's [old_path, path, old_id, new_id]; all that goes goes before what comes."""
        listed = list(changes)
        for old_path, _, old, _ in listed:
            if old_path is not None and old is not None:
                del self.paths[old_path]
                self._counts[old] -= 1
        for _, path, _, new in listed:
            if path is not None and new is not None:
                self.paths[path] = new
                self._counts[new] += 1


def git_of(name: str, mirror: Path) -> Path:
    """The folder to ask git in. SourceProblem or GitError if git finds nothing there, or a repository further up."""
    folder = git_folder(name, mirror)
    if folder.is_file():
        return folder.parent  # a linked worktree or a submodule
    found = Path(git_process.run(folder, "rev-parse", "--absolute-git-dir").decode().strip())
    if found.resolve() != folder.resolve():
        raise SourceProblem("broken git folder")
    return folder


def licence_of(folder: Path, files: Mapping[str, str]) -> str:
    """The licence that a commit's files (path → blob) state; "unknown" if none."""
    stating = [path for path in files if licence.is_licence_file(path) or licence.is_metadata_file(path)][:20]
    found = zip(stating, git_history.blobs(folder, [files[path] for path in stating]), strict=True)
    return licence.detect({path: (data or b"").decode("utf-8", "replace") for path, (_, data) in found})


def lines_of(folder: Path, tally: Tally, most_commits: int, most_bytes: int) -> Iterator[dict[str, Any]]:
    """The lines of a stream: a repository's newest `most_commits`, up to `most_bytes` of text. Counts into `tally`."""
    tree = Tree()
    before: str | None = None
    for commit in git_history.first_parent_commits(folder, most_commits):
        changes = [c for c in git_history.changed_files(folder, before, commit.sha) if _is_python(c)]
        before = commit.sha
        made, brought = _changes(folder, changes, tree, tally.skips)
        if not made:
            continue
        new = {identity: text for identity, text in brought.items() if identity not in tree}
        size = sum(len(text.encode()) for text in new.values())
        if tally.bytes + size > most_bytes:
            tally.skips["history cut at its share of bytes"] += 1
            break
        yield from ({"text": [identity, text]} for identity, text in new.items())
        yield {"commit": {"sha": commit.sha, "time": commit.time, "changes": made}}
        tree.apply(made)
        tally.commits, tally.changes, tally.bytes = tally.commits + 1, tally.changes + len(made), tally.bytes + size


def _is_python(change: git_history.Change) -> bool:
    return any(path is not None and path.endswith(".py") for path in (change.old_path, change.path))


def _changes(
    folder: Path, changes: Sequence[git_history.Change], tree: Tree, skips: Counter[str]
) -> tuple[list[list[str | None]], dict[str, str]]:
    """A commit's changes as [old_path, path, old_id, new_id], and the texts that it brings by id."""
    coming = [c for c in changes if c.new_blob is not None and c.path is not None and c.path.endswith(".py")]
    found = git_history.blobs(folder, [str(change.new_blob) for change in coming])
    texts = {str(c.path): _kept(str(c.path), data, skips) for c, (_, data) in zip(coming, found, strict=True)}
    made: list[list[str | None]] = []
    brought: dict[str, str] = {}
    for change in changes:
        old = tree.paths.get(change.old_path) if change.old_path is not None else None
        text = texts.get(change.path) if change.path is not None else None
        new = hashlib.sha256(text.encode()).hexdigest()[:16] if text is not None else None
        if old is None and new is None:
            continue  # refused before and after
        if old == new and change.old_path == change.path:
            continue  # only what the filters take off has changed
        made.append([change.old_path if old else None, change.path if new else None, old, new])
        if new is not None and text is not None:
            brought[new] = text
    return made, brought


def _kept(path: str, data: bytes | None, skips: Counter[str]) -> str | None:
    if data is None:
        skips["missing or over 2 MB"] += 1
        return None
    reason = filters.refuse_path(path, len(data))
    text = ""
    if reason is None:
        text, reason = filters.clean(data)
    if reason is not None:
        skips[reason] += 1
        return None
    return text
