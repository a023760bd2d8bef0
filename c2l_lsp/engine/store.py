"""What a folder's state is kept in: readings by content (a cache), and generations of the state (the truth).

Readings live in one SQLite file; each row carries its own checksum and a lost row is read again from the text.
A generation is a directory written aside, its manifest with the checksums last, then one atomic pointer switch: a load
takes a whole generation or none. Everything is private to the user (0700/0600) and outside the workspace. One process
at a time writes (the one that holds the lock); another that has the same folder open reads what is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import filelock
import msgspec
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from
from safetensors.torch import save as tensors_to
from torch import Tensor

from c2l_lsp.errors import Severity, StateError, StorageError
from c2l_lsp.model.hypernet import Reading, RepoState

SCHEMA = 1
KEPT_GENERATIONS = 2
_POINTER = "CURRENT"
_LOCK = "lock"
_READINGS = "readings.sqlite"
_BATCH = 500
_BUSY_S = 2.0
_BROKEN = (OSError, ValueError, KeyError, TypeError, msgspec.MsgspecError, SafetensorError)


def folder_key(folder: Path) -> str:
    """Name of a folder's state directory: a readable part and a hash of the real path."""
    real = os.path.realpath(folder)
    digest = hashlib.blake2b(os.path.normcase(real).encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
    readable = "".join(c if c.isalnum() or c in "-_." else "-" for c in Path(real).name)[:40] or "root"
    return f"{readable}-{digest}"


class InUse(StorageError):
    """Another process keeps this folder's state; nothing is wrong, and nothing may be written."""

    severity = Severity.INFO


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What a generation stands for: the files folded into it and by which hypernetwork, under which filter.

    `files` maps a path to the digest, size and mtime_ns of the text and the keys of its pieces; `seen` likewise every
    file of the folder, learned or not (so that a change made later is known as one); `touched` are files that were
    changed, latest last; `first` names the chunks that files outside the sample had at first (see `Sample`).
    """

    schema: int
    folder: str
    hypernetwork: str
    filter_digest: str
    generation: int
    gate: float
    gate_recall: float = 1.0
    files: dict[str, tuple[bytes, int, int, list[bytes]]]
    seen: dict[str, tuple[bytes, int, int]] = {}
    touched: list[str] = []
    first: dict[str, bytes] = {}


@dataclass
class FolderStore:
    """The state directory of one folder. StorageError when it cannot be written, StateError when it cannot be read."""

    root: Path
    _db: sqlite3.Connection | None = field(default=None, init=False, repr=False)
    _lock: filelock.BaseFileLock | None = field(default=None, init=False, repr=False)

    # --- whose it is -----------------------------------------------------------------------------------------------

    def own(self) -> bool:
        """Whether this process may write here; tries to become the one that may. StorageError if no file can be made.

        The lock is the operating system's: it ends with the process that holds it, however that ends.
        """
        if self._lock is not None:
            return True
        try:
            _private(self.root)
            lock = filelock.FileLock(self.root / _LOCK, mode=0o600, thread_local=False)
            lock.acquire(blocking=False)
        except filelock.Timeout:
            return False
        except (OSError, NotImplementedError) as error:
            raise _cannot(self.root, error) from error
        self._lock = lock
        self._disconnect()  # it was open for reading at most
        return True

    def _required(self) -> None:
        if not self.own():
            raise InUse(f"Another server keeps what is learned in {self.root}; this one keeps nothing there meanwhile.")

    # --- readings --------------------------------------------------------------------------------------------------

    def get(self, keys: Iterable[bytes], rule: str) -> dict[bytes, Reading]:
        """Stored readings of some keys; what is missing or damaged is simply not in the answer."""
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, Reading] = {}
        with self._errors():
            if self._nothing_to_read():
                return found
            for start in range(0, len(wanted), _BATCH):
                part = wanted[start : start + _BATCH]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, value, sum FROM reading WHERE rule = ? AND key IN ({marks})"  # noqa: S608
                for key, value, checksum in self._open().execute(query, [rule, *part]):
                    if _sum(value) == checksum:
                        with contextlib.suppress(SafetensorError):
                            found[key] = tensors_from(value)
        return found

    def put(self, readings: Mapping[bytes, Reading], rule: str) -> None:
        """Keep readings."""
        rows = []
        for key, reading in readings.items():
            value = tensors_to(dict(reading))
            rows.append((key, rule, value, _sum(value)))
        self._required()
        with self._errors(), self._open() as db:
            db.executemany("INSERT OR REPLACE INTO reading VALUES (?, ?, ?, ?)", rows)

    def texts(self, digests: Iterable[bytes]) -> dict[bytes, str]:
        """Kept texts of files by digest (only a hypernetwork that reads diffs has them kept)."""
        found: dict[bytes, str] = {}
        with self._errors():
            if self._nothing_to_read():
                return found
            for digest in dict.fromkeys(digests):
                row = self._open().execute("SELECT value, sum FROM text WHERE digest = ?", [digest]).fetchone()
                if row is not None and _sum(row[0]) == row[1]:
                    found[digest] = zlib.decompress(row[0]).decode("utf-8")
        return found

    def put_texts(self, texts: Mapping[bytes, str], alive: set[bytes]) -> None:
        """Keep texts of files; those that are not `alive` any more are deleted."""
        self._required()
        packed = {digest: zlib.compress(text.encode("utf-8")) for digest, text in texts.items()}
        with self._errors(), self._open() as db:
            rows = [(digest, value, _sum(value)) for digest, value in packed.items()]
            db.executemany("INSERT OR REPLACE INTO text VALUES (?, ?, ?)", rows)
            stored = [row[0] for row in db.execute("SELECT digest FROM text")]
            db.executemany("DELETE FROM text WHERE digest = ?", [[d] for d in stored if d not in alive])

    def prune(self, alive: set[bytes], rule: str) -> None:
        """Delete readings that no file needs any more."""
        self._required()
        with self._errors(), self._open() as db:
            stored = [row[0] for row in db.execute("SELECT key FROM reading WHERE rule = ?", [rule])]
            gone = [(key, rule) for key in stored if key not in alive]
            db.executemany("DELETE FROM reading WHERE key = ? AND rule = ?", gone)
            db.execute("DELETE FROM reading WHERE rule <> ?", [rule])

    def _nothing_to_read(self) -> bool:
        return not self.own() and not (self.root / _READINGS).is_file()

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            path = self.root / _READINGS
            if not self.own():
                self._db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0.5, check_same_thread=False)
                self._db.text_factory = bytes
                return self._db
            try:
                self._db = _connect(path)
            except sqlite3.OperationalError:  # a disk that fails, not a file that is damaged
                raise
            except sqlite3.DatabaseError:  # a damaged cache is set aside; everything in it can be read again
                for part in ("", "-wal", "-shm"):
                    path.with_name(path.name + part).unlink(missing_ok=True)
                self._db = _connect(path)
        return self._db

    def close(self) -> None:
        """Let go of the files, and of the right to write them."""
        self._disconnect()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            self._disconnect()
            raise _cannot(self.root, error) from error

    # --- generations -----------------------------------------------------------------------------------------------

    def save(self, saved: Saved, state: RepoState, extra: Mapping[str, Tensor]) -> None:
        """Write a generation and switch to it. `extra` are more tensors it needs (a prior of the user's own base)."""
        self._required()
        name = f"gen-{saved.generation:08d}-{time.time_ns():x}"
        target = self.root / name
        try:
            _private(self.root)
            aside = self.root / f".{name}.tmp"
            aside.mkdir(mode=0o700)
            files = {
                "state.safetensors": tensors_to({k: t.contiguous() for k, t in state.tensors.items()}),
                "extra.safetensors": tensors_to({k: t.contiguous() for k, t in extra.items()}),
                "saved.msgpack": msgspec.msgpack.encode(saved),
            }
            for file, content in files.items():
                _write(aside / file, content)
            manifest = {"schema": SCHEMA, "sums": {file: _sum(content).hex() for file, content in files.items()}}
            _write(aside / "manifest.json", json.dumps(manifest).encode())
            _sync(aside)
            aside.rename(target)
            _write(self.root / f".{_POINTER}.tmp", name.encode())
            (self.root / f".{_POINTER}.tmp").replace(self.root / _POINTER)
            _sync(self.root)
        except OSError as error:
            raise _cannot(self.root, error) from error
        self._sweep(name)

    def load(self) -> tuple[Saved, RepoState, dict[str, Tensor]] | None:
        """The newest whole generation; None if there is none yet. StateError after setting a broken one aside.

        Without the right to write nothing is set aside: it may be the other process that is just replacing it.
        """
        writer = self._may_write()
        for last in (False, True):
            try:
                directory = self._current()
                return None if directory is None else self._read(directory)
            except _BROKEN as error:
                if not (writer or last):
                    continue  # two saves may have come between pointer and files
                if writer:
                    self.set_aside()
                raise StateError(
                    f"The state in {self.root} is damaged ({error}); it was set aside and is built again."
                ) from error
        return None  # pragma: no cover - the loop returns or raises

    def _may_write(self) -> bool:
        try:
            return self.own()
        except StorageError:  # saving will tell
            return False

    def peek(self) -> Saved | None:
        """What the newest generation stands for, without its tensors and without touching anything."""
        try:
            directory = self._current()
            return None if directory is None else self._read(directory)[0]
        except _BROKEN as error:
            raise StateError(f"The state in {self.root} is damaged ({error}).") from error

    def _current(self) -> Path | None:
        try:
            name = (self.root / _POINTER).read_text(encoding="ascii").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not name.startswith("gen-") or Path(name).name != name:
            raise ValueError("a damaged pointer")
        return self.root / name

    def _read(self, directory: Path) -> tuple[Saved, RepoState, dict[str, Tensor]]:
        manifest = json.loads((directory / "manifest.json").read_bytes())
        if manifest.get("schema") != SCHEMA:
            raise ValueError(f"schema {manifest.get('schema')}, not {SCHEMA}")
        content = {}
        for file, checksum in manifest["sums"].items():
            if Path(file).name != file:
                raise ValueError("a file name that leaves the directory")
            content[file] = (directory / file).read_bytes()  # private memory: a mapped file could change under us
            if _sum(content[file]).hex() != checksum:
                raise ValueError(f"{file} does not match its checksum")
        saved = msgspec.msgpack.decode(content["saved.msgpack"], type=Saved, strict=True)
        state = RepoState(tensors_from(content["state.safetensors"]))
        if not all(bool(tensor.isfinite().all()) for tensor in state.tensors.values()):
            raise ValueError("numbers that are not finite")
        return saved, state, tensors_from(content["extra.safetensors"])

    def set_aside(self) -> None:
        """Take the current generation out of use, keeping it for a look (`*.bad`)."""
        with contextlib.suppress(OSError):
            pointer = self.root / _POINTER
            name = pointer.read_text(encoding="ascii", errors="replace").strip()
            pointer.unlink()
            directory = self.root / Path(name).name
            if name.startswith("gen-") and directory.is_dir():
                for old in self.root.glob("*.bad"):
                    shutil.rmtree(old, ignore_errors=True)
                directory.rename(directory.with_suffix(".bad"))

    def clear(self) -> None:
        """Forget everything about the folder; with another process that keeps it, nothing (InUse)."""
        self._required()
        self.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def _sweep(self, current: str) -> None:
        """Remove old generations and what interrupted saves left."""
        generations = sorted((p for p in self.root.glob("gen-*") if p.suffix != ".bad"), key=lambda p: p.name)
        for old in [p for p in generations if p.name != current][: -(KEPT_GENERATIONS - 1) or None]:
            shutil.rmtree(old, ignore_errors=True)
        for left in self.root.glob(".gen-*.tmp"):
            shutil.rmtree(left, ignore_errors=True)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)
    with contextlib.suppress(OSError):
        path.chmod(0o600)
    db.text_factory = bytes  # a damaged row must reach the checksum, not fail to decode
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute(
        "CREATE TABLE IF NOT EXISTS reading (key BLOB, rule TEXT, value BLOB, sum BLOB, PRIMARY KEY (key, rule))"
    )
    db.execute("CREATE TABLE IF NOT EXISTS text (digest BLOB PRIMARY KEY, value BLOB, sum BLOB)")
    return db


def _cannot(root: Path, error: Exception) -> StorageError:
    why = getattr(error, "strerror", None) or error
    return StorageError(f"What was learned cannot be kept in {root}: {why}.")


def _private(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(OSError):  # a file system without modes
        root.chmod(0o700)


def _sum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    """Make a rename durable where directories can be synced (not on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
