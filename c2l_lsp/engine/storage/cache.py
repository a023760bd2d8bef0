"""Cache of chunk embeddings and file texts by content hash: one SQLite file in a folder's state directory.

Each row has a checksum. A missing or damaged row is computed again from the file. A process without the state lock only
reads.
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
_MAX_WAL_BYTES = 16 << 20  # a longer write-ahead log is copied into the database


class Cache:
    """The database in the directory of `lock`.

    All methods raise StorageError if the database cannot be read or written. Writing raises StateInUse if another
    process holds the lock. `rule` names the hypernetwork and version that an embedding was computed with.
    """

    def __init__(self, lock: StateLock) -> None:
        self._lock = lock
        self._path = lock.root / DATABASE
        self._db: sqlite3.Connection | None = None
        self._writable = False  # whether the connection may write
        self._checkpointing: threading.Thread | None = None

    def get(self, keys: Iterable[bytes], rule: str) -> dict[bytes, ChunkEmbedding]:
        """Return the stored embeddings of these keys. Missing and damaged ones are left out."""
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, ChunkEmbedding] = {}
        with self._errors():
            if self._is_missing():
                return found
            for start in range(0, len(wanted), _BATCH):
                batch = wanted[start : start + _BATCH]
                marks = ",".join("?" * len(batch))
                query = f"SELECT key, value, sum FROM reading WHERE rule = ? AND key IN ({marks})"  # noqa: S608
                for key, value, checksum in self._open().execute(query, [rule, *batch]):
                    if disk.checksum(value) == checksum:
                        with contextlib.suppress(SafetensorError):
                            found[key] = tensors_from(value)
        return found

    def put(self, embeddings: Mapping[bytes, ChunkEmbedding], rule: str) -> None:
        """Store chunk embeddings, replacing those with the same key and rule."""
        rows = []
        for key, embedding in embeddings.items():
            value = tensors_to(dict(embedding))
            rows.append((key, rule, value, disk.checksum(value)))
        self._lock.require_held()
        with self._errors(), self._open() as db:
            db.executemany("INSERT OR REPLACE INTO reading VALUES (?, ?, ?, ?)", rows)
        self._checkpoint_soon()

    def get_texts(self, digests: Iterable[bytes]) -> dict[bytes, str]:
        """Return the stored file texts of these digests. Missing and damaged ones are left out."""
        found: dict[bytes, str] = {}
        with self._errors():
            if self._is_missing():
                return found
            for digest in dict.fromkeys(digests):
                row = self._open().execute("SELECT value, sum FROM text WHERE digest = ?", [digest]).fetchone()
                if row is not None and disk.checksum(row[0]) == row[1]:
                    found[digest] = zlib.decompress(row[0]).decode("utf-8")
        return found

    def put_texts(self, texts: Mapping[bytes, str], alive: set[bytes]) -> None:
        """Store file texts, and delete all whose digest is not in `alive`."""
        self._lock.require_held()
        packed = {digest: zlib.compress(text.encode("utf-8")) for digest, text in texts.items()}
        with self._errors(), self._open() as db:
            rows = [(digest, value, disk.checksum(value)) for digest, value in packed.items()]
            db.executemany("INSERT OR REPLACE INTO text VALUES (?, ?, ?)", rows)
            stored = [row[0] for row in db.execute("SELECT digest FROM text")]
            db.executemany("DELETE FROM text WHERE digest = ?", [[d] for d in stored if d not in alive])

    def prune(self, alive: set[bytes], rule: str, texts: Collection[bytes] = ()) -> None:
        """Delete all embeddings but those of `alive` under `rule`, and all texts but those of `texts`."""
        self._lock.require_held()
        with self._errors(), self._open() as db:
            stored = [row[0] for row in db.execute("SELECT key FROM reading WHERE rule = ?", [rule])]
            unused = [(key, rule) for key in stored if key not in alive]
            db.executemany("DELETE FROM reading WHERE key = ? AND rule = ?", unused)
            db.execute("DELETE FROM reading WHERE rule <> ?", [rule])
            stored = [row[0] for row in db.execute("SELECT digest FROM text")]
            db.executemany("DELETE FROM text WHERE digest = ?", [[d] for d in stored if d not in texts])

    def _is_missing(self) -> bool:
        return not self._lock.acquire() and not self._path.is_file()

    def _open(self) -> sqlite3.Connection:
        if self._lock.held and not self._writable:
            self.close()  # the lock was acquired after the connection was opened for reading
        if self._db is None:
            self._writable = self._lock.acquire()
            if not self._writable:
                self._db = sqlite3.connect(self._uri("ro"), uri=True, timeout=0.5, check_same_thread=False)
                self._db.text_factory = bytes
                return self._db
            try:
                self._db = _connect(self._path)
            except sqlite3.OperationalError:  # the disk fails; the file may be sound
                raise
            except sqlite3.DatabaseError:  # a damaged file is replaced: everything in it can be computed again
                for part in ("", "-wal", "-shm"):
                    self._path.with_name(self._path.name + part).unlink(missing_ok=True)
                self._db = _connect(self._path)
        return self._db

    def _uri(self, mode: str) -> str:
        return f"{self._path.as_uri()}?mode={mode}"

    def close(self) -> None:
        """Close the file. It is opened again by the next use."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA synchronous=NORMAL")  # closing the last connection checkpoints the log
            self._db.close()
            self._db = None

    def _checkpoint_soon(self) -> None:
        """Checkpoint a long write-ahead log, in a thread because it waits for the disk."""
        log = self._path.with_name(f"{DATABASE}-wal")
        with contextlib.suppress(OSError):
            idle = self._checkpointing is None or not self._checkpointing.is_alive()
            if idle and log.stat().st_size > _MAX_WAL_BYTES:
                self._checkpointing = threading.Thread(target=self.checkpoint, name="c2l-checkpoint", daemon=True)
                self._checkpointing.start()

    def checkpoint(self, mode: str = "PASSIVE") -> bool:
        """Copy the write-ahead log into the database, and return whether nothing of it is left to copy.

        `mode` is SQLite's: PASSIVE does not wait for readers, TRUNCATE does and empties the log. Uses its own
        connection, so any thread may call it.
        """
        if not self._path.is_file():
            return True
        try:
            with contextlib.closing(sqlite3.connect(self._uri("rw"), uri=True, timeout=_BUSY_S)) as db:
                db.execute("PRAGMA synchronous=NORMAL")
                return not db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()[0]
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
    db.text_factory = bytes  # damaged text must fail its checksum rather than raise on decoding
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=OFF")  # only `checkpoint` writes the database file, and waits for the disk
    db.execute("PRAGMA wal_autocheckpoint=0")
    db.execute("PRAGMA secure_delete=ON")
    db.execute(
        "CREATE TABLE IF NOT EXISTS reading (key BLOB, rule TEXT, value BLOB, sum BLOB, PRIMARY KEY (key, rule))"
    )
    db.execute("CREATE TABLE IF NOT EXISTS text (digest BLOB PRIMARY KEY, value BLOB, sum BLOB)")
    return db
