"""A list of repositories → cleaned, deduplicated Python text in compressed shards, and the manifest that names it all.

    OUT/repositories/OWNER+NAME.zst   one repository as read (the unit of resuming); signatures included
    OUT/text-00000.zst …              what is left after near-duplicate removal, msgpack records {id, repo, path, text}
    OUT/manifest.json                 repository, commit, licence, files, bytes, skips with reasons

A build is done again by the same command: repositories already read at the same commit are not read twice.
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
from c2l_lsp.errors import CorpusError

if TYPE_CHECKING:
    from importlib.metadata import Distribution

STANDARD_LIBRARY = "python/cpython"  # the name under which the installed standard library is listed
_RULES = 5  # part of what decides whether a repository must be read again: raise when a filter changes
_SHARD_BYTES = 16_000_000  # of text, before compression


@dataclass
class Repository:
    """What the manifest says of one repository."""

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
    """One kept file: the digest of its text, where it came from, its text."""

    id: str
    repo: str
    path: str
    text: str


def write_whole(file: Path, data: bytes) -> None:
    """Replace a file by `data`, whole or not at all. Raises CorpusError when the disk refuses."""
    part = file.with_suffix(file.suffix + ".part")
    try:
        part.write_bytes(data)
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise CorpusError(f"{file} can't be written ({error.strerror}): free some space and run it again.") from error


def _pack(records: Sequence[dict[str, Any]]) -> bytes:
    packer = msgpack.Packer()
    return zstandard.ZstdCompressor(level=6).compress(b"".join(packer.pack(record) for record in records))


def _unpack(file: Path) -> Iterator[dict[str, Any]]:
    with file.open("rb") as stream, zstandard.ZstdDecompressor().stream_reader(stream) as reader:
        yield from msgpack.Unpacker(io.BufferedReader(reader), max_buffer_size=1 << 30)


def _licence_of(git: GitRepository, blobs: Sequence[Blob]) -> str:
    stating = [b for b in blobs if licence.is_licence_file(b.path) or licence.is_metadata_file(b.path)]
    return licence.detect({blob.path: raw.decode("utf-8", "replace") for blob, raw in git.read(stating[:20])})


def _files_of_git(name: str, mirror: Path, about: Repository) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    git = GitRepository(git_folder(name, mirror))
    about.commit = git.commit()
    blobs = git.blobs(about.commit)
    about.licence = _permissive(_licence_of(git, blobs))
    python = [blob for blob in blobs if blob.path.endswith(".py")]
    small = [blob for blob in python if filters.refuse_path(blob.path, blob.size) is None]
    content = {blob.path: raw for blob, raw in git.read(small)}
    for blob in python:
        yield blob.path, blob.size, lambda path=blob.path: content.get(path, b"")  # type: ignore[misc]


def _files_of_library(about: Repository) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    about.licence, about.commit = "PSF-2.0", f"installed {sysconfig.get_python_version()}"
    return installed.files_of_library(Path(sysconfig.get_path("stdlib")))


def _permissive(found: str) -> str:
    if found not in licence.PERMISSIVE:
        raise SourceProblem("no licence found" if found == "unknown" else f"licence {found}")
    return found


def _files_of_distribution(
    distribution: Distribution, about: Repository
) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    about.commit, about.licence = distribution.version, _permissive(installed.licence_of(distribution))
    yield from installed.files_of(distribution, installed.SHARE)


def _stamp(name: str, mirror: Path, distribution: Distribution | None, apart: Sequence[Path]) -> str:
    if distribution is not None:
        if reason := installed.refuse(distribution, apart):  # also of what was read when the lists were others
            raise SourceProblem(reason)
        return f"{_RULES} {distribution.version}"
    commit = "" if name == STANDARD_LIBRARY else GitRepository(git_folder(name, mirror)).commit()
    return f"{_RULES} {commit}"


def _file_of(name: str, out: Path) -> Path:
    """Where a repository's records lie; a folder given by its path is named by a digest of it."""
    stem = hashlib.sha256(name.encode()).hexdigest()[:10] if name[0] in "/.~" else name.replace("/", "+")
    return out / "repositories" / f"{stem}.zst"


def read_repository(
    name: str, mirror: Path, out: Path, distribution: Distribution | None = None, apart: Sequence[Path] = ()
) -> Repository:
    """Read, filter and sign the Python files of one list entry into `out/repositories`; a second call finds them done.

    A `distribution` is read instead of a repository, unless its owner is on a list in `apart`.
    Never raises for what is wrong with the repository: `skipped` says it. A full disk raises CorpusError.
    """
    about = Repository(name)
    target = _file_of(name, out)
    try:
        stamp = _stamp(name, mirror, distribution, apart)
        if target.exists():
            head = next(_unpack(target))
            if head["stamp"] == stamp:
                return Repository(**head["about"])
        if distribution is not None:
            files = _files_of_distribution(distribution, about)
        else:
            files = _files_of_library(about) if name == STANDARD_LIBRARY else _files_of_git(name, mirror, about)
        records: list[dict[str, Any]] = []
        skips: Counter[str] = Counter()
        for path, size, read in files:
            text, reason = "", filters.refuse_path(path, size)
            if reason is None:
                text, reason = filters.clean(read())
            if reason is not None:
                skips[reason] += 1
                continue
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            records.append({"id": digest, "repo": name, "path": path, "text": text, "sig": signature(text).tobytes()})
    except SourceProblem as problem:
        about.skipped = str(problem)
        return about
    about.files, about.bytes, about.skips = len(records), sum(len(r["text"].encode()) for r in records), dict(skips)
    write_whole(target, _pack([{"stamp": stamp, "about": asdict(about)}, *records]))
    return about


