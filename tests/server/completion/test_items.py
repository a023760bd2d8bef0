"""The range that a suggestion replaces: nothing, or a selected popup entry."""

from __future__ import annotations

from c2l_lsp.server.completion.items import Selected, Target, find_target
from c2l_lsp.server.workspace.documents import Document


def test_target_is_the_cursor_without_a_popup_entry() -> None:
    assert find_target(Document.from_text("u", "", 0, "ab"), (0, 1), None) == Target(0, 1, 1, 1)


def test_popup_entry_is_continued_in_its_range() -> None:
    document = Document.from_text("u", "", 0, "os.pa")
    assert find_target(document, (0, 5), Selected((0, 3), (0, 5), "path")) == Target(0, 3, 5, 5, "pa", "th", fixed=True)


def test_popup_entry_that_replaces_typed_text() -> None:
    document = Document.from_text("u", "", 0, "os.PA")
    assert find_target(document, (0, 5), Selected((0, 3), (0, 5), "path")) == Target(0, 3, 5, 3, "", "path", fixed=True)


def test_popup_entry_for_another_position_is_ignored() -> None:
    document = Document.from_text("u", "", 0, "one\ntwo")
    assert find_target(document, (1, 3), Selected((0, 0), (0, 3), "once")) == Target(1, 3, 3, 3)
