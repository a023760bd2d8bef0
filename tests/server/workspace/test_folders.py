"""Conversion of URIs to paths, and the folder of a document."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from c2l_lsp.server.workspace.folders import Folders, WorkspacePath, to_path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="paths below are POSIX")


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///a/b.py", "/a/b.py"),
        ("file://localhost/a", "/a"),
        ("file:///a%20b/%C3%A9.py", "/a b/é.py"),
        ("file:///a/../b/./c", "/b/c"),
        ("file:///a/%2e%2e/b", "/b"),
        ("FILE:///a", "/a"),
        ("file://host/a", None),
        ("file:///a%00b", None),
        ("untitled:Untitled-1", None),
        ("git:/a/b.py?x", None),
        ("https://example.org/a", None),
        ("", None),
        ("file:", None),
        ("file://[", None),
    ],
)
def test_uri_to_path(uri: str, path: str | None) -> None:
    assert to_path(uri) == path


def test_document_belongs_to_its_innermost_folder() -> None:
    folders = Folders()
    for path in ("/w", "/w/inner", "/other"):
        assert folders.add(Path(path).as_uri()) == path
    assert folders.resolve("file:///w/inner/x/a.py") == WorkspacePath("/w/inner", "x/a.py")
    assert folders.resolve("file:///w/innermost/a.py") == WorkspacePath("/w", "innermost/a.py")
    assert folders.resolve("file:///w/..b/a.py") == WorkspacePath("/w", "..b/a.py")
    assert folders.resolve("file:///elsewhere/a.py") == WorkspacePath()
    assert folders.resolve("file:///w/../etc/passwd") == WorkspacePath()
    assert folders.resolve("untitled:Untitled-1") == WorkspacePath()
    assert folders.remove("file:///w/inner") == "/w/inner"
    assert folders.remove("file:///w/inner") is None
    assert folders.resolve("file:///w/inner/x/a.py") == WorkspacePath("/w", "inner/x/a.py")


def test_find_folder_by_uri_path_or_document() -> None:
    folders = Folders()
    assert folders.find(None, None) == ""
    folders.add("file:///w")
    folders.add("file:///v")
    assert folders.find("file:///v", None) == "/v"
    assert folders.find("/v/", None) == "/v"
    assert folders.find(None, "file:///v/a.py") == "/v"
    assert folders.find(None, "file:///x/a.py") == "/w"
    assert folders.find("/nowhere", None) == ""
