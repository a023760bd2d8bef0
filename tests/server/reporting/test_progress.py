"""Progress bars are created, begun once and ended once, or not sent at all."""

from __future__ import annotations

import asyncio

from c2l_lsp.server.reporting.progress import ProgressBars


class Editor:
    def __init__(self, *, agrees: bool = True) -> None:
        self.agrees, self.tokens, self.sent = agrees, [], []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def create(self, token: str) -> None:
        self.tokens.append(token)
        await self.may_answer.wait()
        if not self.agrees:
            raise RuntimeError("progress refused")

    def notify(self, method: str, params: dict) -> None:
        assert method == "$/progress"
        self.sent.append((params["token"], params["value"]))

    def bars(self, *, supported: bool = True) -> ProgressBars:
        return ProgressBars(self.create, self.notify, supported)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_bar_from_begin_to_end() -> None:
    editor = Editor()
    bars = editor.bars()
    bars.update("w", "C2L: w", "1 of 4", 0.25)
    await settle()
    await asyncio.sleep(0.11)
    bars.update("w", "C2L: w", "2 of 4", 0.5)
    bars.update("w", "C2L: w", "3 of 4", 0.75)
    bars.end("w")
    bars.end("w")
    assert [value["kind"] for _, value in editor.sent] == ["begin", "report", "end"]
    assert editor.sent[0][1] == {
        "kind": "begin",
        "title": "C2L: w",
        "cancellable": False,
        "message": "1 of 4",
        "percentage": 25,
    }
    assert len({token for token, _ in editor.sent}) == 1


async def test_client_without_support_gets_no_bar() -> None:
    editor = Editor()
    bars = editor.bars(supported=False)
    bars.update("w", "t", "", None)
    await settle()
    bars.end_all()
    assert editor.tokens == []


async def test_refused_bar_sends_nothing() -> None:
    editor = Editor(agrees=False)
    bars = editor.bars()
    bars.update("w", "t", "", None)
    await settle()
    bars.update("w", "t", "more", None)
    bars.end("w")
    assert editor.sent == []


async def test_work_that_ends_before_the_editor_answers_sends_nothing() -> None:
    editor = Editor()
    editor.may_answer.clear()
    bars = editor.bars()
    bars.update("w", "t", "", None)
    await settle()
    bars.end("w")
    editor.may_answer.set()
    await settle()
    assert editor.sent == []
    bars.update("w", "t", "", None)
    bars.update("v", "t", "", 2.0)
    await settle()
    bars.end_all()
    assert [value["kind"] for _, value in editor.sent] == ["begin", "begin", "end", "end"]
    assert len(set(editor.tokens)) == 3
