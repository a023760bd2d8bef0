"""Texts of files for hypernetworks that read diffs: cached on disk, or in memory while the disk refuses."""

from __future__ import annotations

import pytest

from c2l_lsp.engine.storage.cache import Cache
from c2l_lsp.engine.storage.file_texts import FileTexts
from c2l_lsp.engine.storage.state_lock import StateLock


def named(*texts: str) -> dict[bytes, str]:
    """Texts by digest; here a text's bytes stand for its digest."""
    return {text.encode(): text for text in texts}


@pytest.fixture
def cache(tmp_path):
    made = Cache(StateLock(tmp_path / "state"))
    yield made
    made.close()


@pytest.fixture
def errors():
    return []


@pytest.mark.parametrize("cached", [True, False], ids=["on disk", "in memory"])
def test_texts_of_present_files_are_returned_and_others_deleted(cache, errors, cached):
    texts = FileTexts(cache if cached else None, errors.append)
    texts.put(named("one", "two"), {b"one", b"two"})
    assert texts.get([b"one", b"two", b"three"]) == named("one", "two")
    texts.put(named("2"), {b"one", b"2"})
    assert texts.get([b"one", b"two", b"2"]) == named("one", "2")  # no file has the text "two" any more
    assert errors == []
    assert FileTexts(cache, errors.append).get([b"one"]) == (named("one") if cached else {})


def test_texts_stay_in_memory_while_the_disk_refuses_and_are_written_after_resume(cache, errors, tmp_path):
    blocker = tmp_path / "state"
    blocker.write_text("a file where the folder should be")
    texts = FileTexts(cache, errors.append)
    texts.put(named("one"), {b"one"})
    assert len(errors) == 1
    texts.put(named("two"), {b"one", b"two"})
    assert len(errors) == 1  # no second attempt before `resume`
    assert texts.get([b"one", b"two"]) == named("one", "two")
    assert len(errors) == 2  # reading does try the disk
    blocker.unlink()
    texts.resume()
    texts.put(named("three"), {b"one", b"two", b"three"})
    assert FileTexts(cache, errors.append).get([b"one", b"two", b"three"]) == named("one", "two", "three")
    assert len(errors) == 2
