"""Cache of chunk embeddings and file texts by content hash: one SQLite file in a folder's state directory.

Each row has a checksum. A row that does not match it is computed again from the file. A database that is damaged or not
ours is set aside with a message, and all of it is computed again. A process without the state lock only reads.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeVar

from safetensors.torch import save as tensors_to

from c2l_lsp import regular_files
from c2l_lsp.engine.storage import database, decoding, disk
from c2l_lsp.engine.storage.database import Database
from c2l_lsp.engine.storage.state_lock import StateLock
from c2l_lsp.errors import StateError
from c2l_lsp.model.hypernet.protocol import ChunkEmbedding

DATABASE = database.NAME
_BATCH = 500
_BUSY_S = 2.0
_MAX_WAL_BYTES = 16 << 20  # a longer write-ahead log is copied into the database
_SIZED = "typeof(value) = 'blob' AND length(value) <= ?"

Check = Callable[[bytes, ChunkEmbedding], None]
"""Raises StateError unless the embedding is one that the hypernetwork can have made for the key."""

_T = TypeVar("_T")


class Cache:
    """The database in the directory of `lock`.

    All methods raise StorageError if the database cannot be read or written. Writing raises StateInUse if another
    process holds the lock. `rule` names the hypernetwork and version that an embedding was computed with.
    """

    def __init__(self, lock: StateLock) -> None:
        self._lock = lock
        self._path = lock.root / DATABASE
        self._db: Database | None = None
        self._checkpointing: threading.Thread | None = None

    def get(
        self, keys: Iterable[bytes], rule: str, check: Check = lambda key, embedding: None
    ) -> dict[bytes, ChunkEmbedding]:
        """Return the stored embeddings of these keys. Missing ones, and rows damaged on the disk, are left out."""
        wanted = list(dict.fromkeys(keys))
        if self._is_missing():
            return {}

        def read(db: sqlite3.Connection) -> dict[bytes, ChunkEmbedding]:
            found: dict[bytes, ChunkEmbedding] = {}
            for start in range(0, len(wanted), _BATCH):
                batch = wanted[start : start + _BATCH]
                marks = ",".join("?" * len(batch))
                query = f"SELECT key, value, sum FROM reading WHERE rule = ? AND key IN ({marks}) AND {_SIZED}"  # noqa: S608
                for key, value, checksum in db.execute(query, [rule, *batch, decoding.MAX_ROW_BYTES]):
                    packed = decoding.verified(value, checksum)
                    if packed is not None:
                        embedding = decoding.tensors(packed, "a chunk embedding")
                        check(key, embedding)
                        found[key] = embedding
            return found

        return self._use(read)

    def put(self, embeddings: Mapping[bytes, ChunkEmbedding], rule: str) -> None:
        """Store chunk embeddings, replacing those with the same key and rule."""
        rows = []
        for key, embedding in embeddings.items():
            value = tensors_to(dict(embedding))
            rows.append((key, rule, value, disk.checksum(value)))
        self._lock.require_held()
        self._use(lambda db: db.executemany("INSERT OR REPLACE INTO reading VALUES (?, ?, ?, ?)", rows))
        self._checkpoint_soon()

    def get_texts(self, digests: Iterable[bytes]) -> dict[bytes, str]:
        """Return the stored file texts of these digests. Missing ones, and rows damaged on the disk, are left out."""
        wanted = list(dict.fromkeys(digests))
        if self._is_missing():
            return {}

        def read(db: sqlite3.Connection) -> dict[bytes, str]:
            found: dict[bytes, str] = {}
            for digest in wanted:
                query = f"SELECT value, sum FROM text WHERE digest = ? AND {_SIZED}"  # noqa: S608
                row = db.execute(query, [digest, decoding.MAX_ROW_BYTES]).fetchone()
                packed = None if row is None else decoding.verified(*row)
                if packed is not None:
                    found[digest] = decoding.text(packed)
            return found

        return self._use(read)

    def put_texts(self, texts: Mapping[bytes, str], alive: set[bytes]) -> None:
        """Store file texts, and delete all whose digest is not in `alive`."""
        self._lock.require_held()
        packed = {digest: zlib.compress(text.encode("utf-8")) for digest, text in texts.items()}
        rows = [(digest, value, disk.checksum(value)) for digest, value in packed.items()]

        def write(db: sqlite3.Connection) -> None:
            db.executemany("INSERT OR REPLACE INTO text VALUES (?, ?, ?)", rows)
            _keep_texts(db, alive)

        self._use(write)

    def prune(self, alive: set[bytes], rule: str, texts: Collection[bytes] = ()) -> None:
        """Delete all embeddings but those of `alive` under `rule`, and all texts but those of `texts`."""
        self._lock.require_held()

        def write(db: sqlite3.Connection) -> None:
            stored = [row[0] for row in db.execute("SELECT key FROM reading WHERE rule = ?", [rule])]
            unused = [(key, rule) for key in stored if key not in alive]
            db.executemany("DELETE FROM reading WHERE key = ? AND rule = ?", unused)
            db.execute("DELETE FROM reading WHERE rule <> ? OR rule IS NULL OR key IS NULL", [rule])
            _keep_texts(db, texts)

        self._use(write)

    def distrust(self, error: StateError) -> None:
        """Set the database aside because of what was computed from it: all of it is computed again.

        Does nothing if another process holds the lock.
        """
        if self._lock.acquire():
            self._set_aside(error)

    def _is_missing(self) -> bool:
        return not self._lock.acquire() and not regular_files.is_regular(self._path)

    # --- opening -----------------------------------------------------------------------------------------------------

    def _use(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `work` in a transaction. A database that is damaged or not ours is set aside, and `work` runs again."""
        try:
            try:
                return self._attempt(work)
            except StateError as error:
                if not self._lock.acquire():
                    raise
                self._set_aside(error)
                return self._attempt(work)
        except (OSError, sqlite3.Error, StateError) as error:
            self.close()
            raise disk.storage_error(self._lock.root, error) from error

    def _attempt(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._open().use() as db:
            return work(db)

    def _open(self) -> Database:
        if self._lock.held and self._db is not None and not self._db.writable:
            self.close()  # the lock was acquired after the connection was opened for reading
        if self._db is None:
            self._db = Database(self._path, write=self._lock.acquire())
        return self._db

    def _set_aside(self, error: StateError) -> None:
        self.close()
        for suffix in database.SUFFIXES:
            disk.set_aside(self._path.with_name(DATABASE + suffix))
        self._lock.report(
            StateError(f"The chunk embeddings in {self._path} are damaged ({error}). They were set aside and are "
                       "computed again.")
        )  # fmt: skip

    def close(self) -> None:
        """Close the file. It is opened again by the next use."""
        if self._db is not None:
            self._db.close()
            self._db = None

    # --- the write-ahead log -----------------------------------------------------------------------------------------

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
        if not self._path.exists():
            return True
        try:
            database.require_regular(self._path)
            uri = database.uri(self._path, "rw")
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_S)) as db:
                db.execute("PRAGMA synchronous=NORMAL")
                return not db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()[0]
        except (sqlite3.Error, StateError):
            return False


def _keep_texts(db: sqlite3.Connection, alive: Collection[bytes]) -> None:
    stored = [row[0] for row in db.execute("SELECT digest FROM text")]
    db.executemany("DELETE FROM text WHERE digest = ?", [[digest] for digest in stored if digest not in alive])
    db.execute("DELETE FROM text WHERE digest IS NULL")
