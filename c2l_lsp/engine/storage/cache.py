"""Readings and texts by content, in one SQLite file of a folder's state directory: a cache.

Each row carries its own checksum, and a lost row is read again from the text. Who may not write reads what is there.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as tensors_from
from safetensors.torch import save as tensors_to

from c2l_lsp.engine.storage import disk
from c2l_lsp.engine.storage.state_lock import StateLock
from c2l_lsp.model.hypernet.protocol import ChunkEmbedding

DATABASE = "readings.sqlite"
_BATCH = 500
_BUSY_S = 2.0
_LOG_BYTES = 16 << 20  # of SQLite's log, above which it is folded into the database


class Cache:
    """The database below the directory of a claim. StorageError when it cannot be written or read, InUse when another
    process writes it."""

    def __init__(self, lock: StateLock) -> None:
        self._lock = lock
        self._path = lock.root / DATABASE
        self._db: sqlite3.Connection | None = None
        self._writes = False  # what the connection was opened for
        self._folding: threading.Thread | None = None

    def get(self, keys: Iterable[bytes], rule: str) -> dict[bytes, ChunkEmbedding]:
        """Stored readings of some keys; what is missing or damaged is simply not in the answer."""
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, ChunkEmbedding] = {}
        with self._errors():
            if self._nothing_to_read():
                return found
            for start in range(0, len(wanted), _BATCH):
                part = wanted[start : start + _BATCH]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, value, sum FROM reading WHERE rule = ? AND key IN ({marks})"  # noqa: S608
                for key, value, checksum in self._open().execute(query, [rule, *part]):
                    if disk.checksum(value) == checksum:
                        with contextlib.suppress(SafetensorError):
                            found[key] = tensors_from(value)
        return found

    def put(self, readings: Mapping[bytes, ChunkEmbedding], rule: str) -> None:
        """Keep readings."""
        rows = []
        for key, reading in readings.items():
            value = tensors_to(dict(reading))
            rows.append((key, rule, value, disk.checksum(value)))
        self._lock.require_held()
        with self._errors(), self._open() as db:
            db.executemany("INSERT OR REPLACE INTO reading VALUES (?, ?, ?, ?)", rows)
        self._fold_soon()

    def get_texts(self, digests: Iterable[bytes]) -> dict[bytes, str]:
        """Kept texts of files by digest (only a hypernetwork that reads diffs has them kept)."""
        found: dict[bytes, str] = {}
        with self._errors():
            if self._nothing_to_read():
                return found
            for digest in dict.fromkeys(digests):
                row = self._open().execute("SELECT value, sum FROM text WHERE digest = ?", [digest]).fetchone()
                if row is not None and disk.checksum(row[0]) == row[1]:
                    found[digest] = zlib.decompress(row[0]).decode("utf-8")
        return found

    def put_texts(self, texts: Mapping[bytes, str], alive: set[bytes]) -> None:
        """Keep texts of files; those that are not `alive` any more are deleted."""
        self._lock.require_held()
        packed = {digest: zlib.compress(text.encode("utf-8")) for digest, text in texts.items()}
        with self._errors(), self._open() as db:
            rows = [(digest, value, disk.checksum(value)) for digest, value in packed.items()]
            db.executemany("INSERT OR REPLACE INTO text VALUES (?, ?, ?)", rows)
            stored = [row[0] for row in db.execute("SELECT digest FROM text")]
            db.executemany("DELETE FROM text WHERE digest = ?", [[d] for d in stored if d not in alive])

    def prune(self, alive: set[bytes], rule: str, texts: Collection[bytes] = ()) -> None:
        """Delete readings, and texts other than `texts`, that no file needs any more."""
        self._lock.require_held()
        with self._errors(), self._open() as db:
            stored = [row[0] for row in db.execute("SELECT key FROM reading WHERE rule = ?", [rule])]
            gone = [(key, rule) for key in stored if key not in alive]
            db.executemany("DELETE FROM reading WHERE key = ? AND rule = ?", gone)
            db.execute("DELETE FROM reading WHERE rule <> ?", [rule])
            stored = [row[0] for row in db.execute("SELECT digest FROM text")]
            db.executemany("DELETE FROM text WHERE digest = ?", [[d] for d in stored if d not in texts])

    def _nothing_to_read(self) -> bool:
        return not self._lock.acquire() and not self._path.is_file()

    def _open(self) -> sqlite3.Connection:
        if self._lock.held and not self._writes:
            self.close()  # it was open for reading at most
        if self._db is None:
            self._writes = self._lock.acquire()
            if not self._writes:
                self._db = sqlite3.connect(self._uri("ro"), uri=True, timeout=0.5, check_same_thread=False)
                self._db.text_factory = bytes
                return self._db
            try:
                self._db = _connect(self._path)
            except sqlite3.OperationalError:  # a disk that fails, not a file that is damaged
                raise
            except sqlite3.DatabaseError:  # a damaged cache is set aside; everything in it can be read again
                for part in ("", "-wal", "-shm"):
                    self._path.with_name(self._path.name + part).unlink(missing_ok=True)
                self._db = _connect(self._path)
        return self._db

    def _uri(self, mode: str) -> str:
        return f"{self._path.as_uri()}?mode={mode}"

    def close(self) -> None:
        """Let go of the file; it is opened again when it is used."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA synchronous=NORMAL")  # the last to close folds the log into the database
            self._db.close()
            self._db = None

    def _fold_soon(self) -> None:
        """Fold the log into the database once it is long, in a thread: it waits for the disk, and nothing else may."""
        log = self._path.with_name(f"{DATABASE}-wal")
        with contextlib.suppress(OSError):
            idle = self._folding is None or not self._folding.is_alive()
            if idle and log.stat().st_size > _LOG_BYTES:
                self._folding = threading.Thread(target=self.checkpoint, name="c2l-fold", daemon=True)
                self._folding.start()

    def checkpoint(self, how: str = "PASSIVE") -> bool:
        """Whether all of the log could be folded in; a connection of its own, so that any thread may."""
        if not self._path.is_file():
            return True
        try:
            with contextlib.closing(sqlite3.connect(self._uri("rw"), uri=True, timeout=_BUSY_S)) as db:
                db.execute("PRAGMA synchronous=NORMAL")
                return not db.execute(f"PRAGMA wal_checkpoint({how})").fetchone()[0]
        except sqlite3.Error:
            return False

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise disk.storage_error(self._lock.root, error) from error


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)
    with contextlib.suppress(OSError):
        path.chmod(0o600)
    db.text_factory = bytes  # a damaged row must reach the checksum, not fail to decode
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=OFF")  # nor is the disk waited for here: `fold` does, and only that writes the file
    db.execute("PRAGMA wal_autocheckpoint=0")
    db.execute("PRAGMA secure_delete=ON")
    db.execute(
        "CREATE TABLE IF NOT EXISTS reading (key BLOB, rule TEXT, value BLOB, sum BLOB, PRIMARY KEY (key, rule))"
    )
    db.execute("CREATE TABLE IF NOT EXISTS text (digest BLOB PRIMARY KEY, value BLOB, sum BLOB)")
    return db
