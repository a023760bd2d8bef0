"""What an editor sends as didOpen and didChange, however unusual, is read exactly or reported as unreadable."""

from __future__ import annotations

import math
from typing import Any

import pytest

from c2l_lsp.server.workspace.document_messages import Changed, Opened, read_changed, read_opened
from c2l_lsp.server.workspace.documents import Documents, Edit

URI = "file:///a.py"
TEXT = "one\ntwo\nthree"


def position(line: Any, character: Any) -> dict[str, Any]:
    return {"line": line, "character": character}


def edit(start: Any, end: Any, text: Any = "new", **more: Any) -> dict[str, Any]:
    return {"range": {"start": start, "end": end}, "text": text, **more}


def changed(*changes: Any, **document: Any) -> dict[str, Any]:
    return {"textDocument": {"uri": URI, "version": 2, **document}, "contentChanges": list(changes)}


BEGINNING = position(0, 0)

READABLE = {
    "whole text": ([{"text": "new"}], "new"),
    "range null": ([{"range": None, "text": "new"}], "new"),
    "range and rangeLength null": ([{"range": None, "rangeLength": None, "text": "new"}], "new"),
    "rangeLength wrong": ([edit(BEGINNING, position(0, 3), rangeLength=99)], "new\ntwo\nthree"),
    "end past the text": ([edit(BEGINNING, position(99, 99))], "new"),
    **{f"end at {end}": ([edit(BEGINNING, position(end, end))], "new") for end in (2**31, 2**32 - 1, 2**53, 10**30)},
    "negative character": ([edit(position(0, -1), position(0, 3))], "new\ntwo\nthree"),
    "negative line": ([edit(position(-1, 2), position(0, 3))], "new\ntwo\nthree"),
    "reversed": ([edit(position(1, 3), position(0, 1))], "onew\nthree"),
    "float without fraction": ([edit(position(0.0, 0.0), position(1.0, 3.0))], "new\nthree"),
    "float beyond every integer": ([edit(BEGINNING, position(1e300, 0))], "new"),
    "two edits": ([edit(BEGINNING, position(0, 3), "1"), edit(position(1, 0), position(1, 3), "2")], "1\n2\nthree"),
    "whole text after an unreadable edit": ([edit(None, None), {"text": "new"}], "new"),
    "none": ([], TEXT),
}

UNREADABLE = {
    "fraction": [edit(position(0, 0.5), position(0, 3))],
    "not a number": [edit(BEGINNING, position(math.nan, 0))],
    "infinite": [edit(BEGINNING, position(math.inf, 0))],
    "boolean": [edit(BEGINNING, position(0, True))],
    "position as text": [edit(BEGINNING, position("0", "3"))],
    "position null": [edit(BEGINNING, None)],
    "position as list": [edit([0, 0], [0, 3])],
    "range without end": [{"range": {"start": BEGINNING}, "text": "new"}],
    "range is no object": [{"range": 5, "text": "new"}],
    "text null": [{"text": None}],
    "no text": [edit(BEGINNING, BEGINNING, None)],
    "no object": ["new"],
    "unreadable after a whole text": [{"text": "new"}, edit(None, None)],
}


@pytest.mark.parametrize("name", READABLE)
def test_change_is_applied_as_the_editor_means_it(name: str) -> None:
    changes, expected = READABLE[name]
    documents = Documents()
    document = documents.open(URI, "python", 1, TEXT)
    found = read_changed(changed(*changes))
    assert found is not None
    assert found.edits is not None
    documents.change(found.uri, found.version, found.edits)
    assert document.text == expected


@pytest.mark.parametrize("name", UNREADABLE)
def test_change_that_cannot_be_read_exactly_is_reported(name: str) -> None:
    assert read_changed(changed(*UNREADABLE[name])) == Changed(URI, 2, None)


@pytest.mark.parametrize("changes", [None, 1, "new", {"text": "new"}])
def test_changes_that_are_no_list_are_reported(changes: object) -> None:
    found = read_changed({"textDocument": {"uri": URI}, "contentChanges": changes})
    assert found == Changed(URI, None, None)


@pytest.mark.parametrize("params", [None, [], 1, {}, {"textDocument": None}, {"textDocument": {"uri": 1}}])
def test_notification_that_names_no_document_is_reported(params: object) -> None:
    assert read_changed(params) is None
    assert read_opened(params) is None


@pytest.mark.parametrize(
    ("sent", "read"), [(7, 7), ("7", 7), (7.0, 7), (None, None), ("seven", None), (True, None), ("", None), (7.5, None)]
)
def test_version_may_have_any_form(sent: object, read: int | None) -> None:
    assert read_changed(changed(version=sent)) == Changed(URI, read, [])
    document = {"uri": URI, "languageId": "python", "version": sent, "text": "x"}
    assert read_opened({"textDocument": document}) == Opened(URI, "python", read, "x")


def test_document_without_language_or_text() -> None:
    assert read_opened({"textDocument": {"uri": URI, "languageId": None, "text": "x"}}) == Opened(URI, "", None, "x")
    assert read_opened({"textDocument": {"uri": URI, "languageId": "python", "text": None}}) == Opened(
        URI, "python", None, None
    )


def test_version_grows_with_every_change() -> None:
    """A completion that was computed for another text is recognised by the version alone."""
    documents = Documents()
    document = documents.open(URI, "python", 5, TEXT)
    seen = [document.version]
    for version in (None, 5, 3, 9):
        documents.change(URI, version, [Edit("x", (0, 0), (0, 0))])
        seen.append(document.version)
    assert seen == sorted(set(seen))


def test_document_is_out_of_step_until_its_next_whole_text() -> None:
    documents = Documents()
    one, two = documents.open(URI, "python", 1, TEXT), documents.open("file:///b.py", "python", 1, TEXT)
    version = one.version
    assert documents.lose(URI) == [one]
    assert (one.in_step, two.in_step, one.version > version) == (False, True, True)
    documents.change(URI, 3, [Edit("x", (0, 0), (0, 0))])
    assert not one.in_step
    documents.change(URI, 4, [Edit("whole")])
    assert one.in_step
    assert documents.lose(None) == [one, two]
    assert documents.open(URI, "python", 1, TEXT).in_step
    assert documents.lose("file:///never.py") == []
