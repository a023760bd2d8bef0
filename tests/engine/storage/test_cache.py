"""What is cached on disk: readings by content and rule, texts by digest; damage is as good as nothing kept."""

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
from tests.support.store_builders import reading


@pytest.fixture
def claim(tmp_path):
    made = StateLock(tmp_path / "state")
    yield made
    made.release()


@pytest.fixture
def cache(claim):
    made = Cache(claim)
    yield made
    made.close()


def altered(claim: StateLock, *statements: str) -> None:
    """Change the database behind the back of a cache that is closed."""
    with sqlite3.connect(claim.root / "readings.sqlite") as db:
        for statement in statements:
            db.execute(statement)
    db.close()


def test_readings_come_back_exactly_and_by_rule(cache):
    cache.put({b"a": reading(1), b"b": reading(2)}, "rule")
    found = cache.get([b"a", b"b", b"c"], "rule")
    assert set(found) == {b"a", b"b"}
    assert torch.equal(found[b"a"]["q"], reading(1)["q"])
    assert cache.get([b"a"], "other rule") == {}


def test_what_is_put_again_takes_the_place_of_what_was_there(cache):
    for seed in (1, 2):
        cache.put({b"a": reading(seed)}, "rule")
        cache.put_texts({b"d": f"text {seed}"}, {b"d"})
    assert torch.equal(cache.get([b"a"], "rule")[b"a"]["q"], reading(2)["q"])
    assert cache.get_texts([b"d"]) == {b"d": "text 2"}


def test_more_readings_than_one_question_may_ask_for(cache):
    keys = [f"{number:04d}".encode() for number in range(1203)]
    cache.put(dict.fromkeys(keys, reading(1)), "rule")
    assert list(cache.get([*keys, *keys], "rule")) == keys


def test_a_damaged_reading_is_as_good_as_none(cache, claim):
    cache.put({b"a": reading(1), b"b": reading(2)}, "rule")
    cache.close()
    altered(claim, "UPDATE reading SET value = substr(value, 1, length(value) - 1) || x'00' WHERE key = x'61'")
    assert set(cache.get([b"a", b"b"], "rule")) == {b"b"}


def test_a_reading_that_is_no_tensors_is_as_good_as_none(cache, claim):
    """Written whole, and yet of no use: the checksum agrees."""
    from c2l_lsp.engine.storage import disk

    cache.put({b"a": reading(1), b"b": reading(2)}, "rule")
    cache.close()
    nothing = b"no tensors"
    altered(
        claim,
        f"UPDATE reading SET value = x'{nothing.hex()}', sum = x'{disk.checksum(nothing).hex()}' WHERE key = x'61'",
    )
    assert set(cache.get([b"a", b"b"], "rule")) == {b"b"}


def test_a_damaged_text_is_as_good_as_none(cache, claim):
    cache.put_texts({b"d": "one", b"e": "zwei ä\n"}, {b"d", b"e"})
    assert cache.get_texts([b"d", b"e", b"f", b"d"]) == {b"d": "one", b"e": "zwei ä\n"}
    cache.close()
    altered(claim, f"UPDATE text SET value = x'{zlib.compress(b'other').hex()}' WHERE digest = x'64'")
    assert cache.get_texts([b"d", b"e"]) == {b"e": "zwei ä\n"}


def test_texts_of_files_that_are_gone_are_deleted(cache):
    cache.put_texts({b"d": "one", b"e": "two"}, {b"d", b"e"})
    cache.put_texts({b"f": "three"}, {b"e", b"f"})
    assert cache.get_texts([b"d", b"e", b"f"]) == {b"e": "two", b"f": "three"}


def test_a_file_that_is_no_database_is_replaced_with_its_log(cache, claim):
    claim.root.mkdir(parents=True)
    for part in ("", "-wal", "-shm"):
        (claim.root / f"readings.sqlite{part}").write_bytes(b"not a database at all" * 100)
    cache.put({b"a": reading(1)}, "rule")
    assert cache.get([b"a"], "rule")


def test_a_cache_that_is_locked_is_not_deleted(cache, claim):
    """sqlite says "locked" by a subclass of what it says of a damaged file."""
    cache.put({b"a": reading(1)}, "rule")
    cache.close()
    blocker = sqlite3.connect(claim.root / "readings.sqlite", isolation_level=None)
    blocker.execute("PRAGMA locking_mode=EXCLUSIVE")
    blocker.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(StorageError):
            cache.put({b"b": reading(2)}, "rule")
    finally:
        blocker.close()
    assert set(cache.get([b"a"], "rule")) == {b"a"}


