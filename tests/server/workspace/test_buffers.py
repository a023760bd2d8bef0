"""Which texts go to the engine, and how often."""

from __future__ import annotations

import asyncio

import pytest

from c2l_lsp.config import Settings, merge
from c2l_lsp.engine.wire import Buffer
from c2l_lsp.server.workspace import buffers
from c2l_lsp.server.workspace.buffers import BufferFeed
from c2l_lsp.server.workspace.documents import Document, Edit
from c2l_lsp.server.workspace.folders import Folders


class World:
    def __init__(self, **values: object) -> None:
        self.sent: list[Buffer] = []
        self.settings, _ = merge(Settings(), values, source="test", machine=True)
        self.folders = Folders()
        self.folders.add("file:///w")
        self.feed = BufferFeed(self.sent.append, self.folders.place, lambda _: self.settings)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "THROTTLE", 0.05)


def document(uri: str = "file:///w/a.py", language: str = "python", text: str = "x\r\n") -> Document:
    return Document.of(uri, language, 1, text)


async def test_many_edits_are_one_buffer() -> None:
    world, open_document = World(), document()
    for version in range(20):
        open_document.apply([Edit("y", (0, 0), (0, 0))], version)
        world.feed.changed(open_document)
    assert world.sent == []
    await asyncio.sleep(0.1)
    assert world.sent == [Buffer(folder="/w", path="a.py", text="y" * 20 + "x\n")]
    world.feed.closed(open_document)
    assert world.sent[1:] == [Buffer(folder="/w", path="a.py", text=None)]


async def test_a_closed_document_sends_nothing_more() -> None:
    world, open_document = World(), document()
    world.feed.changed(open_document)
    world.feed.closed(open_document)
    await asyncio.sleep(0.1)
    assert world.sent == []


async def test_a_document_whose_folder_changes_leaves_the_old_one() -> None:
    world, open_document = World(), document("file:///w/inner/a.py")
    world.feed.changed(open_document)
    await asyncio.sleep(0.1)
    world.folders.add("file:///w/inner")
    world.feed.changed(open_document)
    await asyncio.sleep(0.1)
    assert [(one.folder, one.path, one.text) for one in world.sent] == [
        ("/w", "inner/a.py", "x\n"),
        ("/w", "inner/a.py", None),
        ("/w/inner", "a.py", "x\n"),
    ]


@pytest.mark.parametrize(
    "odd", [document("file:///elsewhere/a.py"), document("untitled:1"), document(language="markdown")]
)
async def test_documents_that_are_not_learned(odd: Document) -> None:
    world = World()
    world.feed.changed(odd)
    await asyncio.sleep(0.1)
    assert world.sent == []


@pytest.mark.parametrize("limit", [{"files.maxSizeKb": 1}, {"adapter.includeUnsaved": False}])
async def test_too_large_or_not_wanted_is_taken_back(limit: dict) -> None:
    world, open_document = World(), document(text="é" * 600)
    world.feed.changed(open_document)
    await asyncio.sleep(0.1)
    world.settings, _ = merge(Settings(), limit, source="test", machine=True)
    world.feed.changed(open_document)
    await asyncio.sleep(0.1)
    assert [one.text is None for one in world.sent] == [False, True]
    world.feed.changed(open_document)
    world.feed.stop()
    await asyncio.sleep(0.1)
    assert len(world.sent) == 2
