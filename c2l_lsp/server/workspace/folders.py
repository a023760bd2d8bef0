"""Workspace folders: converts URIs to paths and finds the folder of a document.

A folder and a document can be opened by different paths of the same place: the one through a link, the other by its
real path. Links are therefore resolved, of a document when it is first asked for, and what was found is remembered:
keystrokes access no file system.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit

_MOST_KNOWN = 10_000  # documents


@dataclass(frozen=True)
class WorkspacePath:
    """A document's folder and its path inside, with /. Both are "" outside every folder.

    The path contains no link if the document's real path lies in the folder. The path of a link that leads out of the
    folder stays as it is, so that the filter sees and refuses it.
    """

    folder: str = ""
    path: str = ""


class Folders:
    """The open workspace folders by absolute path."""

    def __init__(self) -> None:
        self._uris: dict[str, str] = {}
        self._real: dict[str, str] = {}
        self._known: dict[str, WorkspacePath] = {}
        self._notebooks: dict[str, str] = {}

    def add(self, uri: str) -> str | None:
        """Add a folder; returns its path, or None if it is not a local file: URI."""
        path = to_path(uri)
        if path is not None:
            self._uris[path], self._real[path] = uri, _real(path)
            self._known.clear()
        return path

    def remove(self, uri: str) -> str | None:
        """Remove a folder; returns its path, or None if it was not open."""
        path = to_path(uri)
        if path is None or self._uris.pop(path, None) is None:
            return None
        del self._real[path]
        self._known.clear()
        return path

    def uri(self, folder: str) -> str:
        """The editor's URI of an open folder. KeyError if it is not open."""
        return self._uris[folder]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._uris))

    def attach(self, cell_uri: str, notebook_uri: str) -> None:
        """Let a cell of a notebook be in the notebook's folder, at the notebook's path."""
        self._notebooks[cell_uri] = notebook_uri
        self._known.pop(cell_uri, None)

    def detach(self, cell_uri: str) -> None:
        """Forget the notebook of a closed cell."""
        if self._notebooks.pop(cell_uri, None) is not None:
            self._known.pop(cell_uri, None)

    def forget(self, uri: str) -> None:
        """Resolve a document's links again when it is asked for next. Call it when the document is opened."""
        self._known.pop(uri, None)

    def resolve(self, uri: str) -> WorkspacePath:
        """The innermost folder that contains a document, and the path inside it."""
        known = self._known.get(uri)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[uri] = self._resolve(uri)
        return known

    def _resolve(self, uri: str) -> WorkspacePath:
        path = to_path(self._notebooks.get(uri, uri))
        if path is None or not self._uris:
            return WorkspacePath()
        named = _innermost(path, {folder: folder for folder in self._uris})
        real = _real(path)
        if named.folder and _relative(real, self._real[named.folder]) == named.path:
            return named  # no link is involved, or one above the folder; another open folder may be the same place
        found = _innermost(real, self._real)
        return found if found.folder else named

    def find(self, folder: str | None, document_uri: str | None) -> str:
        """The folder given by URI or path, else the folder of the document, else the first; "" if it is not open."""
        if folder is not None:
            path = to_path(folder) if folder.startswith("file:") else _normalize(folder)
            if path is None or path in self._uris:
                return path or ""
            return next((one for one, real in self._real.items() if real == _real(path)), "")
        if document_uri is not None and (found := self.resolve(document_uri).folder):
            return found
        return next(iter(self._uris), "")


def to_path(uri: str) -> str | None:
    """The normalised absolute path of a file: URI; None for another scheme or host, or a path with a NUL character."""
    try:
        parts = urlsplit(uri)
        if parts.scheme.lower() != "file":
            return None
        path = _pathname(parts.path)
    except (ValueError, OSError):
        return None
    if parts.netloc not in ("", "localhost"):
        if os.name != "nt":
            return None
        path = f"\\\\{parts.netloc}{path}"  # a network share
    return _normalize(path) if path and "\0" not in path and Path(path).is_absolute() else None


def _pathname(path: str) -> str:
    if os.name != "nt":
        return unquote(path)
    from urllib.request import url2pathname  # slow to import, and needed on Windows only

    return url2pathname(path)


def _normalize(path: str) -> str:
    normalized = os.path.normpath(path)
    if os.name == "nt" and normalized[1:2] == ":":
        normalized = normalized[0].lower() + normalized[1:]  # editors differ in the case of drive letters
    return normalized


def _real(path: str) -> str:
    """The path without links. Unchanged where it cannot be resolved: in a loop of links, or without permission."""
    try:
        return _normalize(os.path.realpath(path))
    except (OSError, ValueError):
        return path


def _innermost(path: str, folders: Mapping[str, str]) -> WorkspacePath:
    """The innermost folder that contains a path. `folders`: folder → the path that is compared."""
    best, deepest = WorkspacePath(), -1
    for folder, compared in folders.items():
        relative = _relative(path, compared)
        if relative is not None and len(compared) > deepest:
            best, deepest = WorkspacePath(folder, relative), len(compared)
    return best


def _relative(path: str, folder: str) -> str | None:
    if os.name != "nt":  # fast path: both are normalised, and every keystroke compares all folders
        start = folder if folder.endswith("/") else f"{folder}/"
        return path[len(start) :] if path.startswith(start) and path != start else None
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # another drive
        return None
    posix = PurePath(relative).as_posix()
    if posix == "." or posix == ".." or posix.startswith("../") or posixpath.isabs(posix):
        return None
    return posix
