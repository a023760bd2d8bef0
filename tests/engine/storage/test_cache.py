"""The cache on disk: embeddings by content and rule, texts by digest. A damaged row counts as missing."""

from __future__ import annotations

import sqlite3
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from c2l_lsp.engine.storage import cache as caches
from c2l_lsp.engine.storage.cache import Cache
from c2l_lsp.engine.storage.state_lock import StateLock
from c2l_lsp.errors import StorageError
from tests.support.store_builders import embedding


@pytest.fixture
def lock(tmp_path):
    made = StateLock(tmp_path / "state")
    yield made
    made.release()


@pytest.fixture
def cache(lock):
    made = Cache(lock)
    yield made
    made.close()


def execute_sql(lock: StateLock, *statements: str) -> None:
    """Change the database of a closed cache."""
    with sqlite3.connect(lock.root / "readings.sqlite") as db:
        for statement in statements:
            db.execute(statement)
    db.close()


def test_embeddings_are_returned_unchanged_and_by_rule(cache):
    cache.put({b"a": embedding(1), b"b": embedding(2)}, "rule")
    found = cache.get([b"a", b"b", b"c"], "rule")
    assert set(found) == {b"a", b"b"}
    assert torch.equal(found[b"a"]["q"], embedding(1)["q"])
    assert cache.get([b"a"], "other rule") == {}


def test_put_replaces_rows_with_the_same_key(cache):
    for seed in (1, 2):
        cache.put({b"a": embedding(seed)}, "rule")
        cache.put_texts({b"d": f"text {seed}"}, {b"d"})
    assert torch.equal(cache.get([b"a"], "rule")[b"a"]["q"], embedding(2)["q"])
    assert cache.get_texts([b"d"]) == {b"d": "text 2"}


def test_get_takes_more_keys_than_one_sql_query(cache):
    keys = [f"{number:04d}".encode() for number in range(1203)]
    cache.put(dict.fromkeys(keys, embedding(1)), "rule")
    assert list(cache.get([*keys, *keys], "rule")) == keys


def test_a_damaged_embedding_counts_as_missing(cache, lock):
    cache.put({b"a": embedding(1), b"b": embedding(2)}, "rule")
    cache.close()
    execute_sql(lock, "UPDATE reading SET value = substr(value, 1, length(value) - 1) || x'00' WHERE key = x'61'")
    assert set(cache.get([b"a", b"b"], "rule")) == {b"b"}


def test_a_database_with_an_embedding_in_another_format_is_set_aside(cache, lock):
    """Its checksum agrees, so that another program wrote it."""
    from c2l_lsp.engine.storage import disk

    lock.report = (reported := []).append
    cache.put({b"a": embedding(1), b"b": embedding(2)}, "rule")
    cache.close()
    nothing = b"no tensors"
    execute_sql(
        lock,
        f"UPDATE reading SET value = x'{nothing.hex()}', sum = x'{disk.checksum(nothing).hex()}' WHERE key = x'61'",
    )
    assert cache.get([b"a", b"b"], "rule") == {}
    assert "a chunk embedding holds no tensors" in str(reported[0])
    assert (lock.root / "readings.sqlite.bad").exists()


def test_a_damaged_text_counts_as_missing(cache, lock):
    cache.put_texts({b"d": "one", b"e": "zwei ä\n"}, {b"d", b"e"})
    assert cache.get_texts([b"d", b"e", b"f", b"d"]) == {b"d": "one", b"e": "zwei ä\n"}
    cache.close()
    execute_sql(lock, f"UPDATE text SET value = x'{zlib.compress(b'other').hex()}' WHERE digest = x'64'")
    assert cache.get_texts([b"d", b"e"]) == {b"e": "zwei ä\n"}


def test_texts_of_deleted_files_are_deleted(cache):
    cache.put_texts({b"d": "one", b"e": "two"}, {b"d", b"e"})
    cache.put_texts({b"f": "three"}, {b"e", b"f"})
    assert cache.get_texts([b"d", b"e", b"f"]) == {b"e": "two", b"f": "three"}


def test_a_file_that_is_not_a_database_is_replaced_with_its_log(cache, lock):
    lock.root.mkdir(parents=True)
    for part in ("", "-wal", "-shm"):
        (lock.root / f"readings.sqlite{part}").write_bytes(b"not a database at all" * 100)
    cache.put({b"a": embedding(1)}, "rule")
    assert cache.get([b"a"], "rule")


def test_a_locked_database_is_not_deleted(cache, lock):
    """sqlite3's error for a locked database is a subclass of the one for a damaged file."""
    cache.put({b"a": embedding(1)}, "rule")
    cache.close()
    blocker = sqlite3.connect(lock.root / "readings.sqlite", isolation_level=None)
    blocker.execute("PRAGMA locking_mode=EXCLUSIVE")
    blocker.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(StorageError):
            cache.put({b"b": embedding(2)}, "rule")
    finally:
        blocker.close()
    assert set(cache.get([b"a"], "rule")) == {b"a"}


