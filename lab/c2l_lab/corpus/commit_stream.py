"""Converting a git history to the lines of a commit stream (format: see `commits`)."""

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
class StreamCounts:
    """The size of a stream: commits, file changes, bytes of text, and skipped files by reason."""

    commits: int = 0
    changes: int = 0
    bytes: int = 0
    skips: Counter[str] = field(default_factory=Counter)


class Tree:
    """The text id of every path at one commit. The writer and the reader of a stream keep one each.

    Ids are counted, so that a text which no path uses any more can be dropped.
    """

    def __init__(self) -> None:
        self.paths: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def __contains__(self, identity: str) -> bool:
        return self._counts[identity] > 0

    def apply(self, changes: Iterable[Sequence[str | None]]) -> None:
        """Apply the changes [old_path, path, old_id, new_id] of a commit, deletions first."""
        listed = list(changes)
        for old_path, _, old, _ in listed:
            if old_path is not None and old is not None:
                del self.paths[old_path]
                self._counts[old] -= 1
        for _, path, _, new in listed:
            if path is not None and new is not None:
                self.paths[path] = new
                self._counts[new] += 1


def locate_repository(name: str, mirror: Path) -> Path:
    """Return the git directory of a list entry.

    Raises SourceProblem or GitError if there is none, or if git finds one only in a parent directory.
    """
    folder = git_folder(name, mirror)
    if folder.is_file():
        return folder.parent  # a linked worktree or a submodule
    found = Path(git_process.run(folder, "rev-parse", "--absolute-git-dir").decode().strip())
    if found.resolve() != folder.resolve():
        raise SourceProblem("broken git folder")
    return folder


def licence_of(folder: Path, files: Mapping[str, str]) -> str:
    """Return the licence stated in the files of a commit (path → blob), or "unknown"."""
    stating = [path for path in files if licence.is_licence_file(path) or licence.is_metadata_file(path)][:20]
    found = zip(stating, git_history.blobs(folder, [files[path] for path in stating]), strict=True)
    return licence.detect({path: (data or b"").decode("utf-8", "replace") for path, (_, data) in found})


def stream_lines(folder: Path, counts: StreamCounts, most_commits: int, most_bytes: int) -> Iterator[dict[str, Any]]:
    """Yield the lines of a stream of the newest `most_commits`, up to `most_bytes` of text. Updates `counts`."""
    tree = Tree()
    before: str | None = None
    for commit in git_history.first_parent_commits(folder, most_commits):
        changes = [c for c in git_history.changed_files(folder, before, commit.sha) if _is_python(c)]
        before = commit.sha
        entries, added = _changes(folder, changes, tree, counts.skips)
        if not entries:
            continue
        new = {identity: text for identity, text in added.items() if identity not in tree}
        size = sum(len(text.encode()) for text in new.values())
        if counts.bytes + size > most_bytes:
            counts.skips["history cut at its share of bytes"] += 1
            break
        yield from ({"text": [identity, text]} for identity, text in new.items())
        yield {"commit": {"sha": commit.sha, "time": commit.time, "changes": entries}}
        tree.apply(entries)
        counts.commits, counts.changes, counts.bytes = (
            counts.commits + 1,
            counts.changes + len(entries),
            counts.bytes + size,
        )


def _is_python(change: git_history.Change) -> bool:
    return any(path is not None and path.endswith(".py") for path in (change.old_path, change.path))


def _changes(
    folder: Path, changes: Sequence[git_history.Change], tree: Tree, skips: Counter[str]
) -> tuple[list[list[str | None]], dict[str, str]]:
    """Return the changes of a commit as [old_path, path, old_id, new_id], and its new texts by id."""
    present = [c for c in changes if c.new_blob is not None and c.path is not None and c.path.endswith(".py")]
    found = git_history.blobs(folder, [str(change.new_blob) for change in present])
    texts = {str(c.path): _clean_text(str(c.path), data, skips) for c, (_, data) in zip(present, found, strict=True)}
    entries: list[list[str | None]] = []
    added: dict[str, str] = {}
    for change in changes:
        old = tree.paths.get(change.old_path) if change.old_path is not None else None
        text = texts.get(change.path) if change.path is not None else None
        new = hashlib.sha256(text.encode()).hexdigest()[:16] if text is not None else None
        if old is None and new is None:
            continue  # the filters refuse both versions
        if old == new and change.old_path == change.path:
            continue  # only text removed by the filters has changed
        entries.append([change.old_path if old else None, change.path if new else None, old, new])
        if new is not None and text is not None:
            added[new] = text
    return entries, added


def _clean_text(path: str, data: bytes | None, skips: Counter[str]) -> str | None:
    if data is None:
        skips["missing or over 2 MB"] += 1
        return None
    reason = filters.skip_reason_by_path(path, len(data))
    text = ""
    if reason is None:
        text, reason = filters.clean(data)
    if reason is not None:
        skips[reason] += 1
        return None
    return text
