"""Training data of `evo`: a repository's last commits as diff embeddings, and the snapshot before them.

A third of the files that the commits write (chosen by a hash of the path, followed through renames, together with their
near-duplicates) is in no snapshot and no diff. The versions of these files that a commit writes are the targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from c2l_lab.corpus.corpus import Document
from c2l_lab.corpus.dedup import signature
from c2l_lab.corpus.filters import clean
from c2l_lab.corpus.sources import SourceProblem, git_folder
from c2l_lab.train.hypernet.data import NEAR, Make, Repo, Sizes, rank, windows
from c2l_lsp.errors import GitError
from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder, in_diff, in_repository
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.repo.history import git_history

MAX_COMMITS = 200
"""Commits of the main line that are searched for changes of production code."""

_HELD_OUT_SHARE = 1 / 3


@dataclass(frozen=True)
class Step:
    """A change of production code: the commits before and after, and the changed files."""

    before: str
    after: str
    changes: Sequence[git_history.Change]


def stream_maker(model: BaseModel, encoder: EmbeddingEncoder, sizes: Sizes, mirror: Path) -> Make:
    """For `evo`, from git folders under `mirror`; None for a repository that is missing or has too few commits."""

    def make(name: str, documents: list[Document]) -> Repo | None:
        del documents  # they are the present files; history is read from git
        try:
            return _stream(model, encoder, sizes, name, git_folder(name, mirror))
        except (SourceProblem, GitError):
            return None

    return make


def _stream(model: BaseModel, encoder: EmbeddingEncoder, sizes: Sizes, name: str, root: Path) -> Repo | None:
    steps = grouped(root, production_steps(root, MAX_COMMITS), sizes.commits)
    if len(steps) < 2:
        return None
    held = held_out(steps)
    targets = _targets(model, root, steps, held, sizes)
    texts = _without_near_duplicates(
        _texts(root, _snapshot(root, steps[0].before, held, sizes)), [t for _, t, _ in targets]
    )
    rows = [(at, row) for at, _, found in targets for row in found]
    if len(texts) < 2 or not rows:
        return None
    diffs = [
        git_history.diff_text(root, step.before, step.after, is_ignored=lambda path: path in held)[: sizes.diff_chars]
        for step in steps
    ]
    return Repo(
        name,
        encoder.files([text[: sizes.chars] for text in texts]),
        torch.eye(len(texts), dtype=torch.bool),
        torch.tensor([row for _, row in rows], dtype=torch.int32),
        torch.tensor([at for at, _ in rows], dtype=torch.int32),
        encoder.diffs(diffs),
    )


def production_steps(root: Path, most: int) -> list[Step]:
    """The last `most` changes of production files on the main line, oldest first."""
    commits = [commit.sha for commit in git_history.first_parent_commits(root, MAX_COMMITS)]
    found: list[Step] = []
    for before, after in zip(commits[-2::-1], commits[:0:-1], strict=True):
        if len(found) == most:
            break
        changes = git_history.changed_files(root, before, after)
        if any(in_diff(change.path or change.old_path or "") for change in changes):
            found.append(Step(before, after, changes))
    return found[::-1]


def grouped(root: Path, steps: Sequence[Step], most: int) -> list[Step]:
    """At most `most` changes: the last two steps alone, and before them the last 2, 4, 8, … together.

    So the diffs are of all sizes, from a commit to a pull of months.
    """
    found: list[Step] = []
    end, size = len(steps), 1
    while end and len(found) < most:
        first, last = steps[max(0, end - size)], steps[end - 1]
        changes = last.changes if first is last else git_history.changed_files(root, first.before, last.after)
        found.append(Step(first.before, last.after, changes))
        end, size = max(0, end - size), size * 2 if len(found) > 1 else 1
    return found[::-1]


def held_out(steps: Sequence[Step]) -> set[str]:
    """A third of the Python files that the steps write, under all names that they have in these steps."""
    written = {c.path for step in steps for c in step.changes if c.path and c.new_blob and c.path.endswith(".py")}
    ordered = sorted(written, key=rank)
    held = set(ordered[: max(1, round(len(ordered) * _HELD_OUT_SHARE))])
    renames = [(c.old_path, c.path) for step in steps for c in step.changes if c.kind == "renamed"]
    while more := {a or "" for a, b in renames if b in held} | {b or "" for a, b in renames if a in held}:
        if more <= held:
            break
        held |= more
    return held


def _targets(
    model: BaseModel, root: Path, steps: Sequence[Step], held: set[str], sizes: Sizes
) -> list[tuple[int, str, list[list[int]]]]:
    """(number of diffs so far, text, windows) of each version of a held-out file that a step writes."""
    written = [
        (at, c.new_blob)
        for at, step in enumerate(steps, 1)
        for c in sorted((c for c in step.changes if c.path in held), key=lambda c: rank(c.path or ""))[: sizes.changed]
        if c.new_blob
    ]
    content = dict(git_history.blobs(root, [blob for _, blob in written]))
    found = []
    for at, blob in written:
        text, refused = clean(content[blob] or b"")
        if refused is None and (rows := windows(model, text[: sizes.chars], sizes)):
            found.append((at, text, rows))
    return found


def _snapshot(root: Path, commit: str, held: set[str], sizes: Sizes) -> dict[str, str]:
    tree = git_history.tree(root, commit)
    seen = sorted((path for path in tree if in_repository(path, 1) and path not in held), key=rank)
    return {path: tree[path] for path in seen[: sizes.files]}


def _texts(root: Path, tree: Mapping[str, str]) -> list[str]:
    found = []
    for _, content in git_history.blobs(root, tree.values()):
        text, refused = clean(content or b"")
        if refused is None:
            found.append(text)
    return found


def _without_near_duplicates(texts: Sequence[str], targets: Sequence[str]) -> list[str]:
    """The texts that are no near-duplicates of a target."""
    signatures = [signature(text) for text in targets]
    return [text for text in texts if not any((signature(text) == target).mean() >= NEAR for target in signatures)]
