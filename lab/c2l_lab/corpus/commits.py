"""Repositories' histories as training data: the Python files of every main-line commit, oldest first, exactly.

    OUT/commits/OWNER+NAME.jsonl.zst   one repository's stream (the shard, and the unit of resuming)
    OUT/commits/OWNER+NAME.json        what was kept and skipped of it; written last
    OUT/commits.json                   the manifest

A stream's lines are {"text": [id, text]}, a file's content ahead of the commit that brings it, and
{"commit": {sha, time, changes: [[old_path, path, old_id, new_id]]}}. A content that stands in the tree is not written
again; the compressor's long window makes the versions of a file cost about what their diffs would, and no patch has to
be applied to read them. Files that the corpus filters refuse do not exist here; renames are followed.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from c2l_lab.corpus import licence
from c2l_lab.corpus.commit_stream import Tally, Tree, git_of, licence_of, lines_of
from c2l_lab.corpus.sources import SourceProblem
from c2l_lsp.errors import CorpusError, GitError
from c2l_lsp.repo.history import git_history

_RULES = 1  # part of what decides whether a repository must be read again: raise when a filter changes
_WINDOW_LOG = 26
MOST_COMMITS = 2000
"""Of one repository: the newest ones. The first of them brings all files that stand in it."""
MOST_BYTES = 60_000_000
"""Text of one stream, before compression; a longer one ends early, and the manifest says so."""


@dataclass
class Repository:
    """What the manifest says of one repository. `commits` are those that change a kept file."""

    name: str
    commit: str = ""
    licence: str = ""
    commits: int = 0
    changes: int = 0
    bytes: int = 0
    skipped: str = ""
    skips: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FileChange:
    """One file in one commit: path and text before and after; None where it is absent."""

    old_path: str | None
    path: str | None
    old: str | None
    new: str | None

    def diff(self) -> str:
        """The change as a unified diff with three lines of context."""
        before, after = (self.old or "").splitlines(keepends=True), (self.new or "").splitlines(keepends=True)
        names = (f"a/{self.old_path}" if self.old_path else "/dev/null", f"b/{self.path}" if self.path else "/dev/null")
        lines = difflib.unified_diff(before, after, *names)
        return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


@dataclass(frozen=True)
class CommitRecord:
    """A commit of the main line with the kept files it changes; `time` in seconds since 1970. The first brings all."""

    repo: str
    sha: str
    time: int
    index: int
    changes: tuple[FileChange, ...]


@dataclass(frozen=True)
class Stream:
    """One repository's commits, oldest first; every iteration begins anew."""

    about: Repository
    file: Path

    def __iter__(self) -> Iterator[CommitRecord]:
        tree = Tree()
        texts: dict[str, str] = {}
        index = 0
        for line in _lines(self.file):
            if "text" in line:
                texts[line["text"][0]] = line["text"][1]
                continue
            commit = line["commit"]
            changes = tuple(
                FileChange(old_path, path, texts[old] if old else None, texts[new] if new else None)
                for old_path, path, old, new in commit["changes"]
            )
            yield CommitRecord(self.about.name, commit["sha"], commit["time"], index, changes)
            tree.apply(commit["changes"])
            texts = {identity: text for identity, text in texts.items() if identity in tree}
            index += 1
        if index != self.about.commits:
            raise CorpusError(f"{self.file} is damaged: delete it and build the commit streams again.")


def streams(out: Path) -> Iterator[Stream]:
    """The streams of a built folder, in list order. CorpusError when there is none."""
    for about in manifest_of(out)["repositories"]:
        found = Repository(**about)
        yield Stream(found, _file_of(found.name, out))


