"""Follow-up edits over LSP: the places of a rename, in the real server with the fake engine."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.support.editor import INVOKED, Editor

SHOP = "def total(order, discount=0):\n    return order - discount\n\n\nx = total(3)\n"
USER = "from shop import total\n\nprint('😀', total(4, discount=1))  # total\n"
ANNOTATED = {"documentChanges": True, "changeAnnotationSupport": {}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A git repository: a module, a file that uses it, and files that nothing may touch."""
    path = tmp_path / "work"
    (path / "pkg").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", path], check=True)
    texts = {
        "shop.py": SHOP,
        "user.py": USER,
        "pkg/inner.py": "import shop\n\nshop.total(5)\nother.total(6)\n",
        "pkg/own.py": "def total():\n    pass\n\n\ntotal()\n",
        "ignored.py": USER,
        ".gitignore": "ignored.py\n",
        "passwords.py": USER,
        "broken.py": USER + "def (:\n",
    }
    for name, text in texts.items():
        (path / name).write_text(text, encoding="utf-8")
    outside = tmp_path / "outside.py"
    outside.write_text(USER, encoding="utf-8")
    (path / "linked.py").symlink_to(outside)
    return path


@pytest.fixture
def editor(start: Start, folder: Path) -> Editor:
    """A client that reads annotated edits, with `shop.py` open."""
    editor = start()
    editor.initialize([folder], workspace_edit=ANNOTATED)
    editor.ready()
    editor.open(uri(folder), SHOP)
    return editor


def uri(folder: Path, name: str = "shop.py") -> str:
    return (folder / name).as_uri()


def rename(
    editor: Editor, folder: Path, old: str = "total", new: str = "price", line: int = 0, column: int = 4
) -> None:
    """Replace a word of `shop.py`."""
    editor.change(uri(folder), ((line, column), (line, column + len(old)), new))


def actions(editor: Editor, document: str, line: int, only: list[str] | None = None) -> list[Any]:
    place = {"start": {"line": line, "character": 0}, "end": {"line": line, "character": 0}}
    context: dict[str, Any] = {"diagnostics": []}
    if only is not None:
        context["only"] = only
    params = {"textDocument": {"uri": document}, "range": place, "context": context}
    return editor.request("textDocument/codeAction", params) or []


def offered(editor: Editor, document: str, line: int) -> Any:
    """The code action on a line, as soon as there is one."""
    found: list[Any] = []

    def asked() -> bool:
        found[:] = actions(editor, document, line)
        return bool(found)

    editor.until(asked, None, "a follow-up edit")
    return found[0]


def settled(editor: Editor, document: str, line: int) -> list[Any]:
    """The code actions on a line after a time in which one would have been found."""
    time.sleep(1.5)
    return actions(editor, document, line)


def edits(action: Any, folder: Path) -> dict[str, list[tuple[int, int, int, str]]]:
    """The edits of an action by file: line, first and last column, text."""
    return {
        os.path.relpath(change["textDocument"]["uri"].removeprefix("file://"), folder): [
            (
                edit["range"]["start"]["line"],
                edit["range"]["start"]["character"],
                edit["range"]["end"]["character"],
                edit["newText"],
            )
            for edit in change["edits"]
        ]
        for change in action["edit"]["documentChanges"]
    }


def test_a_rename_is_offered_in_the_admitted_files_that_import_it(editor: Editor, folder: Path) -> None:
    rename(editor, folder)
    action = offered(editor, uri(folder), 4)
    assert action["title"] == "Apply the same edit here (4 places): total → price"
    assert action["kind"] == "refactor.rewrite"
    assert edits(action, folder) == {
        "shop.py": [(4, 4, 9, "price")],
        "pkg/inner.py": [(2, 5, 10, "price")],
        "user.py": [(0, 17, 22, "price"), (2, 12, 17, "price")],  # after a character of two UTF-16 units
    }


