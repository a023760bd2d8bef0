"""The draft index, alone and in an engine, which fills it when nothing else is due."""

from __future__ import annotations

from pathlib import Path

from c2l_lsp.engine.completion.draft import MATCH_TOKENS
from c2l_lsp.engine.completion.draft_index import DraftIndex
from c2l_lsp.engine.session import Session
from c2l_lsp.redaction import MARK
from tests.support.engine_loop import run_until

NEW = "\n\nzebra_crossing_light = giraffe_neck_length + zebra_crossing_light\n"


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_only_the_current_version_of_a_text_is_found():
    index = DraftIndex(letters)
    index.put("a", 1, "xabcde")
    assert index.continuation(letters("abc"), 2) == letters("de")
    index.put("a", 2, "xxabcfg")
    assert index.continuation(letters("abc"), 2) == letters("fg")
    assert index.continuation(letters("bcd"), 2) == []
    index.remove("a")
    assert index.continuation(letters("abc"), 2) == []


def test_the_index_stays_within_its_limit_and_removes_stale_positions():
    index = DraftIndex(letters, max_tokens=100)
    for number in range(200):
        index.put(f"{number % 7}.py", number, "".join(chr(100 + (number * 31 + i * i) % 900) for i in range(40)))
        assert index._size <= 100
        assert len(index._positions) <= 200 + 40 - MATCH_TOKENS


def test_a_stale_path_is_returned_once_and_a_path_that_is_gone_is_removed():
    index, versions = DraftIndex(letters), {"a": 1, "b": 1}
    while (path := index.next_stale(versions.items())) is not None:
        index.put(path, versions[path], f"{path}bcdef")
    assert index._size == 12
    assert index.next_stale({"b": 2}.items()) == "b"
    assert index._size == 6
    full = DraftIndex(letters, max_tokens=3)
    full.put("a", 1, "abcd")
    assert full.next_stale(versions.items()) is None


def test_the_index_follows_files_and_open_buffers_until_the_folder_is_closed(session: Session, folder: Path):
    session.open(folder)
    engine, path = session.engine, folder / "pkg" / "m3.py"
    index = engine._drafts._indexes[str(folder)]
    run = engine.model.encode(NEW)[-12:]
    run_until(session, lambda: index._size > 1000)
    assert index.continuation(run[:3], 4) == []
    path.write_text(path.read_text() + NEW)
    engine.workspace(str(folder)).regenerate()
    run_until(session, lambda: index.continuation(run[:3], 4) == run[3:7])
    engine.workspace(str(folder)).set_buffer("pkg/m3.py", "x = 1\n")  # an unsaved buffer replaces the file's text
    run_until(session, lambda: index.continuation(run[:3], 4) == [])
    engine.close_folder(str(folder))
    assert engine._drafts._indexes == {}
    assert engine.due_in() is None


def test_no_draft_begins_at_a_secret_or_extends_over_one():
    index = DraftIndex(lambda text: [ord(character) for character in text])
    index.put("a", 1, f"abcdef{MARK}{MARK}ghijkl")
    ids = [ord(character) for character in "abcdefghijkl"]
    assert index.continuation(ids[0:3], 8) == ids[3:6]
    assert index.continuation(ids[3:6], 8) == []
    assert index.continuation(ids[4:7], 8) == []
    assert index.continuation(ids[6:9], 8) == ids[9:12]
    assert all(min(run) > 0 for run in index._positions)
