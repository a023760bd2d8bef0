"""The SQLite file of the cache. Opened only if it is a regular file that holds our two tables and nothing else.

A view, a trigger, a generated column or a damaged tree can make SQLite run for ever. Anything but our tables is refused
before a query uses it, and every query has a time limit.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from c2l_lsp import regular_files
from c2l_lsp.engine.storage.decoding import require
from c2l_lsp.errors import StateError

NAME = "readings.sqlite"
SUFFIXES = ("", "-wal", "-shm", "-journal")
"""Of the files that belong to the database; those but the first are SQLite's."""

TIME_LIMIT_S = 5.0
"""Longest time of one use of the database. Ours take milliseconds."""

MAX_ROWS = 200_000
"""More rows than this are not ours: an index holds a few thousand chunks, and unused ones are deleted."""

_BUSY_S = 2.0  # wait for another process that writes
_CHECKED_BYTES = 16 << 20  # of a larger database SQLite's own check would take too long; rows have checksums
_OPERATIONS = 10_000  # of SQLite between two looks at the clock: less than a millisecond
_TABLES = {
    "reading": "CREATE TABLE reading (key BLOB, rule TEXT, value BLOB, sum BLOB, PRIMARY KEY (key, rule))",
    "text": "CREATE TABLE text (digest BLOB PRIMARY KEY, value BLOB, sum BLOB)",
}
_SCHEMA = {
    *(("table", name, name, sql) for name, sql in _TABLES.items()),
    *(("index", f"sqlite_autoindex_{name}_1", name, None) for name in _TABLES),
}


class Database:
    """One connection to the database at `path`, with a clock."""

    def __init__(self, path: Path, *, write: bool) -> None:
        """Open it; with `write`, create what is missing.

        Raises StateError if it is not ours or damaged, sqlite3.Error or OSError if the disk fails.
        """
        self.path, self.writable = path, write
        self._until = 0.0
        require_regular(path, alone=write)
        if write:
            self._db = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)
        else:
            self._db = sqlite3.connect(uri(path, "ro"), uri=True, timeout=0.5, check_same_thread=False)
        try:
            with self.use() as db:
                self._prepare(db)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the connection. The last one copies the log into the database, and waits for the disk."""
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.close()

    @contextlib.contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """The connection in a transaction. Raises StateError if the database is damaged or exceeds the time limit."""
        self._until = time.monotonic() + TIME_LIMIT_S
        try:
            with self._db:
                yield self._db
        except sqlite3.OperationalError as error:  # the disk fails or another process writes; the file may be sound
            if time.monotonic() > self._until:
                raise StateError(f"{NAME} keeps SQLite busy for {TIME_LIMIT_S:.0f} seconds") from error
            raise
        except (sqlite3.DatabaseError, OverflowError) as error:  # OverflowError: a string longer than SQLite's limit
            raise StateError(f"{NAME}: {error}") from error

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.set_progress_handler(lambda: time.monotonic() > self._until, _OPERATIONS)
        db.text_factory = bytes  # damaged text must fail its checksum rather than raise on decoding
        db.execute("PRAGMA trusted_schema=OFF")
        db.execute("PRAGMA cell_size_check=ON")
        _require_schema(db)
        if self.writable:
            with contextlib.suppress(OSError):
                self.path.chmod(0o600)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=OFF")  # only a checkpoint writes the database file, and waits for the disk
            db.execute("PRAGMA wal_autocheckpoint=0")
            db.execute("PRAGMA secure_delete=ON")
            for name, sql in _TABLES.items():
                db.execute(sql.replace(f"TABLE {name}", f"TABLE IF NOT EXISTS {name}"))
            _require_sound(db, self.path)


def uri(path: Path, mode: str) -> str:
    """Return SQLite's address of a file; `mode` is "ro" or "rw", and neither creates it."""
    return f"{path.as_uri()}?mode={mode}"


def require_regular(path: Path, *, alone: bool = False) -> None:
    """Raise StateError if the database or a file of SQLite beside it is no regular file.

    `alone`: no other process writes, so that a rollback journal is none of ours: we use a write-ahead log.
    """
    for suffix in SUFFIXES:
        part = path.with_name(path.name + suffix)
        if os.path.lexists(part):
            require(regular_files.is_regular(part), f"{part.name} is not a regular file")
            require(not alone or suffix != "-journal", f"{part.name} is none of our files")


def _require_schema(db: sqlite3.Connection) -> None:
    rows = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchmany(len(_SCHEMA) + 1)
    texts = ([v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in row] for row in rows)
    found = set(map(tuple, texts))
    require(found <= _SCHEMA, f"{NAME} holds something else than our tables")


def _require_sound(db: sqlite3.Connection, path: Path) -> None:
    if path.stat().st_size <= _CHECKED_BYTES:
        (result,) = db.execute("PRAGMA quick_check(1)").fetchone()
        require(result == b"ok", f"{NAME} is damaged")
    for name in _TABLES:
        counted = f"SELECT count(*) FROM (SELECT 1 FROM {name} LIMIT {MAX_ROWS + 1})"  # noqa: S608 - our own names
        (rows,) = db.execute(counted).fetchone()
        require(rows <= MAX_ROWS, f"{NAME} holds more than {MAX_ROWS} rows")