def _read_all(
    names: Sequence[str], mirror: Path, out: Path, workers: int, progress: Callable[[int, int], None],
    found: dict[str, Distribution], apart: Sequence[Path],
) -> dict[str, Repository]:  # fmt: skip
    done: dict[str, Repository] = {}
    if workers <= 1:
        for name in names:
            done[name] = read_repository(name, mirror, out, found.get(name), apart)
            progress(len(done), len(names))
        return done
    with ProcessPoolExecutor(workers) as pool:
        waiting = [pool.submit(read_repository, name, mirror, out, found.get(name), apart) for name in names]
        for future in as_completed(waiting):
            about = future.result()
            done[about.name] = about
            progress(len(done), len(names))
    return done


def _records(name: str, out: Path) -> Iterator[dict[str, Any]]:
    records = _unpack(_file_of(name, out))
    next(records)
    yield from records


def _kept(done: Sequence[Repository], out: Path, against: Sequence[Path], cap: int) -> Iterator[dict[str, Any]]:
    """The records that survive near-duplicate removal, at most `cap` bytes of one repository; counts go to `done`."""
    index = NearDuplicates()
    for other in against:
        for name in manifest_of(other)["read"]:
            for record in _records(name, other):
                index.seen(record["id"], np.frombuffer(record["sig"], np.uint32))
    for about in done:
        about.files = about.bytes = 0
        skips = Counter(about.skips)
        for record in sorted(_records(about.name, out), key=lambda r: str(r["id"])):
            size = len(record["text"].encode())
            if about.bytes + size > cap:
                skips["over one repository's share"] += 1
            elif index.seen(record["id"], np.frombuffer(record["sig"], np.uint32)):
                skips["near-duplicate"] += 1
            else:
                about.files, about.bytes = about.files + 1, about.bytes + size
                yield {key: record[key] for key in ("id", "repo", "path", "text")}
        about.skips = dict(skips)


def _write_shards(records: Iterator[dict[str, Any]], out: Path) -> list[str]:
    names: list[str] = []
    batch: list[dict[str, Any]] = []
    size = 0

    def flush() -> None:
        nonlocal batch, size
        if batch:
            data = _pack(batch)
            # Named by content: a reader with the old manifest never meets half of a new build.
            names.append(f"text-{len(names):05d}-{hashlib.sha256(data).hexdigest()[:8]}.zst")
            write_whole(out / names[-1], data)
        batch, size = [], 0

    for record in records:
        batch.append(record)
        size += len(record["text"])
        if size >= _SHARD_BYTES:
            flush()
    flush()
    return names


def manifest_of(out: Path) -> dict[str, Any]:
    """The manifest of a built corpus. Raises CorpusError when there is none."""
    try:
        found = json.loads((out / "manifest.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{out} holds no built corpus: run `c2l-lsp corpus build` first.") from error
    return dict(found)


def build(
    names: Sequence[str],
    mirror: Path,
    out: Path,
    *,
    against: Sequence[Path] = (),
    workers: int = 2,
    cap: int = 3_000_000,
    progress: Callable[[int, int], None] = lambda done, total: None,
    site: Path | None = None,
    apart: Sequence[Path] = (),
) -> dict[str, Any]:
    """Build (or bring up to date) the corpus of `names` in `out` and return its manifest.

    `site`: a folder of installed distributions or unpacked wheels, added but for owners on the lists in `apart`.
    `against`: other built corpora none of whose files may come back here, however slightly changed. `cap`: most bytes
    of text from one repository, so that no project's style takes over. Raises CorpusError (disk, nothing usable).
    """
    (out / "repositories").mkdir(parents=True, exist_ok=True)
    found = installed.found_in(site) if site else {}
    names = [*names, *found]
    done = _read_all(names, mirror, out, workers, progress, found, apart)
    used = [done[name] for name in names if not done[name].skipped]
    old = set(out.glob("text-*.zst"))
    shards = _write_shards(_kept(used, out, against, cap), out)
    skipped = {name: done[name].skipped for name in names if done[name].skipped}
    if not shards:
        raise CorpusError(f"No file of the {len(names)} listed repositories can be used: {skipped or 'all filtered'}.")
    manifest = {
        "repositories": [asdict(about) for about in used if about.files],
        "skipped": skipped,
        "read": [about.name for about in used],
        "files": sum(about.files for about in used),
        "bytes": sum(about.bytes for about in used),
        "shards": shards,
        "rules": _RULES,
    }
    write_whole(out / "manifest.json", json.dumps(manifest, indent=1).encode())
    for shard in old - {out / name for name in shards}:
        shard.unlink(missing_ok=True)
    return manifest


def documents(out: Path, shards: Sequence[str] | None = None) -> Iterator[Document]:
    """Every kept file of a built corpus, or of some of its shards, in order. Raises CorpusError when there is none."""
    for shard in manifest_of(out)["shards"] if shards is None else shards:
        for record in _unpack(out / shard):
            yield Document(**record)