def test_pruning_keeps_what_is_alive(cache):
    cache.put({b"a": reading(1), b"b": reading(2)}, "rule")
    cache.put({b"a": reading(3)}, "old rule")
    cache.put_texts({b"d": "one", b"e": "two"}, {b"d", b"e"})
    cache.prune({b"a"}, "rule", {b"e"})
    assert set(cache.get([b"a", b"b"], "rule")) == {b"a"}
    assert cache.get([b"a"], "old rule") == {}
    assert cache.get_texts([b"d", b"e"]) == {b"e": "two"}
    cache.prune({b"a"}, "rule")
    assert cache.get_texts([b"e"]) == {}


def test_a_reader_sees_what_is_there_and_writes_once_it_may(cache, claim):
    other = StateLock(claim.root)
    second = Cache(other)
    try:
        cache.put({b"a": reading(1)}, "rule")
        cache.put_texts({b"d": "one"}, {b"d"})
        assert set(second.get([b"a"], "rule")) == {b"a"}
        assert second.get_texts([b"d"]) == {b"d": "one"}
        with ThreadPoolExecutor(1) as pool:  # any thread may
            assert set(pool.submit(second.get, [b"a"], "rule").result(20)) == {b"a"}
        cache.close()
        claim.release()
        second.put({b"b": reading(2)}, "rule")  # it was open for reading only
        assert other.held
        assert not claim.acquire()
        assert set(second.get([b"a", b"b"], "rule")) == {b"a", b"b"}
    finally:
        second.close()
        other.release()


def test_a_reader_of_nothing_finds_nothing(cache, claim):
    assert claim.acquire()
    second = Cache(StateLock(claim.root))
    assert second.get([b"a"], "rule") == {}
    assert second.get_texts([b"d"]) == {}
    assert not (claim.root / "readings.sqlite").exists()


def log_of(claim: StateLock) -> int:
    """Bytes in SQLite's log."""
    log = Path(f"{claim.root / 'readings.sqlite'}-wal")
    return log.stat().st_size if log.exists() else 0


def test_a_long_log_is_folded_into_the_database_and_a_short_one_waits(cache, claim, monkeypatch):
    cache.put({b"a": reading(1)}, "rule")
    database = claim.root / "readings.sqlite"
    before = database.stat().st_size
    assert log_of(claim) > 0
    cache.put({b"b": reading(2)}, "rule")
    assert database.stat().st_size == before  # nothing waits for the disk here
    monkeypatch.setattr(caches, "_LOG_BYTES", 0)
    cache.put({b"c": reading(3)}, "rule")
    deadline = time.monotonic() + 20
    while database.stat().st_size == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert set(cache.get([b"a", b"b", b"c"], "rule")) == {b"a", b"b", b"c"}


def test_one_fold_at_a_time_and_none_keeps_the_process_alive(cache, monkeypatch):
    begun, may = [], threading.Event()

    def slow() -> None:
        begun.append(threading.current_thread())
        assert may.wait(20)

    monkeypatch.setattr(cache, "checkpoint", slow)
    cache.put({b"a": reading(1)}, "rule")
    assert begun == []  # the log is short
    monkeypatch.setattr(caches, "_LOG_BYTES", 0)
    for key in (b"b", b"c"):
        cache.put({key: reading(1)}, "rule")
    assert [(thread.name, thread.daemon) for thread in begun] == [("c2l-fold", True)]
    may.set()
    begun[0].join(20)
    cache.put({b"d": reading(1)}, "rule")
    assert len(begun) == 2


def test_folding_says_whether_all_of_the_log_is_in_the_database(cache, claim):
    assert cache.checkpoint("TRUNCATE")  # there is no database yet
    cache.put({b"a": reading(1)}, "rule")
    reader = sqlite3.connect(claim.root / "readings.sqlite", isolation_level=None)
    try:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM reading").fetchone() == (1,)
        cache.put({b"b": reading(2)}, "rule")
        assert not cache.checkpoint("TRUNCATE")  # somebody still reads what is to go
    finally:
        reader.close()
    assert cache.checkpoint("TRUNCATE")
    assert log_of(claim) == 0
    cache.close()
    (claim.root / "readings.sqlite").write_bytes(b"not a database at all" * 100)
    assert not cache.checkpoint("TRUNCATE")


@pytest.mark.parametrize("table", ["reading", "text"])
def test_a_database_that_fails_is_told_in_one_sentence_and_opened_anew(cache, claim, table):
    uses = {
        "reading": [
            lambda: cache.get([b"a"], "rule"),
            lambda: cache.put({b"a": reading(1)}, "rule"),
            lambda: cache.prune(set(), "rule"),
        ],
        "text": [lambda: cache.get_texts([b"d"]), lambda: cache.put_texts({b"d": "one"}, {b"d"})],
    }
    for use in uses[table]:
        cache.get([b"a"], "rule")
        altered(claim, f"DROP TABLE {table}")
        with pytest.raises(StorageError, match=f"cannot be kept in {claim.root}: no such table: {table}"):
            use()
        use()