def test_prune_deletes_rows_that_no_file_needs(cache):
    cache.put({b"a": embedding(1), b"b": embedding(2)}, "rule")
    cache.put({b"a": embedding(3)}, "old rule")
    cache.put_texts({b"d": "one", b"e": "two"}, {b"d", b"e"})
    cache.prune({b"a"}, "rule", {b"e"})
    assert set(cache.get([b"a", b"b"], "rule")) == {b"a"}
    assert cache.get([b"a"], "old rule") == {}
    assert cache.get_texts([b"d", b"e"]) == {b"e": "two"}
    cache.prune({b"a"}, "rule")
    assert cache.get_texts([b"e"]) == {}


def test_a_reader_sees_the_rows_of_the_writer_and_writes_once_it_has_the_lock(cache, lock):
    other = StateLock(lock.root)
    second = Cache(other)
    try:
        cache.put({b"a": embedding(1)}, "rule")
        cache.put_texts({b"d": "one"}, {b"d"})
        assert set(second.get([b"a"], "rule")) == {b"a"}
        assert second.get_texts([b"d"]) == {b"d": "one"}
        with ThreadPoolExecutor(1) as pool:  # from any thread
            assert set(pool.submit(second.get, [b"a"], "rule").result(20)) == {b"a"}
        cache.close()
        lock.release()
        second.put({b"b": embedding(2)}, "rule")  # the connection was open for reading only
        assert other.held
        assert not lock.acquire()
        assert set(second.get([b"a", b"b"], "rule")) == {b"a", b"b"}
    finally:
        second.close()
        other.release()


def test_a_reader_of_a_missing_database_finds_nothing_and_creates_nothing(cache, lock):
    assert lock.acquire()
    second = Cache(StateLock(lock.root))
    assert second.get([b"a"], "rule") == {}
    assert second.get_texts([b"d"]) == {}
    assert not (lock.root / "readings.sqlite").exists()


def wal_size(lock: StateLock) -> int:
    """Bytes in SQLite's write-ahead log."""
    log = Path(f"{lock.root / 'readings.sqlite'}-wal")
    return log.stat().st_size if log.exists() else 0


def test_only_a_long_log_is_checkpointed(cache, lock, monkeypatch):
    cache.put({b"a": embedding(1)}, "rule")
    database = lock.root / "readings.sqlite"
    before = database.stat().st_size
    assert wal_size(lock) > 0
    cache.put({b"b": embedding(2)}, "rule")
    assert database.stat().st_size == before  # put does not write the database file
    monkeypatch.setattr(caches, "_MAX_WAL_BYTES", 0)
    cache.put({b"c": embedding(3)}, "rule")
    deadline = time.monotonic() + 20
    while database.stat().st_size == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert set(cache.get([b"a", b"b", b"c"], "rule")) == {b"a", b"b", b"c"}


def test_one_checkpoint_runs_at_a_time_in_a_daemon_thread(cache, monkeypatch):
    started, may = [], threading.Event()

    def slow() -> None:
        started.append(threading.current_thread())
        assert may.wait(20)

    monkeypatch.setattr(cache, "checkpoint", slow)
    cache.put({b"a": embedding(1)}, "rule")
    assert started == []  # the log is short
    monkeypatch.setattr(caches, "_MAX_WAL_BYTES", 0)
    for key in (b"b", b"c"):
        cache.put({key: embedding(1)}, "rule")
    assert [(thread.name, thread.daemon) for thread in started] == [("c2l-checkpoint", True)]
    may.set()
    started[0].join(20)
    cache.put({b"d": embedding(1)}, "rule")
    assert len(started) == 2


def test_checkpoint_returns_whether_the_whole_log_was_copied(cache, lock):
    assert cache.checkpoint("TRUNCATE")  # there is no database yet
    cache.put({b"a": embedding(1)}, "rule")
    reader = sqlite3.connect(lock.root / "readings.sqlite", isolation_level=None)
    try:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM reading").fetchone() == (1,)
        cache.put({b"b": embedding(2)}, "rule")
        assert not cache.checkpoint("TRUNCATE")  # a reader still uses the log
    finally:
        reader.close()
    assert cache.checkpoint("TRUNCATE")
    assert wal_size(lock) == 0
    cache.close()
    (lock.root / "readings.sqlite").write_bytes(b"not a database at all" * 100)
    assert not cache.checkpoint("TRUNCATE")


@pytest.mark.parametrize("table", ["reading", "text"])
def test_an_sql_error_becomes_a_storage_error_and_the_database_is_reopened(cache, lock, table):
    uses = {
        "reading": [
            lambda: cache.get([b"a"], "rule"),
            lambda: cache.put({b"a": embedding(1)}, "rule"),
            lambda: cache.prune(set(), "rule"),
        ],
        "text": [lambda: cache.get_texts([b"d"]), lambda: cache.put_texts({b"d": "one"}, {b"d"})],
    }
    for use in uses[table]:
        cache.get([b"a"], "rule")
        execute_sql(lock, f"DROP TABLE {table}")
        with pytest.raises(StorageError, match=f"cannot be saved in {lock.root}: no such table: {table}"):
            use()
        use()
