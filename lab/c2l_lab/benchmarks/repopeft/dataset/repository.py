"""One git repository as one part of a benchmark: a folder that gets its final name when it is complete.

commits.parquet   kept commits, without repository splits and embeddings
qna.parquet       tasks of kept commits that are used for scoring or training, marked `scored` and `trained`
anchor.parquet    tasks in the last training commit of the repository (the snapshots track)
about.json        the repository's entry of the manifest
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from c2l_lab.benchmarks.repopeft.dataset import schema, splits, walk
from c2l_lab.benchmarks.repopeft.dataset.assertions import difficulty
from c2l_lab.benchmarks.repopeft.dataset.parquet import Table, rows
from c2l_lab.corpus.commit_stream import licence_of, locate_repository
from c2l_lab.corpus.sources import SourceProblem
from c2l_lsp.errors import CorpusError, GitError
from c2l_lsp.repo.history import git_history

RULES = 1
"""Version of the rules; increase it when a rule changes, so that repositories are read again."""

LONGEST_TARGET = 500
"""Characters of a target from an anchor commit."""

COMMIT_COLUMNS = (*schema.COMMITS["commits"][:-2],)
MARKS = {"scored": "bool", "trained": "bool"}


@dataclass
class Repository:
    """The manifest's entry of one repository. `commits` and `merges` count first-parent commits."""

    name: str
    repo_id: str = ""
    commit: str = ""
    licence: str = ""
    commits: int = 0
    merges: int = 0
    kept: int = 0
    assertions: int = 0
    scored: int = 0
    trained: int = 0
    anchor_tasks: int = 0
    skipped: str = ""
    skips: dict[str, int] = field(default_factory=dict)


def part_of(name: str, out: Path) -> Path:
    """The folder of a list entry's part; for a local path, its name is a digest of the path."""
    return out / "parts" / _stem(name)


def _stem(name: str) -> str:
    if name[0] in "/.~":
        path = Path(name).expanduser().resolve()
        return f"local+{path.name.removesuffix('.git') or 'git'}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    return name.replace("/", "+")


def read_repository(name: str, mirror: Path, out: Path) -> Repository:
    """Build the part of one list entry unless it exists. Problems of the repository are recorded in `skipped`.

    Raises CorpusError only if the result cannot be written.
    """
    about = Repository(name, repo_id=_stem(name).replace("+", "/", 1))
    try:
        folder = locate_repository(name, mirror)
        about.commit = git_history.head_commit(folder) or ""
        if not about.commit:
            raise SourceProblem("no commits")
        done = _made(part_of(name, out), about.commit)
        if done is not None:
            return done
        _make(folder, about, part_of(name, out))
    except SourceProblem as problem:
        about.skipped = str(problem)
    except GitError as error:
        about.skipped = "broken git folder"
        about.skips[_without_path(str(error), mirror)] = 1
    return about


def _without_path(sentence: str, mirror: Path) -> str:
    """The manifest entry without names of local folders."""
    return " ".join(word for word in sentence.split() if str(mirror) not in word and not word.startswith("/"))[:200]


