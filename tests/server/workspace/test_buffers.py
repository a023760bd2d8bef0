"""Which buffers are sent to the engine, and how often."""

from __future__ import annotations

import asyncio

import pytest

from c2l_lsp.config import Settings, merge
from c2l_lsp.engine.wire import Buffer
from c2l_lsp.server.workspace import buffers
from c2l_lsp.server.workspace.buffers import BufferFeed
from c2l_lsp.server.workspace.documents import Document, Edit
from c2l_lsp.server.workspace.folders import Folders


class Workspace:
    def __init__(self, **values: object) -> None:
        self.sent: list[Buffer] = []
        self.settings, _ = merge(Settings(), values, source="test", machine=True)
        self.folders = Folders()
        self.folders.add("file:///w")
        self.feed = BufferFeed(self.sent.append, self.folders.resolve, lambda _: self.settings)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "THROTTLE", 0.05)


def document(uri: str = "file:///w/a.py", language: str = "python", text: str = "x\r\n") -> Document:
    return Document.from_text(uri, language, 1, text)


async def test_many_edits_send_one_buffer() -> None:
    workspace, open_document = Workspace(), document()
    for version in range(20):
        open_document.apply([Edit("y", (0, 0), (0, 0))], version)
        workspace.feed.schedule(open_document)
    assert workspace.sent == []
    await asyncio.sleep(0.1)
    assert workspace.sent == [Buffer(folder="/w", path="a.py", text="y" * 20 + "x\n")]
    workspace.feed.remove(open_document)
    assert workspace.sent[1:] == [Buffer(folder="/w", path="a.py", text=None)]


async def test_closed_document_sends_nothing() -> None:
    workspace, open_document = Workspace(), document()
    workspace.feed.schedule(open_document)
    workspace.feed.remove(open_document)
    await asyncio.sleep(0.1)
    assert workspace.sent == []


async def test_document_is_removed_from_its_old_folder() -> None:
    workspace, open_document = Workspace(), document("file:///w/inner/a.py")
    workspace.feed.schedule(open_document)
    await asyncio.sleep(0.1)
    workspace.folders.add("file:///w/inner")
    workspace.feed.schedule(open_document)
    await asyncio.sleep(0.1)
    assert [(one.folder, one.path, one.text) for one in workspace.sent] == [
        ("/w", "inner/a.py", "x\n"),
        ("/w", "inner/a.py", None),
        ("/w/inner", "a.py", "x\n"),
    ]


@pytest.mark.parametrize(
    "other", [document("file:///elsewhere/a.py"), document("untitled:1"), document(language="markdown")]
)
async def test_documents_that_are_not_indexed_are_not_sent(other: Document) -> None:
    workspace = Workspace()
    workspace.feed.schedule(other)
    await asyncio.sleep(0.1)
    assert workspace.sent == []


@pytest.mark.parametrize("limit", [{"files.maxSizeKb": 1}, {"adapter.includeUnsaved": False}])
async def test_buffer_that_becomes_ineligible_is_withdrawn(limit: dict) -> None:
    workspace, open_document = Workspace(), document(text="é" * 600)
    workspace.feed.schedule(open_document)
    await asyncio.sleep(0.1)
    workspace.settings, _ = merge(Settings(), limit, source="test", machine=True)
    workspace.feed.schedule(open_document)
    await asyncio.sleep(0.1)
    assert [one.text is None for one in workspace.sent] == [False, True]
    workspace.feed.schedule(open_document)
    workspace.feed.stop()
    await asyncio.sleep(0.1)
    assert len(workspace.sent) == 2
