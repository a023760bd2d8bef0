"""Completions through the whole server: items, ranges, reuse, reasons."""

from __future__ import annotations

from pathlib import Path

from lsprotocol import types as t

from tests.support.editor import AUTOMATIC, Editor


def test_explicit_request_gets_three_candidates_automatic_one(shared: Editor, place: str) -> None:
    items = shared.complete(place, 0, 3)
    assert [item.insert_text for item in items] == ["_foo_g1_0()", "_foo_g1_1()", "_foo_g1_2()"]
    assert items[0].range == t.Range(t.Position(0, 3), t.Position(0, 3))
    assert items[0].command.command == "c2l.didAcceptCompletion"
    shared.change(place, ((0, 3), (0, 3), "bar"))
    assert shared.texts(place, 0, 6, AUTOMATIC) == ["_foobar_g1_0()"]


def test_repeated_closing_brackets_are_replaced(shared: Editor, place: str) -> None:
    shared.change(place, "f(CLOSE)  # 𝄞\ng(x)")
    item = (shared.complete(place, 0, 7))[0]
    assert (item.insert_text, item.range.end) == ("CLOSE_arg)", t.Position(0, 8))
    shared.change(place, "f(foo)")
    item = (shared.complete(place, 0, 5))[0]
    assert (item.insert_text, item.range.end) == ("_foo_g1_0()", t.Position(0, 5))


def test_selected_popup_entry_is_continued(shared: Editor, place: str) -> None:
    shared.change(place, "os.pa")
    selected = t.Range(t.Position(0, 3), t.Position(0, 5))
    entry = {"range": {"start": {"line": 0, "character": 3}, "end": {"line": 0, "character": 5}}, "text": "path"}
    items = shared.complete(place, 0, 5, selectedCompletionInfo=entry)
    assert items[0].insert_text.startswith("path")
    assert len(items[0].insert_text) > 4
    assert items[0].range == selected


def test_typing_along_sends_no_request_to_the_engine(shared: Editor, place: str) -> None:
    first = (shared.complete(place, 0, 3, AUTOMATIC))[0]
    for at, char in enumerate(first.insert_text[:4]):
        shared.change(place, ((0, 3 + at), (0, 3 + at), char))
        item = (shared.complete(place, 0, 4 + at, AUTOMATIC))[0]
        assert item.insert_text == first.insert_text[at + 1 :]
        assert item.command.arguments == first.command.arguments
    prefixes = [
        note["params"]["prefix"] for note in shared.engine_requests("complete") if note["params"]["path"] in place
    ]
    assert prefixes[0] == "foo"
    assert set(prefixes) <= {"foo", "foo" + first.insert_text}  # the second is the prefetch


def test_completion_has_the_line_endings_of_the_document(shared: Editor, place: str) -> None:
    shared.change(place, "a\r\nLINES = (\r\n")
    assert (shared.texts(place, 1, 9))[0] == "LINES_one\r\n    two\r\n    three"
    assert shared.engine_requests("complete")[-1]["params"]["prefix"] == "a\nLINES = ("


def test_documents_outside_every_folder_use_the_base_model(shared: Editor, tmp_path: Path) -> None:
    for outside in ((tmp_path / "other.py").as_uri(), "untitled:Untitled-1", "git:/x/a.py?ref"):
        shared.open(outside, "bar")
        assert shared.texts(outside, 0, 3, AUTOMATIC) == ["_bar_0()"]
        assert shared.engine_requests("complete")[-1]["params"]["folder"] in ("", "/")


def test_document_that_was_never_opened(shared: Editor) -> None:
    assert shared.complete("file:///never.py", 3, 7) == []
    status = shared.request("c2l/status", {"textDocument": {"uri": "file:///never.py"}})
    assert status["disabledReason"] == "no-document"


def test_superseded_request_does_not_change_the_last_reason(shared: Editor, place: str) -> None:
    def last() -> str | None:
        report = shared.command("c2l.showReport", {"textDocument": {"uri": place}})
        return report["lastReason"] and report["lastReason"]["code"]

    shared.change(place, "NOTHING")
    assert shared.complete(place, 0, 7) == []
    assert last() == "empty"
    shared.change(place, "SLOW:5 foo")
    first = shared.send_completion(place, 0, 10)
    shared.until(lambda: "SLOW" in str(shared.engine_requests("complete")[-1]["params"]["prefix"]))
    assert last() == "empty", "a running request does not change the reason"
    shared.change(place, "foo")
    assert shared.texts(place, 0, 3)
    assert shared.items(first) is None
    assert last() is None


def test_reasons_of_switches(shared: Editor, place: str) -> None:
    def reason() -> str | None:
        return (shared.request("c2l/status", {"textDocument": {"uri": place}})).get("disabledReason")

    assert reason() is None
    assert shared.command("c2l.toggle", {"uri": place}) == {"enabled": False}
    assert reason() == "buffer"
    assert shared.complete(place, 0, 3) == []
    report = shared.command("c2l.showReport", {"textDocument": {"uri": place}})
    assert report["lastReason"]["code"] == "buffer"
    assert report["status"]["disabledReason"] == "buffer"
    assert (shared.command("c2l.showReport", []))["lastReason"] is None  # an empty Lua table
    assert shared.command("c2l.toggle", {"uri": place}) == {"enabled": True}
    assert shared.command("c2l.toggleLanguage", "python") == {"language": "python", "enabled": False}
    shared.open("untitled:1", "bar")
    assert shared.complete("untitled:1", 0, 3) == []
    shared.command("c2l.toggleLanguage", {"uri": place})
    assert shared.command("c2l.toggle") == {"enabled": False}
    assert (shared.status(lambda s: s["state"] == "disabled"))["disabledReason"] == "off"
    assert shared.complete(place, 0, 3) == []
    shared.command("c2l.toggle")
    shared.command("c2l.snooze", 5)
    assert (shared.status(lambda s: s["state"] == "disabled"))["disabledReason"] == "snoozed"
    assert shared.complete(place, 0, 3, AUTOMATIC) == []
    assert shared.complete(place, 0, 3) != []
    shared.command("c2l.snooze", 0.001)
    shared.ready()
    assert shared.complete(place, 0, 3, AUTOMATIC) != []
