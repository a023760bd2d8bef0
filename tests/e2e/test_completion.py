"""Completions through the whole server: items, ranges, reuse, reasons."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from lsprotocol import types as t

from tests.support.editor import AUTOMATIC, Editor

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_explicit_request_gets_three_an_automatic_one(shared: Editor, place: str) -> None:
    items = await shared.complete(place, 0, 3)
    assert [item.insert_text for item in items] == ["_foo_g1_0()", "_foo_g1_1()", "_foo_g1_2()"]
    assert items[0].range == t.Range(t.Position(0, 3), t.Position(0, 3))
    assert items[0].command.command == "c2l.didAcceptCompletion"
    shared.change(place, ((0, 3), (0, 3), "bar"))
    assert await shared.texts(place, 0, 6, AUTOMATIC) == ["_foobar_g1_0()"]


async def test_closers_that_are_written_again_are_covered(shared: Editor, place: str) -> None:
    shared.change(place, "f(CLOSE)  # 𝄞\ng(x)")
    item = (await shared.complete(place, 0, 7))[0]
    assert (item.insert_text, item.range.end) == ("CLOSE_arg)", t.Position(0, 8))
    shared.change(place, "f(foo)")
    item = (await shared.complete(place, 0, 5))[0]
    assert (item.insert_text, item.range.end) == ("_foo_g1_0()", t.Position(0, 5))


async def test_a_selected_popup_entry_is_extended(shared: Editor, place: str) -> None:
    shared.change(place, "os.pa")
    entry = t.SelectedCompletionInfo(range=t.Range(t.Position(0, 3), t.Position(0, 5)), text="path")
    items = await shared.complete(place, 0, 5, selected_completion_info=entry)
    assert items[0].insert_text.startswith("path")
    assert len(items[0].insert_text) > 4
    assert items[0].range == entry.range


async def test_typing_along_asks_the_engine_nothing(shared: Editor, place: str) -> None:
    first = (await shared.complete(place, 0, 3, AUTOMATIC))[0]
    for at, char in enumerate(first.insert_text[:4]):
        shared.change(place, ((0, 3 + at), (0, 3 + at), char))
        item = (await shared.complete(place, 0, 4 + at, AUTOMATIC))[0]
        assert item.insert_text == first.insert_text[at + 1 :]
        assert item.command.arguments == first.command.arguments
    asked = [note["params"]["prefix"] for note in shared.asked("complete") if note["params"]["path"] in place]
    assert asked[0] == "foo"
    assert set(asked) <= {"foo", "foo" + first.insert_text}  # the second is the look-ahead


async def test_lines_have_the_documents_endings(shared: Editor, place: str) -> None:
    shared.change(place, "a\r\nLINES = (\r\n")
    assert (await shared.texts(place, 1, 9))[0] == "LINES_one\r\n    two\r\n    three"
    assert shared.asked("complete")[-1]["params"]["prefix"] == "a\nLINES = ("


async def test_documents_outside_every_folder_use_the_bare_model(shared: Editor, tmp_path: Path) -> None:
    for odd in ((tmp_path / "other.py").as_uri(), "untitled:Untitled-1", "git:/x/a.py?ref"):
        shared.open(odd, "bar")
        assert await shared.texts(odd, 0, 3, AUTOMATIC) == ["_bar_0()"]
        assert shared.asked("complete")[-1]["params"]["folder"] in ("", "/")


async def test_a_document_that_was_never_opened(shared: Editor) -> None:
    assert await shared.complete("file:///never.py", 3, 7) == []
    status = await shared.request("c2l/status", {"textDocument": {"uri": "file:///never.py"}})
    assert status["disabledReason"] == "no-document"


async def test_a_request_that_was_overtaken_gives_no_reason(shared: Editor, place: str) -> None:
    async def last() -> str | None:
        report = await shared.command("c2l.showReport", {"textDocument": {"uri": place}})
        return report["lastReason"] and report["lastReason"]["code"]

    shared.change(place, "NOTHING")
    assert await shared.complete(place, 0, 7) == []
    assert await last() == "empty"
    shared.change(place, "SLOW:5 foo")
    first = asyncio.ensure_future(shared.complete(place, 0, 10))
    await shared.until(lambda: "SLOW" in str(shared.asked("complete")[-1]["params"]["prefix"]))
    assert await last() == "empty", "what is under way has not got anything"
    shared.change(place, "foo")
    assert await shared.texts(place, 0, 3)
    assert await first is None
    assert await last() is None


async def test_reasons_are_named(shared: Editor, place: str) -> None:
    async def reason() -> str | None:
        return (await shared.request("c2l/status", {"textDocument": {"uri": place}})).get("disabledReason")

    assert await reason() is None
    assert await shared.command("c2l.toggle", {"uri": place}) == {"enabled": False}
    assert await reason() == "buffer"
    assert await shared.complete(place, 0, 3) == []
    report = await shared.command("c2l.showReport", {"textDocument": {"uri": place}})
    assert report["lastReason"]["code"] == "buffer"
    assert report["status"]["disabledReason"] == "buffer"
    assert (await shared.command("c2l.showReport", []))["lastReason"] is None  # Lua's empty table
    assert await shared.command("c2l.toggle", {"uri": place}) == {"enabled": True}
    assert await shared.command("c2l.toggleLanguage", "python") == {"language": "python", "enabled": False}
    shared.open("untitled:1", "bar")
    assert await shared.complete("untitled:1", 0, 3) == []
    await shared.command("c2l.toggleLanguage", {"uri": place})
    assert await shared.command("c2l.toggle") == {"enabled": False}
    assert (await shared.status(lambda s: s["state"] == "disabled"))["disabledReason"] == "off"
    assert await shared.complete(place, 0, 3) == []
    await shared.command("c2l.toggle")
    await shared.command("c2l.snooze", 5)
    assert (await shared.status(lambda s: s["state"] == "disabled"))["disabledReason"] == "snoozed"
    assert await shared.complete(place, 0, 3, AUTOMATIC) == []
    assert await shared.complete(place, 0, 3) != []
    await shared.command("c2l.snooze", 0.001)
    await shared.ready()
    assert await shared.complete(place, 0, 3, AUTOMATIC) != []
