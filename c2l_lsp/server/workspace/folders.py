"""Workspace folders: URIs to paths, and which folder a document belongs to. Touches no file."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Place:
    """Where a document is: its folder and its path in it with /; both "" outside of every folder."""

    folder: str = ""
    path: str = ""


class Folders:
    """The open workspace folders, by absolute path."""

    def __init__(self) -> None:
        self._uris: dict[str, str] = {}

    def add(self, uri: str) -> str | None:
        """A folder was opened; its path, or None if it is none we can read (not a file: URI)."""
        path = to_path(uri)
        if path is not None:
            self._uris[path] = uri
        return path

    def remove(self, uri: str) -> str | None:
        """A folder was closed; its path, or None if it was not open."""
        path = to_path(uri)
        return path if path is not None and self._uris.pop(path, None) is not None else None

    def uri(self, folder: str) -> str:
        """The editor's URI of an open folder."""
        return self._uris[folder]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._uris))

    def __len__(self) -> int:
        return len(self._uris)

    def place(self, uri: str) -> Place:
        """The innermost folder that holds a document."""
        path = to_path(uri)
        if path is None:
            return Place()
        best = Place()
        for folder in self._uris:
            inside = _inside(path, folder)
            if inside is not None and len(folder) > len(best.folder):
                best = Place(folder, inside)
        return best

    def find(self, named: str | None, document_uri: str | None) -> str:
        """The folder named by URI or path, else the document's, else the first; "" if there is none."""
        if named is not None:
            path = to_path(named) if named.startswith("file:") else _normal(named)
            return path if path in self._uris else ""
        if document_uri is not None and (folder := self.place(document_uri).folder):
            return folder
        return next(iter(self._uris), "")


def to_path(uri: str) -> str | None:
    """The absolute, normalised path of a file: URI; None for every other scheme, host or a path with NUL."""
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
        path = f"\\\\{parts.netloc}{path}"  # a share of another machine
    return _normal(path) if path and "\0" not in path and Path(path).is_absolute() else None


def _pathname(path: str) -> str:
    if os.name != "nt":
        return unquote(path)
    from urllib.request import url2pathname  # slow to import, and only Windows needs it

    return url2pathname(path)


def _normal(path: str) -> str:
    plain = os.path.normpath(path)
    if os.name == "nt" and plain[1:2] == ":":
        plain = plain[0].lower() + plain[1:]  # editors disagree about the drive letter
    return plain


def _inside(path: str, folder: str) -> str | None:
    if os.name != "nt":  # both are normalised: a comparison tells, and a thousand folders are compared at each key
        start = folder if folder.endswith("/") else f"{folder}/"
        return path[len(start) :] if path.startswith(start) and path != start else None
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # another drive
        return None
    shown = PurePath(relative).as_posix()
    if shown == "." or shown == ".." or shown.startswith("../") or posixpath.isabs(shown):
        return None
    return shown
