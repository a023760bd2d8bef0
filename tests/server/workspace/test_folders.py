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


@pytest.fixture
def linked(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with `src/a.py`, and a link to it."""
    real, link = tmp_path / "real", tmp_path / "link"
    (real / "src").mkdir(parents=True)
    (real / "src/a.py").write_text("x\n")
    link.symlink_to(real)
    return real, link


@pytest.mark.parametrize(("opened", "document"), [("link", "real"), ("real", "link"), ("link", "link")])
def test_folder_and_document_may_be_opened_by_different_paths(
    tmp_path: Path, linked: tuple[Path, Path], opened: str, document: str
) -> None:
    folders = Folders()
    folders.add((tmp_path / opened).as_uri())
    assert folders.resolve((tmp_path / document / "src/a.py").as_uri()) == WorkspacePath(
        str(tmp_path / opened), "src/a.py"
    )
    assert folders.resolve((tmp_path / document / "new.py").as_uri()).path == "new.py", "a file that is not saved yet"
    assert folders.find(str(tmp_path / document), None) == str(tmp_path / opened)
    assert folders.find((tmp_path / document).as_uri(), None) == str(tmp_path / opened)


def test_link_between_parts_of_a_folder_is_the_file_that_it_leads_to(linked: tuple[Path, Path]) -> None:
    """Otherwise a file that the ignore rules exclude would be permitted by the name of the link."""
    real, _ = linked
    (real / "alias").symlink_to("src")
    folders = Folders()
    folders.add(real.as_uri())
    assert folders.resolve((real / "alias/a.py").as_uri()) == WorkspacePath(str(real), "src/a.py")


def test_link_out_of_a_folder_keeps_its_path(tmp_path: Path, linked: tuple[Path, Path]) -> None:
    """The filter refuses what passes through a link; the place that it leads to belongs to no folder."""
    real, _ = linked
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/b.py").write_text("x\n")
    (real / "out").symlink_to(tmp_path / "outside")
    (real / "loop").symlink_to("loop")
    folders = Folders()
    folders.add(real.as_uri())
    assert folders.resolve((real / "out/b.py").as_uri()) == WorkspacePath(str(real), "out/b.py")
    assert folders.resolve((tmp_path / "outside/b.py").as_uri()) == WorkspacePath()
    assert folders.resolve((real / "loop/b.py").as_uri()) == WorkspacePath(str(real), "loop/b.py")


def test_document_belongs_to_the_folder_by_whose_path_it_was_opened(linked: tuple[Path, Path]) -> None:
    real, link = linked
    folders = Folders()
    for path in (real, link):
        folders.add(path.as_uri())
    for path in (real, link):
        assert folders.resolve((path / "src/a.py").as_uri()) == WorkspacePath(str(path), "src/a.py")


def test_links_are_resolved_once_until_the_document_is_opened_again(
    linked: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, link = linked
    folders, uri = Folders(), (link / "src/a.py").as_uri()
    folders.add(real.as_uri())
    calls, resolve = [], os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path: calls.append(path) or resolve(path))
    for _ in range(5):
        assert folders.resolve(uri).folder == str(real)
    assert len(calls) == 1, "a keystroke must not access the disk"
    link.unlink()
    folders.forget(uri)
    assert folders.resolve(uri) == WorkspacePath()
