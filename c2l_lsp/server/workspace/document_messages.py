"""Reads the notifications by which an editor opens and changes documents.

They are read leniently and from plain JSON values: a notification that is refused leaves the server with another text
than the editor's, and no answer tells the editor so. What cannot be read exactly is reported as such, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from c2l_lsp.server.workspace.documents import Edit

_DIGITS = re.compile(r"\d{1,18}", re.ASCII)


class Opened(NamedTuple):
    """A `didOpen`. `text` None: it cannot be read. `version` None: the editor did not send a number."""

    uri: str
    language: str
    version: int | None
    text: str | None


class Changed(NamedTuple):
    """A `didChange`. `edits` None: they cannot be read exactly. `version` None: the editor did not send a number."""

    uri: str
    version: int | None
    edits: list[Edit] | None


def read_opened(params: object) -> Opened | None:
    """Return the parameters of a `didOpen`; None if they name no document."""
    item = mapping(mapping(params).get("textDocument"))
    uri, language, text = item.get("uri"), item.get("languageId"), item.get("text")
    if not isinstance(uri, str):
        return None
    language = language if isinstance(language, str) else ""
    return Opened(uri, language, _version(item.get("version")), text if isinstance(text, str) else None)


def read_changed(params: object) -> Changed | None:
    """Return the parameters of a `didChange`; None if they name no document."""
    document = mapping(mapping(params).get("textDocument"))
    uri = document.get("uri")
    if not isinstance(uri, str):
        return None
    return Changed(uri, _version(document.get("version")), _edits(mapping(params).get("contentChanges")))


def _edits(changes: object) -> list[Edit] | None:
    """Return the edits in order. A new whole text makes all edits before it irrelevant, also unreadable ones."""
    if not isinstance(changes, list):
        return None
    edits: list[Edit] | None = []
    for change in changes:
        edit = _edit(mapping(change))
        if edit is None:
            edits = None
        elif edit.start is None:
            edits = [edit]
        elif edits is not None:
            edits.append(edit)
    return edits


def _edit(change: Mapping[str, Any]) -> Edit | None:
    text, span = change.get("text"), change.get("range")
    if not isinstance(text, str):
        return None
    if span is None:
        return Edit(text)
    start, end = (_position(mapping(span).get(side)) for side in ("start", "end"))
    return None if start is None or end is None else Edit(text, start, end)


def _position(value: object) -> tuple[int, int] | None:
    """Return (line, code units). They may lie outside of the document: `Document.locate` clamps them."""
    line, units = (whole_number(mapping(value).get(key)) for key in ("line", "character"))
    return None if line is None or units is None else (line, units)


def whole_number(value: object) -> int | None:
    """Return an integer. Editors whose language has no integers send 3.0 for 3; other fractions mean nothing."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _version(value: object) -> int | None:
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    return whole_number(value)


def mapping(value: object) -> Mapping[str, Any]:
    """Return a JSON object; an empty one for every other value."""
    return value if isinstance(value, Mapping) else {}
