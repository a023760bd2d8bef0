"""Building a text corpus: cleaned, deduplicated Python files of the listed repositories in compressed shards.

    OUT/repositories/OWNER+NAME.zst   the files of one repository with their MinHash signatures (the unit of resuming)
    OUT/text-00000-<digest>.zst …     the files left after near-duplicate removal: msgpack {id, repo, path, text}
    OUT/manifest.json                 repositories, commits, licences, files, bytes, and skipped files with reasons

A second build with the same arguments reads only repositories whose commit has changed.
"""

from __future__ import annotations

import hashlib
import io
import json
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import zstandard

from c2l_lab.corpus import filters, installed, licence
from c2l_lab.corpus.dedup import NearDuplicates, signature
from c2l_lab.corpus.sources import Blob, GitRepository, SourceProblem, git_folder
from c2l_lab.corpus.storage import file_stem, write_file
from c2l_lsp.errors import CorpusError

if TYPE_CHECKING:
    from importlib.metadata import Distribution

STANDARD_LIBRARY = "python/cpython"  # the list entry for the installed standard library
_RULES = 5  # version of the filters: increase it when one changes, so that repositories are read again
_SHARD_BYTES = 16_000_000  # of text, before compression


@dataclass
class Repository:
    """The manifest entry of one repository."""

    name: str
    commit: str = ""
    licence: str = ""
    files: int = 0
    bytes: int = 0
    tokens: int | None = None
    skipped: str = ""
    skips: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Document:
    """One file of the corpus. `id` is a digest of its text."""

    id: str
    repo: str
    path: str
    text: str


def _pack(records: Sequence[dict[str, Any]]) -> bytes:
    packer = msgpack.Packer()
    return zstandard.ZstdCompressor(level=6).compress(b"".join(packer.pack(record) for record in records))


def _unpack(file: Path) -> Iterator[dict[str, Any]]:
    with file.open("rb") as stream, zstandard.ZstdDecompressor().stream_reader(stream) as reader:
        yield from msgpack.Unpacker(io.BufferedReader(reader), max_buffer_size=1 << 30)


def _licence_of(git: GitRepository, blobs: Sequence[Blob]) -> str:
    stating = [b for b in blobs if licence.is_licence_file(b.path) or licence.is_metadata_file(b.path)]
    return licence.detect({blob.path: raw.decode("utf-8", "replace") for blob, raw in git.read(stating[:20])})


def _git_files(name: str, mirror: Path, repository: Repository) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    git = GitRepository(git_folder(name, mirror))
    repository.commit = git.commit()
    blobs = git.blobs(repository.commit)
    repository.licence = _require_permissive(_licence_of(git, blobs))
    python = [blob for blob in blobs if blob.path.endswith(".py")]
    small = [blob for blob in python if filters.skip_reason_by_path(blob.path, blob.size) is None]
    content = {blob.path: raw for blob, raw in git.read(small)}
    for blob in python:
        yield blob.path, blob.size, lambda path=blob.path: content.get(path, b"")  # type: ignore[misc]


def _library_files(repository: Repository) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    repository.licence, repository.commit = "PSF-2.0", f"installed {sysconfig.get_python_version()}"
    return installed.standard_library_files(Path(sysconfig.get_path("stdlib")))


def _require_permissive(found: str) -> str:
    if found not in licence.PERMISSIVE:
        raise SourceProblem("no licence found" if found == "unknown" else f"licence {found}")
    return found


def _distribution_files(
    distribution: Distribution, repository: Repository
) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    repository.commit, repository.licence = (
        distribution.version,
        _require_permissive(installed.licence_of(distribution)),
    )
    yield from installed.distribution_files(distribution, installed.SHARE)


def _fingerprint_of(name: str, mirror: Path, distribution: Distribution | None, disjoint_from: Sequence[Path]) -> str:
    if distribution is not None:
        # checked even if the distribution was read before, because the lists may have changed
        if reason := installed.conflict(distribution, disjoint_from):
            raise SourceProblem(reason)
        return f"{_RULES} {distribution.version}"
    commit = "" if name == STANDARD_LIBRARY else GitRepository(git_folder(name, mirror)).commit()
    return f"{_RULES} {commit}"


def _file_of(name: str, out: Path) -> Path:
    return out / "repositories" / f"{file_stem(name)}.zst"


def read_repository(
    name: str, mirror: Path, out: Path, distribution: Distribution | None = None, disjoint_from: Sequence[Path] = ()
) -> Repository:
    """Read and filter the Python files of one list entry, and write them with signatures to `out/repositories`.

    Files written for the same commit are reused. If `distribution` is given, it is read instead of a repository,
    unless its owner is on a list in `disjoint_from`. A repository that cannot be read is reported in `skipped`.
    Raises CorpusError if the disk is full.
    """
    repository = Repository(name)
    target = _file_of(name, out)
    try:
        fingerprint = _fingerprint_of(name, mirror, distribution, disjoint_from)
        if target.exists():
            head = next(_unpack(target))
            if head["stamp"] == fingerprint:
                return Repository(**head["about"])
        if distribution is not None:
            files = _distribution_files(distribution, repository)
        else:
            files = _library_files(repository) if name == STANDARD_LIBRARY else _git_files(name, mirror, repository)
        records: list[dict[str, Any]] = []
        skips: Counter[str] = Counter()
        for path, size, read in files:
            text, reason = "", filters.skip_reason_by_path(path, size)
            if reason is None:
                text, reason = filters.clean(read())
            if reason is not None:
                skips[reason] += 1
                continue
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            records.append({"id": digest, "repo": name, "path": path, "text": text, "sig": signature(text).tobytes()})
    except SourceProblem as problem:
        repository.skipped = str(problem)
        return repository
    repository.files, repository.bytes, repository.skips = (
        len(records),
        sum(len(r["text"].encode()) for r in records),
        dict(skips),
    )
    write_file(target, _pack([{"stamp": fingerprint, "about": asdict(repository)}, *records]))
    return repository


