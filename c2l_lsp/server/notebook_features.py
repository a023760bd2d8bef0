"""Handlers of the notebook methods of LSP: they keep the cells of notebooks as documents, and their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lsprotocol import types as t

from c2l_lsp.server.features import ensure_settings
from c2l_lsp.server.session import Session
from c2l_lsp.server.transport.rpc import Server
from c2l_lsp.server.workspace import notebook_messages
from c2l_lsp.server.workspace.document_messages import Opened
from c2l_lsp.server.workspace.notebook_messages import ChangedNotebook, Unreadable


def register(server: Server, session: Session) -> None:
    """Register the handlers of notebooks. A saved notebook needs none: the engine's watcher sees the file itself."""

    @server.feature(t.NOTEBOOK_DOCUMENT_DID_OPEN)
    def opened(params: Any) -> None:  # noqa: ANN401 - plain values, parsed below
        opened = notebook_messages.read_opened_notebook(params)
        if isinstance(opened, Unreadable):
            session.notebook_unreadable(opened.uri)
        else:
            _close(session, opened.uri, ())
            session.notebooks.open(opened.uri, opened.cells)
            _open(session, opened.uri, opened.opened)
        ensure_settings(server, session)

    @server.feature(t.NOTEBOOK_DOCUMENT_DID_CHANGE)
    def changed(params: Any) -> None:  # noqa: ANN401 - plain values, parsed below
        changed = notebook_messages.read_changed_notebook(params)
        if isinstance(changed, Unreadable):
            session.notebook_unreadable(changed.uri)
        else:
            _change(session, changed)

    @server.feature(t.NOTEBOOK_DOCUMENT_DID_CLOSE)
    def closed(params: Any) -> None:  # noqa: ANN401 - plain values, parsed below
        uri, cells = notebook_messages.read_closed_notebook(params)
        _close(session, uri, cells)


def _change(session: Session, change: ChangedNotebook) -> None:
    uri = change.uri
    known = change.splice is None or session.notebooks.splice(uri, change.splice)
    for cell in change.closed:
        session.document_closed(cell)
    _open(session, uri, change.opened)
    session.notebooks.update(uri, change.updated)
    for edited in change.changed:
        if edited.edits is None:
            session.change_unreadable(edited.uri)
        else:
            session.document_edited(edited.uri, edited.version, edited.edits)
    if not known:
        session.notebook_unreadable(uri)


def _open(session: Session, notebook: str, cells: Sequence[Opened]) -> None:
    for cell in cells:
        if cell.text is None:
            session.change_unreadable(cell.uri)
        else:
            session.document_opened(cell.uri, cell.language, cell.version or 0, cell.text, notebook)


def _close(session: Session, notebook: str | None, cells: Sequence[str]) -> None:
    known = session.notebooks.cells(notebook) if notebook is not None else []
    for cell in {*known, *cells}:
        session.document_closed(cell)
    if notebook is not None:
        session.notebooks.close(notebook)
