"""One git repository as one part of a built benchmark: a folder that has its name only once it is complete.

commits.parquet   kept commits, without splits between repositories and without embeddings
qna.parquet       tasks of kept commits that are scored or trained on, marked `scored` and `trained`
anchor.parquet    tasks that stand in the last commit of the in-repo training time (the snapshots track)
about.json        what the manifest says of the repository
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
"""Part of what decides whether a repository must be read again: raise when a rule changes."""

LONGEST_TARGET = 500
"""Characters of a target that is taken from an anchor commit."""

COMMIT_COLUMNS = (*schema.COMMITS["commits"][:-2],)
MARKS = {"scored": "bool", "trained": "bool"}


@dataclass
class Repository:
    """What the manifest says of one repository. `commits` and `merges` are those of the main line."""

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
    """Where the part of a list entry lies; a folder given by its path is named by a digest of it."""
    return out / "parts" / _stem(name)


def _stem(name: str) -> str:
    if name[0] in "/.~":
        path = Path(name).expanduser().resolve()
        return f"local+{path.name.removesuffix('.git') or 'git'}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    return name.replace("/", "+")


def read_repository(name: str, mirror: Path, out: Path) -> Repository:
    """Make the part of one list entry, or find it made. What is wrong with the repository goes into `skipped`.

    Raises CorpusError only when the result can't be written.
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
    """A manifest travels: it names no folder of the machine it was made on."""
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
        raise CorpusError(f"{part} can't be written ({error.strerror}): free some space and run it again.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _hopeless(about: Repository, files: dict[str, str]) -> str:
    """Why no history can give anything, from the main line and its last tree; "" when it may."""
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
    """qna.parquet; returns what the kept commits are, in their order."""
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
    """The rows of a kept commit that are of use: whether each is scored, whether it is trained on."""
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
    """anchor.parquet: two passes over the tests of one commit, so that only the chosen prefixes are ever copied."""
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
    """How many tasks are trained on: marked ones of the in-repo training time."""
    of_commits = splits.chronological(kept)
    marked = rows(part / "qna.parquet", ("trained", "commit_index"))
    return sum(row["trained"] and of_commits[row["commit_index"]] == "train" for row in marked)


def _teaches(row: walk.Row) -> bool:
    """Whether a standing assertion is worth training on: inside a test function, with a value of some substance."""
    target = row.assertion.target
    return bool(row.assertion.function) and not splits.trivial(target) and len(target) <= LONGEST_TARGET
