"""Commit streams: the Python files of every first-parent commit of a repository, oldest first.

    OUT/commits/OWNER+NAME.jsonl.zst   the stream of one repository (the shard, and the unit of resuming)
    OUT/commits/OWNER+NAME.json        counts and skipped files of the stream; written last
    OUT/commits.json                   the manifest

A stream has two kinds of lines. {"text": [id, text]} precedes the first commit that needs a text.
{"commit": {sha, time, changes: [[old_path, path, old_id, new_id]]}} refers to texts by id. A text that is in the tree
is not repeated. Full texts avoid applying patches; thanks to the compressor's long window, versions of a file take
about as much space as their diffs. Files that the corpus filters refuse are treated as absent. Renames are detected.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from c2l_lab.corpus import licence
from c2l_lab.corpus.commit_stream import StreamCounts, Tree, licence_of, locate_repository, stream_lines
from c2l_lab.corpus.sources import SourceProblem
from c2l_lab.corpus.storage import file_stem, write_error, write_file
from c2l_lsp.errors import CorpusError, GitError
from c2l_lsp.repo.history import git_history

_RULES = 1  # version of the filters: increase it when one changes, so that repositories are read again
_WINDOW_LOG = 26
MOST_COMMITS = 2000
"""The newest commits of one repository that are used. The oldest of them adds all files of its tree."""
MOST_BYTES = 60_000_000
"""Text of one stream before compression. A longer history is cut, which the manifest records."""


@dataclass
class Repository:
    """The manifest entry of one repository. `commits` counts the commits that change a file of the stream."""

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
    """The change of one file: path and text before and after, None on the side where the file is absent."""

    old_path: str | None
    path: str | None
    old: str | None
    new: str | None


@dataclass(frozen=True)
class CommitRecord:
    """A commit with its file changes. `time` is in seconds since 1970. The first commit adds all files of its tree."""

    repo: str
    sha: str
    time: int
    index: int
    changes: tuple[FileChange, ...]


@dataclass(frozen=True)
class Stream:
    """The commits of one repository, oldest first. Every iteration starts from the beginning."""

    repository: Repository
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
            yield CommitRecord(self.repository.name, commit["sha"], commit["time"], index, changes)
            tree.apply(commit["changes"])
            texts = {identity: text for identity, text in texts.items() if identity in tree}
            index += 1
        if index != self.repository.commits:
            raise CorpusError(f"{self.file} is damaged. Delete it and build the commit streams again.")


def streams(out: Path) -> Iterator[Stream]:
    """Yield the commit streams in `out`, in list order. Raises CorpusError if there are none."""
    for repository in read_manifest(out)["repositories"]:
        found = Repository(**repository)
        yield Stream(found, _file_of(found.name, out))


def read_manifest(out: Path) -> dict[str, Any]:
    """Return the manifest. Raises CorpusError if there is none."""
    try:
        return dict(json.loads((out / "commits.json").read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{out} contains no commit streams: run `c2l-lab corpus commits` first.") from error


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
    """Write the commit streams of `names` to `out`, which may be a built corpus; return the manifest.

    A second call resumes an interrupted build. Raises CorpusError if the disk is full or no history is usable.
    """
    (out / "commits").mkdir(parents=True, exist_ok=True)
    done: dict[str, Repository] = {}
    if workers <= 1:
        for name in names:
            done[name] = read_repository(name, mirror, out, most_commits, most_bytes)
            progress(len(done), len(names))
    else:
        with ProcessPoolExecutor(workers) as pool:
            futures = {pool.submit(read_repository, n, mirror, out, most_commits, most_bytes): n for n in names}
            for future in as_completed(futures):
                done[futures[future]] = future.result()
                progress(len(done), len(names))
    used = [done[name] for name in names if not done[name].skipped]
    skipped = {name: done[name].skipped for name in names if done[name].skipped}
    if not used:
        raise CorpusError(f"None of the {len(names)} listed repositories has a usable history: {skipped}.")
    manifest = {"rules": _RULES, "repositories": [asdict(repository) for repository in used], "skipped": skipped}
    _write_json(out / "commits.json", manifest)
    return manifest


def read_repository(name: str, mirror: Path, out: Path, most_commits: int, most_bytes: int) -> Repository:
    """Write the stream of one repository, unless it is up to date. A problem is reported in `skipped`."""
    repository = Repository(name)
    target = _file_of(name, out)
    try:
        folder = locate_repository(name, mirror)
        repository.commit = git_history.head_commit(folder) or ""
        if not repository.commit:
            raise SourceProblem("no commits")
        stamp = [_RULES, repository.commit, most_commits, most_bytes]
        found = _load_finished(target, stamp)
        if found is not None:
            return found
        repository.licence = licence_of(folder, git_history.tree(folder, repository.commit))
        if repository.licence not in licence.PERMISSIVE:
            raise SourceProblem(
                "no licence found" if repository.licence == "unknown" else f"licence {repository.licence}"
            )
        _write_stream(folder, repository, target, most_commits, most_bytes)
        if repository.commits < 2:
            target.unlink(missing_ok=True)
            raise SourceProblem("fewer than two commits of Python")
        _write_json(target.with_name(file_stem(name) + ".json"), {"stamp": stamp, "about": asdict(repository)})
    except SourceProblem as problem:
        repository.skipped = str(problem)
    except GitError:
        repository.skipped = "broken git folder"
    return repository


def _write_stream(folder: Path, repository: Repository, target: Path, most_commits: int, most_bytes: int) -> None:
    temporary = target.with_name(target.name + ".part")
    parameters = zstandard.ZstdCompressionParameters.from_level(9, window_log=_WINDOW_LOG, enable_ldm=True)
    try:
        with (
            temporary.open("wb") as raw,
            zstandard.ZstdCompressor(compression_params=parameters).stream_writer(raw) as file,
        ):
            counts = StreamCounts()
            for line in stream_lines(folder, counts, most_commits, most_bytes):
                file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        repository.commits, repository.changes, repository.bytes = counts.commits, counts.changes, counts.bytes
        repository.skips = dict(sorted(counts.skips.items()))
        temporary.replace(target)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _file_of(name: str, out: Path) -> Path:
    return out / "commits" / f"{file_stem(name)}.jsonl.zst"


def _load_finished(target: Path, stamp: list[Any]) -> Repository | None:
    try:
        saved = json.loads(target.with_name(target.name.removesuffix(".jsonl.zst") + ".json").read_text("utf-8"))
        return Repository(**saved["about"]) if saved["stamp"] == stamp and target.exists() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with file.open("rb") as raw:
            reader = zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG).stream_reader(raw)
            for line in io.TextIOWrapper(reader, "utf-8", newline="\n"):
                yield json.loads(line)
    except (OSError, ValueError, zstandard.ZstdError) as error:
        raise CorpusError(f"{file} is damaged ({error}). Delete it and build the commit streams again.") from error


def _write_json(file: Path, value: dict[str, Any]) -> None:
    write_file(file, (json.dumps(value, indent=1) + "\n").encode())
