"""Reads the notifications by which an editor opens and changes notebooks, as `document_messages` does for documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from c2l_lsp.server.workspace.document_messages import Changed, Opened, mapping, read_changed, read_opened, whole_number
from c2l_lsp.server.workspace.notebooks import Cell, Splice

_CODE = 2  # NotebookCellKind


class OpenedNotebook(NamedTuple):
    """A `notebookDocument/didOpen`."""

    uri: str
    cells: list[Cell]
    opened: list[Opened]


class ChangedNotebook(NamedTuple):
    """A `notebookDocument/didChange`. The parts apply in the order of the fields: a moved cell may close and open."""

    uri: str
    splice: Splice | None
    closed: list[str]
    opened: list[Opened]
    updated: list[Cell]
    changed: list[Changed]


class Unreadable(NamedTuple):
    """A notification that cannot be read exactly. `uri` None: it does not even name its notebook."""

    uri: str | None


def read_opened_notebook(params: object) -> OpenedNotebook | Unreadable:
    """Return the parameters of a `notebookDocument/didOpen`."""
    notebook = mapping(mapping(params).get("notebookDocument"))
    uri = notebook.get("uri")
    if not isinstance(uri, str):
        return Unreadable(None)
    cells, opened = _cells(notebook.get("cells")), _opened(mapping(params).get("cellTextDocuments"))
    return Unreadable(uri) if cells is None or opened is None else OpenedNotebook(uri, cells, opened)


def read_changed_notebook(params: object) -> ChangedNotebook | Unreadable:
    """Return the parameters of a `notebookDocument/didChange`."""
    uri = mapping(mapping(params).get("notebookDocument")).get("uri")
    if not isinstance(uri, str):
        return Unreadable(None)
    change = mapping(params).get("change")
    if not isinstance(change, Mapping) or not isinstance(change.get("cells") or {}, Mapping):
        return Unreadable(uri)
    cells: Mapping[str, Any] = change.get("cells") or {}
    structure = cells.get("structure")
    splice = _splice(mapping(structure).get("array")) if structure is not None else None
    opened, closed = _opened(mapping(structure).get("didOpen")), _closed(mapping(structure).get("didClose"))
    updated, changed = _cells(cells.get("data")), _changed(cells.get("textContent"))
    if (structure is not None and splice is None) or opened is None or closed is None:
        return Unreadable(uri)
    if updated is None or changed is None:
        return Unreadable(uri)
    return ChangedNotebook(uri, splice, closed, opened, updated, changed)


def read_closed_notebook(params: object) -> tuple[str | None, list[str]]:
    """Return the URIs of the notebook and of its cells in a `notebookDocument/didClose`."""
    uri = mapping(mapping(params).get("notebookDocument")).get("uri")
    return uri if isinstance(uri, str) else None, _closed(mapping(params).get("cellTextDocuments")) or []


def _splice(array: object) -> Splice | None:
    values = mapping(array)
    start, deleted = whole_number(values.get("start")), whole_number(values.get("deleteCount"))
    cells = _cells(values.get("cells"))
    if start is None or deleted is None or deleted < 0 or cells is None:
        return None
    return Splice(start, deleted, cells)


def _cells(values: object) -> list[Cell] | None:
    found: list[Cell] = []
    for value in _items(values):
        uri = mapping(value).get("document")
        if not isinstance(uri, str):
            return None
        found.append(Cell(uri, whole_number(mapping(value).get("kind")) == _CODE))
    return found if _is_list(values) else None


def _opened(values: object) -> list[Opened] | None:
    found = [read_opened({"textDocument": value}) for value in _items(values)]
    named = [one for one in found if one is not None]
    return named if len(named) == len(found) and _is_list(values) else None


def _changed(values: object) -> list[Changed] | None:
    found = [
        read_changed({"textDocument": mapping(value).get("document"), "contentChanges": mapping(value).get("changes")})
        for value in _items(values)
    ]
    named = [one for one in found if one is not None]
    return named if len(named) == len(found) and _is_list(values) else None


def _closed(values: object) -> list[str] | None:
    found = [mapping(value).get("uri") for value in _items(values)]
    named = [uri for uri in found if isinstance(uri, str)]
    return named if len(named) == len(found) and _is_list(values) else None


def _is_list(values: object) -> bool:
    """Whether a value is a list, or left out."""
    return values is None or isinstance(values, list)


def _items(values: object) -> list[object]:
    return values if isinstance(values, list) else []