def test_the_edit_is_to_be_confirmed_and_names_the_version_of_open_documents(editor: Editor, folder: Path) -> None:
    rename(editor, folder)
    edit = offered(editor, uri(folder), 4)["edit"]
    assert [one["needsConfirmation"] for one in edit["changeAnnotations"].values()] == [True]
    ids = {part["annotationId"] for change in edit["documentChanges"] for part in change["edits"]}
    assert ids == set(edit["changeAnnotations"])
    versions = {change["textDocument"]["uri"]: change["textDocument"]["version"] for change in edit["documentChanges"]}
    assert versions.pop(uri(folder)) == 2
    assert set(versions.values()) == {None}


def test_a_client_without_annotations_gets_a_plain_edit(start: Start, folder: Path) -> None:
    editor = start()
    editor.initialize([folder])
    editor.ready()
    editor.open(uri(folder), SHOP)
    rename(editor, folder)
    edit = offered(editor, uri(folder), 4)["edit"]
    assert set(edit) == {"changes"}
    assert set(edit["changes"]) == {uri(folder, name) for name in ("shop.py", "user.py", "pkg/inner.py")}


def test_the_line_of_a_place_gets_an_inline_completion_without_the_model(start: Start, folder: Path) -> None:
    editor = start()
    editor.initialize([folder], {"showsReplacements": True, "completion": {"speculative": False}})
    editor.ready()
    editor.open(uri(folder), SHOP)
    rename(editor, folder)
    offered(editor, uri(folder), 4)
    for column in (9, 12, 0):
        (item,) = editor.complete(uri(folder), 4, column) or []
        assert item.range is not None
        assert (item.range.start.character, item.range.end.character, item.insert_text) == (4, 9, "price")
    assert editor.engine_requests("complete") == []
    editor.complete(uri(folder), 2, 0)
    assert len(editor.engine_requests("complete")) == 1


def test_an_editor_that_shows_insertions_only_gets_no_replacement(editor: Editor, folder: Path) -> None:
    rename(editor, folder, new="total_price")
    offered(editor, uri(folder), 4)
    (item,) = editor.complete(uri(folder), 4, 9) or []
    assert item.range is not None
    assert (item.range.start.character, item.range.end.character, item.insert_text) == (9, 9, "_price")
    assert editor.engine_requests("complete") == []
    rename(editor, folder, "total_price", "price")
    editor.until(lambda: "→ price" in str(actions(editor, uri(folder), 4)), None, "the other rename")
    assert "_price" not in str(editor.complete(uri(folder), 4, 9))


def test_an_open_document_counts_with_its_text_in_the_editor(editor: Editor, folder: Path) -> None:
    editor.open(uri(folder, "user.py"), "import os\n" + USER)
    editor.open(uri(folder, "ignored.py"), USER)
    rename(editor, folder)
    found = edits(offered(editor, uri(folder, "user.py"), 3), folder)
    assert found["user.py"] == [(1, 17, 22, "price"), (3, 12, 17, "price")]
    assert "ignored.py" not in found
    assert actions(editor, uri(folder, "ignored.py"), 2) == []


def test_places_follow_the_text_and_vanish_when_they_are_used(editor: Editor, folder: Path) -> None:
    for name in ("user.py", "pkg/inner.py"):
        (folder / name).unlink()
    rename(editor, folder)
    offered(editor, uri(folder), 4)
    editor.change(uri(folder), ((2, 0), (2, 0), "# one more line\n"))
    assert edits(offered(editor, uri(folder), 5), folder) == {"shop.py": [(5, 4, 9, "price")]}
    editor.change(uri(folder), ((5, 4), (5, 9), "price"))
    assert settled(editor, uri(folder), 5) == []


def test_a_file_that_changed_on_disk_is_read_again(editor: Editor, folder: Path) -> None:
    rename(editor, folder)
    offered(editor, uri(folder), 4)
    (folder / "user.py").write_text("import os\n" + USER, encoding="utf-8")
    (folder / "pkg/inner.py").unlink()
    found = edits(offered(editor, uri(folder), 4), folder)
    assert found == {"shop.py": [(4, 4, 9, "price")], "user.py": [(1, 17, 22, "price"), (3, 12, 17, "price")]}


