"""Workspace folders: converts URIs to paths and finds the folder of a document. Does not access the file system."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class WorkspacePath:
    """A document's folder and its path inside, with /. Both are "" outside every folder."""

    folder: str = ""
    path: str = ""


class Folders:
    """The open workspace folders by absolute path."""

    def __init__(self) -> None:
        self._uris: dict[str, str] = {}

    def add(self, uri: str) -> str | None:
        """Add a folder; returns its path, or None if it is not a local file: URI."""
        path = to_path(uri)
        if path is not None:
            self._uris[path] = uri
        return path

    def remove(self, uri: str) -> str | None:
        """Remove a folder; returns its path, or None if it was not open."""
        path = to_path(uri)
        return path if path is not None and self._uris.pop(path, None) is not None else None

    def uri(self, folder: str) -> str:
        """The editor's URI of an open folder. KeyError if it is not open."""
        return self._uris[folder]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._uris))

    def resolve(self, uri: str) -> WorkspacePath:
        """The innermost folder that contains a document, and the path inside it."""
        path = to_path(uri)
        if path is None:
            return WorkspacePath()
        best = WorkspacePath()
        for folder in self._uris:
            relative = _relative(path, folder)
            if relative is not None and len(folder) > len(best.folder):
                best = WorkspacePath(folder, relative)
        return best

    def find(self, folder: str | None, document_uri: str | None) -> str:
        """The folder given by URI or path, else the folder of the document, else the first; "" if it is not open."""
        if folder is not None:
            path = to_path(folder) if folder.startswith("file:") else _normalize(folder)
            return path if path in self._uris else ""
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
