"""Texts of files for hypernetworks that read diffs: on disk where that works, in memory meanwhile where it does not."""

from __future__ import annotations

from collections import Counter

import pytest

from c2l_lsp.engine.adaptation.update_plan import FileRecord, UpdatePlan
from c2l_lsp.engine.storage.cache import Cache
from c2l_lsp.engine.storage.file_texts import FileTexts
from c2l_lsp.engine.storage.state_lock import StateLock
from c2l_lsp.repo.history.snapshot import Entry


def plan(files: dict[str, str], came: list[str]) -> UpdatePlan:
    """The folder as it is now, and which of its files are new."""
    records = {path: FileRecord(Entry(text.encode(), len(text), 0), ()) for path, text in files.items()}
    return UpdatePlan(records, Counter(), Counter(), came={path: files[path] for path in came})


def records(**files: str) -> dict[str, FileRecord]:
    return plan(files, []).records


@pytest.fixture
def cache(tmp_path):
    made = Cache(StateLock(tmp_path / "state"))
    yield made
    made.close()


@pytest.fixture
def told():
    return []


@pytest.mark.parametrize("kept", [True, False], ids=["on disk", "in memory"])
def test_the_texts_of_files_that_are_there_can_be_had(cache, told, kept):
    texts = FileTexts(cache if kept else None, told.append)
    texts.keep(plan({"a": "one", "b": "two"}, ["a", "b"]))
    assert texts.of(records(a="one", b="two", c="three")) == {b"one": "one", b"two": "two"}
    texts.keep(plan({"a": "one", "b": "2"}, ["b"]))
    assert texts.of(records(a="one", b="two", c="2")) == {b"one": "one", b"2": "2"}  # b's old text is no file's
    assert told == []
    assert FileTexts(cache, told.append).of(records(a="one")) == ({b"one": "one"} if kept else {})


def test_what_cannot_be_kept_is_held_and_kept_with_the_next_once_it_can_be(cache, told, tmp_path):
    blocker = tmp_path / "state"
    blocker.write_text("a file where the folder should be")
    texts = FileTexts(cache, told.append)
    texts.keep(plan({"a": "one"}, ["a"]))
    assert len(told) == 1
    texts.keep(plan({"a": "one", "b": "two"}, ["b"]))
    assert len(told) == 1  # not tried again before it is said that it works
    assert texts.of(records(a="one", b="two")) == {b"one": "one", b"two": "two"}
    assert len(told) == 2  # asked, the disk is
    blocker.unlink()
    texts.resume()
    texts.keep(plan({"a": "one", "b": "two", "c": "three"}, ["c"]))
    assert FileTexts(cache, told.append).of(records(a="one", b="two", c="three")) == {
        b"one": "one",
        b"two": "two",
        b"three": "three",
    }
    assert len(told) == 2
