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
import math
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import filelock
import msgspec
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from
from safetensors.torch import save as tensors_to
from torch import Tensor

from c2l_lsp.engine import disk
from c2l_lsp.errors import Severity, StateError, StorageError
from c2l_lsp.model.hypernet import Reading, RepoState

SCHEMA = 1
KEPT_GENERATIONS = 2
_POINTER = "CURRENT"
_LOCK = "lock"
_PURGE = "purge"  # stands for as long as something may be kept that the rules leave out by now
_READINGS = "readings.sqlite"
MARKS = (_POINTER, _LOCK, _READINGS, _PURGE)
"""Files of which every state directory has one, whatever happened to it."""

_BATCH = 500
_BUSY_S = 2.0
_LOG_BYTES = 16 << 20  # of SQLite's log, above which it is folded into the database
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
    _switching: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)
    _epoch: int = field(default=0, init=False, repr=False)
    _folding: threading.Thread | None = field(default=None, init=False, repr=False)

    # --- whose it is -----------------------------------------------------------------------------------------------

    def own(self) -> bool:
        """Whether this process may write here; tries to become the one that may. StorageError if no file can be made.

        The lock is the operating system's: it ends with the process that holds it, however that ends.
        """
        with self._switching:
            if self._lock is not None:
                return True
            try:
                disk.private(self.root)
                lock = filelock.FileLock(self.root / _LOCK, mode=0o600, thread_local=False)
                lock.acquire(blocking=False)
            except filelock.Timeout:
                return False
            except (OSError, NotImplementedError) as error:
                raise disk.cannot(self.root, error) from error
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
        self._fold_soon()

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

    def prune(self, alive: set[bytes], rule: str, texts: Collection[bytes] = ()) -> None:
        """Delete readings, and texts other than `texts`, that no file needs any more."""
        self._required()
        with self._errors(), self._open() as db:
            stored = [row[0] for row in db.execute("SELECT key FROM reading WHERE rule = ?", [rule])]
            gone = [(key, rule) for key in stored if key not in alive]
            db.executemany("DELETE FROM reading WHERE key = ? AND rule = ?", gone)
            db.execute("DELETE FROM reading WHERE rule <> ?", [rule])
            stored = [row[0] for row in db.execute("SELECT digest FROM text")]
            db.executemany("DELETE FROM text WHERE digest = ?", [[d] for d in stored if d not in texts])

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
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA synchronous=NORMAL")  # the last to close folds the log into the database
            self._db.close()
            self._db = None

    def _fold_soon(self) -> None:
        """Fold the log into the database once it is long, in a thread: it waits for the disk, and nothing else may."""
        log = self.root / f"{_READINGS}-wal"
        with contextlib.suppress(OSError):
            idle = self._folding is None or not self._folding.is_alive()
            if idle and log.stat().st_size > _LOG_BYTES:
                self._folding = threading.Thread(target=self._fold, name="c2l-fold", daemon=True)
                self._folding.start()

    def _fold(self, how: str = "PASSIVE") -> bool:
        """Whether all of the log could be folded in; a connection of its own, so that any thread may."""
        path = self.root / _READINGS
        if not path.is_file():
            return True
        try:
            with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=_BUSY_S)) as db:
                db.execute("PRAGMA synchronous=NORMAL")
                return not db.execute(f"PRAGMA wal_checkpoint({how})").fetchone()[0]
        except sqlite3.Error:
            return False

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            self._disconnect()
            raise disk.cannot(self.root, error) from error

    # --- generations -----------------------------------------------------------------------------------------------

    def save(self, saved: Saved, state: RepoState, extra: Mapping[str, Tensor]) -> bool:
        """Write a generation and switch to it. `extra` are more tensors it needs (a prior of the user's own base).

        Any thread may, while others read and write readings. False if all was cleared or purged meanwhile: then
        nothing is left of it.
        """
        self._required()
        epoch = self._epoch
        name = f"gen-{saved.generation:08d}-{time.time_ns():x}"
        target, aside, pointer = self.root / name, self.root / f".{name}.tmp", self.root / f".{_POINTER}.tmp"
        try:
            disk.private(self.root)
            aside.mkdir(mode=0o700)
            files = {
                "state.safetensors": tensors_to({k: t.contiguous() for k, t in state.tensors.items()}),
                "extra.safetensors": tensors_to({k: t.contiguous() for k, t in extra.items()}),
                "saved.msgpack": msgspec.msgpack.encode(saved),
            }
            for file, content in files.items():
                disk.write(aside / file, content)
            manifest = {"schema": SCHEMA, "sums": {file: _sum(content).hex() for file, content in files.items()}}
            disk.write(aside / "manifest.json", json.dumps(manifest).encode())
            disk.sync(aside)
            disk.write(pointer, name.encode())
            with self._switching:  # short: nobody waits for the disk here
                if epoch == self._epoch:
                    aside.rename(target)
                    pointer.replace(self.root / _POINTER)
            disk.sync(self.root)
        except OSError as error:
            if epoch != self._epoch:
                return False
            raise disk.cannot(self.root, error) from error
        if epoch != self._epoch:
            with contextlib.suppress(StorageError):
                disk.delete(aside, pointer)
            return False
        with contextlib.suppress(StorageError):  # the next save tries again
            disk.delete(*self._others(name))
        return True

    def _others(self, current: str) -> list[Path]:
        """Old generations, one left out, and what interrupted saves left."""
        generations = sorted((p for p in self.root.glob("gen-*") if p.suffix != ".bad"), key=lambda p: p.name)
        old = [path for path in generations if path.name != current][: -(KEPT_GENERATIONS - 1) or None]
        return old + list(self.root.glob(".gen-*.tmp"))

    # --- deleting --------------------------------------------------------------------------------------------------

    @property
    def purging(self) -> bool:
        """Whether a purge was begun, by this process or an earlier one, and not ended."""
        return (self.root / _PURGE).exists()

    def purge(self) -> None:
        """Other rules: delete every generation, also those set aside, and note that readings are yet to be pruned.

        StorageError if some of it cannot be deleted; it is no current generation any more in any case.
        """
        self._required()
        with self._switching:
            self._epoch += 1
            try:
                (self.root / _PURGE).touch(mode=0o600)
                (self.root / _POINTER).unlink(missing_ok=True)
            except OSError as error:
                raise disk.cannot(self.root, error) from error
        disk.delete(*self.root.glob("gen-*"), *self.root.glob(".gen-*.tmp"))

    @property
    def epoch(self) -> int:
        """Counts what was cleared and purged: what was begun in an earlier one is no use."""
        return self._epoch

    def purged(self, epoch: int) -> bool:
        """End the purge of an epoch (if that is still the last): readings were pruned, and nothing of them may stay in
        SQLite's log either. StorageError if that cannot be."""
        self._required()
        try:
            current = self._current()
        except _BROKEN as error:
            raise disk.cannot(self.root, error) from error
        disk.delete(*(path for path in self.root.glob("gen-*") if path != current), *self.root.glob(".gen-*.tmp"))
        if not self._fold("TRUNCATE"):
            raise StorageError(f"What the rules leave out by now cannot be deleted from {self.root} yet.")
        with self._switching:
            if epoch == self._epoch:
                disk.delete(self.root / _PURGE)
            return epoch == self._epoch

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
                raise self.refuse(error) from error
        return None  # pragma: no cover - the loop returns or raises

    def refuse(self, error: Exception) -> StateError:
        """The sentence for a generation that cannot be used; who may write sets it aside."""
        if self._may_write():
            self.set_aside()
        return StateError(f"The state in {self.root} is damaged ({error}); it was set aside and is built again.")

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
        numbers = [saved.gate, saved.gate_recall]
        state, extra = tensors_from(content["state.safetensors"]), tensors_from(content["extra.safetensors"])
        finite = all(bool(tensor.isfinite().all()) for tensor in [*state.values(), *extra.values()])
        if not (finite and all(math.isfinite(number) and number >= 0 for number in numbers) and saved.generation >= 0):
            raise ValueError("numbers that are not finite, or below 0")
        return saved, RepoState(state), extra

    def set_aside(self) -> None:
        """Take the current generation out of use, keeping it for a look (`*.bad`)."""
        with contextlib.suppress(OSError, StorageError):
            pointer = self.root / _POINTER
            name = pointer.read_text(encoding="ascii", errors="replace").strip()
            pointer.unlink()
            directory = self.root / Path(name).name
            if name.startswith("gen-") and directory.is_dir():
                disk.delete(*self.root.glob("*.bad"))
                directory.rename(directory.with_suffix(".bad"))

    def clear(self) -> None:
        """Forget everything about the folder; with another process that keeps it, nothing (InUse).

        StorageError if some of it cannot be deleted.
        """
        self._required()
        with self._switching:
            self._epoch += 1
            self.close()
            with contextlib.suppress(OSError):  # first, so that what cannot be deleted is not loaded either
                (self.root / _POINTER).unlink()
        disk.delete(self.root)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)
    with contextlib.suppress(OSError):
        path.chmod(0o600)
    db.text_factory = bytes  # a damaged row must reach the checksum, not fail to decode
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=OFF")  # nor is the disk waited for here: `_fold` does, and only that writes the file
    db.execute("PRAGMA wal_autocheckpoint=0")
    db.execute("PRAGMA secure_delete=ON")
    db.execute(
        "CREATE TABLE IF NOT EXISTS reading (key BLOB, rule TEXT, value BLOB, sum BLOB, PRIMARY KEY (key, rule))"
    )
    db.execute("CREATE TABLE IF NOT EXISTS text (digest BLOB PRIMARY KEY, value BLOB, sum BLOB)")
    return db


def _sum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
