"""The first-parent history of a repository, oldest first, and its kept commits: those with new assertions.

Assertions follow renames, so a moved test folder has no new ones. A merge is one step, compared with its first parent.
The diff between two kept commits omits the files that `git_history.diff_text` omits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from c2l_lab.benchmarks.repopeft.dataset import assertions
from c2l_lab.benchmarks.repopeft.dataset.assertions import Assertion, Key
from c2l_lsp.repo.git import git_process
from c2l_lsp.repo.history import git_history

LONGEST_DIFF = 4_000_000
"""Characters of a production diff. A longer one (a vendored tree, a first import) is cut at the end of a file."""


class Step(NamedTuple):
    """A first-parent commit. `parent` None: the empty tree; `time`: the author time in ISO 8601 with zone."""

    sha: str
    parent: str | None
    time: str
    merge: bool


class Row(NamedTuple):
    """An assertion in its file."""

    path: str
    text: str
    assertion: Assertion

    @property
    def prefix(self) -> str:
        """The file's text up to the expected value."""
        return self.text[: self.assertion.cut]


class Kept(NamedTuple):
    """A kept commit with its new assertions; `modified` of them changed an earlier assertion."""

    step: Step
    rows: list[Row]
    modified: int


class _Known(NamedTuple):
    """The last known content of a test file: the keys of its assertions and their heads."""

    keys: frozenset[Key]
    heads: frozenset[tuple[str, str]]


def main_line(root: Path) -> list[Step]:
    """The first-parent commits up to HEAD, oldest first; in a shallow clone, those that exist."""
    output = git_process.run(
        root, "log", "--first-parent", "--reverse", "--no-show-signature", "--format=%H %aI %P", "HEAD", "--"
    )
    steps: list[Step] = []
    for line in output.decode().splitlines():
        sha, time, *parents = line.split()
        steps.append(Step(sha, steps[-1].sha if steps else None, time, len(parents) > 1))
    return steps


def is_test(path: str) -> bool:
    """Whether a path is a Python test file: "test" in a part of it, not vendored or built."""
    parts = PurePosixPath(path).parts
    return path.endswith(".py") and any("test" in p.lower() for p in parts) and not git_history.VENDORED & set(parts)


def kept_commits(root: Path, steps: list[Step], notes: Counter[str]) -> Iterator[Kept]:
    """The kept commits of a history, in order. Skipped files are counted in `notes`."""
    known: dict[str, _Known] = {}
    for step in steps:
        changes = git_history.changed_files(root, step.parent, step.sha)
        touched = _follow(changes, known, notes)
        rows: list[Row] = []
        modified = 0
        for change, data in _contents(root, touched):
            path = str(change.path)
            read = _parsed(data, notes)
            if read is None:
                continue  # its known assertions are not new if it becomes readable again
            text, found = read
            keys, heads = assertions.keys(text, found), [_head(text, item) for item in found]
            before = known.get(path, _Known(frozenset(), frozenset()))
            new = [i for i, key in enumerate(keys) if key not in before.keys]
            rows += [Row(path, text, found[i]) for i in new]
            modified += sum(heads[i] in before.heads for i in new)
            known[path] = _Known(frozenset(keys), frozenset(heads))
        if rows:
            yield Kept(step, rows, modified)


def standing(root: Path, sha: str, notes: Counter[str]) -> Iterator[Row]:
    """All assertions in the test files of a commit."""
    tests = {path: blob for path, blob in git_history.tree(root, sha).items() if is_test(path)}
    for path, (_, data) in zip(tests, git_history.blobs(root, tests.values()), strict=True):
        read = _parsed(data, notes)
        if read is not None:
            yield from (Row(path, read[0], item) for item in read[1])


def production_diff(root: Path, old: str | None, new: str, notes: Counter[str]) -> str:
    """The production diff between two kept commits, at most LONGEST_DIFF characters of whole files."""
    text = git_history.diff_text(root, old, new)
    if len(text) <= LONGEST_DIFF:
        return text
    notes["production diff cut"] += 1
    return text[: text.rfind("\ndiff --git ", 0, LONGEST_DIFF) + 1] or text[:LONGEST_DIFF]


def _follow(
    changes: list[git_history.Change], known: dict[str, _Known], notes: Counter[str]
) -> list[git_history.Change]:
    """Apply renames and deletions to the known files; returns the changes whose test file must be read."""
    moved = {c.path: known.pop(c.old_path) for c in changes if c.kind == "renamed" and c.old_path in known}
    for change in changes:
        if change.kind == "deleted" and change.old_path is not None:
            known.pop(change.old_path, None)
    known.update({path: what for path, what in moved.items() if path is not None})
    touched = [change for change in changes if change.path is not None and is_test(change.path)]
    if renamed := sum(change.kind == "renamed" for change in touched):
        notes["test file renamed"] += renamed
    return touched


def _contents(root: Path, touched: list[git_history.Change]) -> Iterator[tuple[git_history.Change, bytes | None]]:
    found = git_history.blobs(root, [str(change.new_blob) for change in touched])
    for change, (_, data) in zip(touched, found, strict=True):
        yield change, data


def _parsed(data: bytes | None, notes: Counter[str]) -> tuple[str, list[Assertion]] | None:
    if data is None:
        notes["test file missing or over 2 MB"] += 1
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        notes["test file not UTF-8"] += 1
        return None
    found = assertions.parse(text)
    if found is None:
        notes["test file with a syntax error"] += 1
        return None
    return text, found


def _head(text: str, item: Assertion) -> tuple[str, str]:
    return item.kind, " ".join(text[item.head : item.cut].split())