def _read_repositories(
    names: Sequence[str], mirror: Path, out: Path, workers: int, progress: Callable[[int, int], None],
    found: dict[str, Distribution], disjoint_from: Sequence[Path],
) -> dict[str, Repository]:  # fmt: skip
    done: dict[str, Repository] = {}
    if workers <= 1:
        for name in names:
            done[name] = read_repository(name, mirror, out, found.get(name), disjoint_from)
            progress(len(done), len(names))
        return done
    with ProcessPoolExecutor(workers) as pool:
        futures = [pool.submit(read_repository, name, mirror, out, found.get(name), disjoint_from) for name in names]
        for future in as_completed(futures):
            repository = future.result()
            done[repository.name] = repository
            progress(len(done), len(names))
    return done


def _records(name: str, out: Path) -> Iterator[dict[str, Any]]:
    records = _unpack(_file_of(name, out))
    next(records)
    yield from records


def _deduplicate(
    done: Sequence[Repository], out: Path, against: Sequence[Path], max_bytes: int
) -> Iterator[dict[str, Any]]:
    """Yield records without near-duplicates, at most `max_bytes` per repository. Updates the counts in `done`."""
    index = NearDuplicates()
    for other in against:
        for name in read_manifest(other)["read"]:
            for record in _records(name, other):
                index.is_duplicate(record["id"], np.frombuffer(record["sig"], np.uint32))
    for repository in done:
        repository.files = repository.bytes = 0
        skips = Counter(repository.skips)
        for record in sorted(_records(repository.name, out), key=lambda r: str(r["id"])):
            size = len(record["text"].encode())
            if repository.bytes + size > max_bytes:
                skips["over one repository's share"] += 1
            elif index.is_duplicate(record["id"], np.frombuffer(record["sig"], np.uint32)):
                skips["near-duplicate"] += 1
            else:
                repository.files, repository.bytes = repository.files + 1, repository.bytes + size
                yield {key: record[key] for key in ("id", "repo", "path", "text")}
        repository.skips = dict(skips)


def _write_shards(records: Iterator[dict[str, Any]], out: Path) -> list[str]:
    names: list[str] = []
    batch: list[dict[str, Any]] = []
    size = 0

    def flush() -> None:
        nonlocal batch, size
        if batch:
            data = _pack(batch)
            # The digest in the name keeps a reader with the old manifest from reading shards of a new build.
            names.append(f"text-{len(names):05d}-{hashlib.sha256(data).hexdigest()[:8]}.zst")
            write_file(out / names[-1], data)
        batch, size = [], 0

    for record in records:
        batch.append(record)
        size += len(record["text"])
        if size >= _SHARD_BYTES:
            flush()
    flush()
    return names


def read_manifest(out: Path) -> dict[str, Any]:
    """Return the manifest of a built corpus. Raises CorpusError if there is none."""
    try:
        found = json.loads((out / "manifest.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{out} contains no corpus: run `c2l-lab corpus build` first.") from error
    return dict(found)


def build(
    names: Sequence[str],
    mirror: Path,
    out: Path,
    *,
    against: Sequence[Path] = (),
    workers: int = 2,
    max_bytes: int = 3_000_000,
    progress: Callable[[int, int], None] = lambda done, total: None,
    site: Path | None = None,
    disjoint_from: Sequence[Path] = (),
) -> dict[str, Any]:
    """Build or update the corpus of `names` in `out`; return its manifest.

    - `against`: built corpora whose files, and near-duplicates of them, are excluded.
    - `max_bytes`: largest amount of text from one repository, so that no project's style dominates.
    - `site`: a folder of installed distributions or unpacked wheels to add.
    - `disjoint_from`: lists whose owners must not own one of these distributions.

    Raises CorpusError if the disk is full or no file is usable.
    """
    (out / "repositories").mkdir(parents=True, exist_ok=True)
    found = installed.find_distributions(site) if site else {}
    names = [*names, *found]
    done = _read_repositories(names, mirror, out, workers, progress, found, disjoint_from)
    used = [done[name] for name in names if not done[name].skipped]
    old = set(out.glob("text-*.zst"))
    shards = _write_shards(_deduplicate(used, out, against, max_bytes), out)
    skipped = {name: done[name].skipped for name in names if done[name].skipped}
    if not shards:
        reason = skipped or "all files were filtered out"
        raise CorpusError(f"None of the {len(names)} listed repositories has a usable file: {reason}.")
    manifest = {
        "repositories": [asdict(repository) for repository in used if repository.files],
        "skipped": skipped,
        "read": [repository.name for repository in used],
        "files": sum(repository.files for repository in used),
        "bytes": sum(repository.bytes for repository in used),
        "shards": shards,
        "rules": _RULES,
    }
    write_file(out / "manifest.json", json.dumps(manifest, indent=1).encode())
    for shard in old - {out / name for name in shards}:
        shard.unlink(missing_ok=True)
    return manifest


def documents(out: Path, shards: Sequence[str] | None = None) -> Iterator[Document]:
    """Yield the files of a built corpus, or of the given shards, in order. Raises CorpusError if there is no corpus."""
    for shard in read_manifest(out)["shards"] if shards is None else shards:
        for record in _unpack(out / shard):
            yield Document(**record)