def test_nothing_is_offered_after_the_edit_was_undone(editor: Editor, folder: Path) -> None:
    rename(editor, folder)
    offered(editor, uri(folder), 4)
    rename(editor, folder, "price", "total")
    assert settled(editor, uri(folder), 4) == []


def test_nothing_is_offered_after_the_document_was_closed(editor: Editor, folder: Path) -> None:
    editor.open(uri(folder, "user.py"), USER)
    rename(editor, folder)
    offered(editor, uri(folder, "user.py"), 2)
    editor.close(uri(folder))
    assert actions(editor, uri(folder, "user.py"), 2) == []


def test_an_offer_stays_while_other_files_are_edited(editor: Editor, folder: Path) -> None:
    """Opening or editing a file in another language dropped all offers of its folder."""
    rename(editor, folder)
    offered(editor, uri(folder), 4)
    notes = uri(folder, "notes.md")
    editor.open(notes, "# Notes\n", "markdown")
    editor.change(notes, ((0, 7), (0, 7), " on prices"))
    assert settled(editor, uri(folder), 4)


def test_two_renames_are_offered_side_by_side(editor: Editor, folder: Path) -> None:
    rename(editor, folder)
    offered(editor, uri(folder), 4)
    rename(editor, folder, "discount", "rebate", column=17)
    action = offered(editor, uri(folder), 1)
    assert action["title"] == "Apply the same edit here (1 place): discount → rebate"  # user.py calls `total` so far
    assert "total → price" in offered(editor, uri(folder), 4)["title"]


def test_a_renamed_parameter_is_offered_in_the_calls_of_other_files(editor: Editor, folder: Path) -> None:
    rename(editor, folder, "discount", "rebate", column=17)
    found = edits(offered(editor, uri(folder), 1), folder)
    assert found == {"shop.py": [(1, 19, 27, "rebate")], "user.py": [(2, 21, 29, "rebate")]}


def test_a_removed_parameter_is_offered_in_the_calls_of_other_files(editor: Editor, folder: Path) -> None:
    editor.open(uri(folder, "user.py"), USER)
    editor.change(uri(folder), ((0, 15), (0, 27), ""))
    assert edits(offered(editor, uri(folder, "user.py"), 2), folder) == {"user.py": [(2, 19, 31, "")]}


@pytest.mark.parametrize("off", [{"trusted": False}, {"followUp": {"enable": False}}, {"enable": {"python": False}}])
def test_nothing_is_offered_in_an_untrusted_folder_or_when_off(start: Start, folder: Path, off: dict[str, Any]) -> None:
    editor = start()
    editor.initialize([folder], off)
    editor.open(uri(folder), SHOP)
    rename(editor, folder)
    assert settled(editor, uri(folder), 4) == []
    assert "price" not in str(editor.complete(uri(folder), 4, 9, INVOKED))


@pytest.mark.parametrize("name", ["ignored.py", "passwords.py", "linked.py"])
def test_nothing_is_offered_for_an_edit_in_an_excluded_file(editor: Editor, folder: Path, name: str) -> None:
    editor.open(uri(folder, name), SHOP)
    editor.change(uri(folder, name), ((0, 4), (0, 9), "price"))
    assert settled(editor, uri(folder, name), 4) == []


def test_a_document_outside_every_folder_is_offered_its_own_places(editor: Editor, tmp_path: Path) -> None:
    document = (tmp_path / "alone.py").as_uri()
    editor.open(document, SHOP.replace("\n", "\r\n"))
    editor.change(document, ((0, 4), (0, 9), "price"))
    assert edits(offered(editor, document, 4), tmp_path) == {"alone.py": [(4, 4, 9, "price")]}


def test_other_kinds_of_code_actions_are_not_answered(editor: Editor, folder: Path) -> None:
    rename(editor, folder)
    offered(editor, uri(folder), 4)
    assert actions(editor, uri(folder), 4, ["quickfix", "refactor.extract"]) == []
    assert len(actions(editor, uri(folder), 4, ["refactor"])) == 1