def manifest_of(out: Path) -> dict[str, Any]:
    """The manifest. CorpusError when there is none."""
    try:
        return dict(json.loads((out / "commits.json").read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{out} holds no commit streams: run `c2l-lsp corpus commits` first.") from error


def build(
    names: Sequence[str],
    mirror: Path,
    out: Path,
    *,
    workers: int = 2,
    most_commits: int = MOST_COMMITS,
    most_bytes: int = MOST_BYTES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write the streams of `names` into `out`, beside its text shards if it is a built corpus; returns the manifest.

    The same call goes on after a stop. Raises CorpusError: disk full, nothing usable.
    """
    (out / "commits").mkdir(parents=True, exist_ok=True)
    done: dict[str, Repository] = {}
    if workers <= 1:
        for name in names:
            done[name] = read_repository(name, mirror, out, most_commits, most_bytes)
            progress(len(done), len(names))
    else:
        with ProcessPoolExecutor(workers) as pool:
            asked = {pool.submit(read_repository, n, mirror, out, most_commits, most_bytes): n for n in names}
            for future in as_completed(asked):
                done[asked[future]] = future.result()
                progress(len(done), len(names))
    used = [done[name] for name in names if not done[name].skipped]
    skipped = {name: done[name].skipped for name in names if done[name].skipped}
    if not used:
        raise CorpusError(f"None of the {len(names)} listed repositories gives commits to learn from: {skipped}.")
    manifest = {"rules": _RULES, "repositories": [asdict(about) for about in used], "skipped": skipped}
    _write(out / "commits.json", manifest)
    return manifest


def read_repository(name: str, mirror: Path, out: Path, most_commits: int, most_bytes: int) -> Repository:
    """Write one stream, or find it written. What is wrong with the repository goes into `skipped`."""
    about = Repository(name)
    target = _file_of(name, out)
    try:
        folder = git_of(name, mirror)
        about.commit = git_history.head_commit(folder) or ""
        if not about.commit:
            raise SourceProblem("no commits")
        stamp = [_RULES, about.commit, most_commits, most_bytes]
        found = _found(target, stamp)
        if found is not None:
            return found
        about.licence = licence_of(folder, git_history.tree(folder, about.commit))
        if about.licence not in licence.PERMISSIVE:
            raise SourceProblem("no licence found" if about.licence == "unknown" else f"licence {about.licence}")
        _stream(folder, about, target, most_commits, most_bytes)
        if about.commits < 2:
            target.unlink(missing_ok=True)
            raise SourceProblem("fewer than two commits of Python")
        _write(target.with_name(_stem(name) + ".json"), {"stamp": stamp, "about": asdict(about)})
    except SourceProblem as problem:
        about.skipped = str(problem)
    except GitError:
        about.skipped = "broken git folder"
    return about


def _stream(folder: Path, about: Repository, target: Path, most_commits: int, most_bytes: int) -> None:
    part = target.with_name(target.name + ".part")
    shape = zstandard.ZstdCompressionParameters.from_level(9, window_log=_WINDOW_LOG, enable_ldm=True)
    try:
        with part.open("wb") as raw, zstandard.ZstdCompressor(compression_params=shape).stream_writer(raw) as file:
            tally = Tally()
            for line in lines_of(folder, tally, most_commits, most_bytes):
                file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        about.commits, about.changes, about.bytes = tally.commits, tally.changes, tally.bytes
        about.skips = dict(sorted(tally.skips.items()))
        part.replace(target)
    except OSError as error:
        raise CorpusError(f"{target} can't be written ({error.strerror}): free some space and run it again.") from error
    finally:
        part.unlink(missing_ok=True)


def _stem(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:10] if name[0] in "/.~" else name.replace("/", "+")


def _file_of(name: str, out: Path) -> Path:
    return out / "commits" / f"{_stem(name)}.jsonl.zst"


def _found(target: Path, stamp: list[Any]) -> Repository | None:
    try:
        held = json.loads(target.with_name(target.name.removesuffix(".jsonl.zst") + ".json").read_text("utf-8"))
        return Repository(**held["about"]) if held["stamp"] == stamp and target.exists() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with file.open("rb") as raw:
            reader = zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG).stream_reader(raw)
            for line in io.TextIOWrapper(reader, "utf-8", newline="\n"):
                yield json.loads(line)
    except (OSError, ValueError, zstandard.ZstdError) as error:
        raise CorpusError(f"{file} is damaged ({error}): delete it and build the commit streams again.") from error


def _write(file: Path, what: dict[str, Any]) -> None:
    part = file.with_name(file.name + ".part")
    try:
        part.write_text(json.dumps(what, indent=1) + "\n", encoding="utf-8")
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise CorpusError(f"{file} can't be written ({error.strerror}): free some space and run it again.") from error