def _made(part: Path, commit: str) -> Repository | None:
    try:
        found = json.loads((part / "about.json").read_text("utf-8"))
        return Repository(**found["about"]) if found["stamp"] == [RULES, commit] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _make(folder: Path, about: Repository, part: Path) -> None:
    steps = walk.main_line(folder)
    about.commits, about.merges = len(steps), sum(step.merge for step in steps)
    files = git_history.tree(folder, steps[-1].sha)
    about.licence = licence_of(folder, files)
    unfinished = part.with_name(part.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    notes: Counter[str] = Counter()
    if about.merges and about.merges == about.commits - 1:
        notes["main line of merges only"] = 1
    about.skipped = _hopeless(about, files)
    try:
        unfinished.mkdir(parents=True)
        if not about.skipped:
            kept = _write_tasks(folder, steps, about, unfinished, notes)
            about.skipped = "" if kept else _barren(files, notes)
            if kept:
                _write_commits(folder, kept, about, unfinished, notes)
                _write_anchor(folder, kept, about, unfinished, notes)
                about.trained = _trained(unfinished, len(kept))
        about.skips = dict(sorted(notes.items()))
        text = json.dumps({"stamp": [RULES, about.commit], "about": asdict(about)}, indent=1)
        (unfinished / "about.json").write_text(text, encoding="utf-8")
        shutil.rmtree(part, ignore_errors=True)
        unfinished.rename(part)
    except OSError as error:
        raise CorpusError(f"{part} cannot be written ({error.strerror}). Free some space and run it again.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _hopeless(about: Repository, files: dict[str, str]) -> str:
    """The reason why a history has no tasks, from its first-parent commits and last tree; "" if it may have some."""
    if about.commits < 2:
        return "one commit"
    return "" if any(path.endswith(".py") for path in files) else "no Python"


def _barren(files: dict[str, str], notes: Counter[str]) -> str:
    if notes["test file with a syntax error"] or notes["test file not UTF-8"]:
        return "no test file that can be parsed"
    return "no assertions in its tests" if any(map(walk.is_test, files)) else "no tests"


@dataclass(frozen=True)
class _Kept:
    sha: str
    time: str
    new: int
    modified: int


def _write_tasks(
    folder: Path, steps: list[walk.Step], about: Repository, part: Path, notes: Counter[str]
) -> list[_Kept]:
    """Write qna.parquet; returns the kept commits in order."""
    kept: list[_Kept] = []
    with Table(part / "qna.parquet", schema.QNA, MARKS) as table:
        for found in walk.kept_commits(folder, steps, notes):
            sha, index = found.step.sha, len(kept)
            for row, scored, trained in _chosen(found, about.repo_id):
                cells = _task(row) | {"repo_id": about.repo_id, "commit_index": index, "commit_sha": sha}
                table.add(cells | {"scored": scored, "trained": trained})
                about.scored += scored
            kept.append(_Kept(sha, found.step.time, len(found.rows), found.modified))
            about.assertions += len(found.rows)
    about.kept = len(kept)
    return kept


def _chosen(found: walk.Kept, repo_id: str) -> Iterator[tuple[walk.Row, bool, bool]]:
    """The useful rows of a kept commit, each with whether it is scored and whether it is trained on."""
    worth = [i for i, row in enumerate(found.rows) if not splits.trivial(row.assertion.target)]
    places = [(found.rows[i].path, found.rows[i].assertion.function) for i in worth]
    trained = {worth[i] for i in splits.capped(places, f"{repo_id}/{found.step.sha}")}
    for i, row in enumerate(found.rows):
        if i < schema.PER_COMMIT or i in trained:
            yield row, i < schema.PER_COMMIT, i in trained


def _task(row: walk.Row) -> dict[str, Any]:
    item = row.assertion
    return {
        "test_file": row.path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        "lineno": item.lineno,
        "col_offset": item.col,
        "assertion_type": item.kind,
        "test_function": item.function,
        "prefix": row.prefix,
        "target": item.target,
    }


def _write_commits(folder: Path, kept: list[_Kept], about: Repository, part: Path, notes: Counter[str]) -> None:
    with Table(part / "commits.parquet", COMMIT_COLUMNS) as table:
        last: str | None = None
        for index, (commit, split) in enumerate(zip(kept, splits.chronological(len(kept)), strict=True)):
            table.add({
                "repo_id": about.repo_id,
                "commit_index": index,
                "commit_sha": commit.sha,
                "commit_timestamp": commit.time,
                "in_repo_split": split,
                "production_code_diff": walk.production_diff(folder, last, commit.sha, notes),
                "n_new_assertions": commit.new,
                "n_added_assertions": commit.new - commit.modified,
                "n_modified_assertions": commit.modified,
            })  # fmt: skip
            last = commit.sha


def _write_anchor(folder: Path, kept: list[_Kept], about: Repository, part: Path, notes: Counter[str]) -> None:
    """Write anchor.parquet, in two passes over the tests of one commit so that only chosen prefixes are copied."""
    index = splits.chronological(len(kept)).count("train") - 1
    sha = kept[index].sha
    worth = [row for row in walk.standing(folder, sha, notes) if _teaches(row)]
    chosen = splits.anchored([(row.path, row.assertion.function) for row in worth], f"{about.repo_id}/{sha}")
    with Table(part / "anchor.parquet", schema.ANCHOR_QNA) as table:
        for row in (worth[i] for i in chosen):
            about_task = {
                "repo_id": about.repo_id, "commit_sha": sha, "commit_index": index, "in_repo_split": "train",
                "anchor_sha": sha, "anchor_index": index, "qna_source": "anchor",
                "difficulty": difficulty(row.assertion.target), "context_lines": row.prefix.count("\n") + 1,
            }  # fmt: skip
            table.add(_task(row) | about_task)
    about.anchor_tasks = len(chosen)


def _trained(part: Path, kept: int) -> int:
    """The number of training tasks: marked tasks of training commits."""
    of_commits = splits.chronological(kept)
    marked = rows(part / "qna.parquet", ("trained", "commit_index"))
    return sum(row["trained"] and of_commits[row["commit_index"]] == "train" for row in marked)


def _teaches(row: walk.Row) -> bool:
    """Whether an assertion of the anchor commit is a training task: in a test function, with a non-trivial value."""
    target = row.assertion.target
    return bool(row.assertion.function) and not splits.trivial(target) and len(target) <= LONGEST_TARGET
