"""File texts for hypernetworks that embed diffs: in the cache, or in memory while the cache cannot be written."""

from __future__ import annotations

import pytest

from c2l_lsp.engine.storage.cache import Cache
from c2l_lsp.engine.storage.file_texts import FileTexts
from c2l_lsp.engine.storage.state_lock import StateLock


@pytest.fixture
def cache(tmp_path):
    made = Cache(StateLock(tmp_path / "states" / "folder"))
    yield made
    made.close()


@pytest.fixture
def errors():
    return []


@pytest.mark.parametrize("on_disk", [True, False], ids=["on disk", "in memory"])
def test_texts_of_current_files_are_returned(cache, errors, on_disk):
    texts = FileTexts(cache if on_disk else None, errors.append)
    texts.put({b"1": "one", b"2": "two"}, {b"1", b"2"})
    assert texts.get([b"1", b"2", b"3"]) == {b"1": "one", b"2": "two"}
    texts.put({b"3": "three"}, {b"1", b"3"})
    assert texts.get([b"1", b"2", b"3"]) == {b"1": "one", b"3": "three"}  # no file has the digest 2 any more
    assert errors == []
    assert FileTexts(cache, errors.append).get([b"1"]) == ({b"1": "one"} if on_disk else {})


def test_texts_stay_in_memory_after_a_failed_write_and_are_stored_after_resume(cache, errors, tmp_path):
    blocker = tmp_path / "states"
    blocker.write_text("a file where the directory should be")
    texts = FileTexts(cache, errors.append)
    texts.put({b"1": "one"}, {b"1"})
    assert len(errors) == 1
    texts.put({b"2": "two"}, {b"1", b"2"})
    assert len(errors) == 1  # no second write before `resume`
    assert texts.get([b"1", b"2"]) == {b"1": "one", b"2": "two"}
    assert len(errors) == 2  # reading fails too
    blocker.unlink()
    texts.resume()
    texts.put({b"3": "three"}, {b"1", b"2", b"3"})
    expected = {b"1": "one", b"2": "two", b"3": "three"}
    assert FileTexts(cache, errors.append).get([b"1", b"2", b"3"]) == expected
    assert len(errors) == 2
