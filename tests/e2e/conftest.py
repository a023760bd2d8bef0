"""Language clients connected to real server processes. Every process that a test starts has ended after it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.editor import Editor, fake_command

Start = Callable[..., Editor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workspace folder with one file."""
    path = tmp_path / "work"
    path.mkdir()
    (path / "a.py").write_text("x = 1\n", encoding="utf-8")
    return path


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers, with the fake engine unless a command is given."""
    started: list[Editor] = []

    def one(command: list[str] | None = None, **env: str) -> Editor:
        editor = Editor(command or fake_command(), tmp_path / f"engine-{len(started)}.log", **env)
        started.append(editor)
        return editor

    yield one
    for editor in started:
        editor.end()


@pytest.fixture
def editor(start: Start, folder: Path) -> Editor:
    """A client with one folder, an engine that is ready, and the open document `a.py` with the text `foo`."""
    editor = start()
    editor.initialize([folder])
    editor.ready()
    editor.open((folder / "a.py").as_uri(), "foo")
    return editor


@pytest.fixture
def uri(folder: Path) -> str:
    """The URI of the open document."""
    return (folder / "a.py").as_uri()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    """Like `editor`, but one for all tests of a file; they must leave it as it was."""
    home = tmp_path_factory.mktemp("shared")
    (home / "work").mkdir()
    editor = Editor(fake_command(), home / "engine.log", C2L_STATE_DIR=str(home), C2L_CONFIG=str(home / "c"))
    editor.initialize([home / "work"])
    editor.ready()
    yield editor
    editor.end()


@pytest.fixture
def place(shared: Editor, request: pytest.FixtureRequest) -> str:
    """The URI of an open document of this test alone, with the text `foo`, in the folder of `shared`."""
    uri = (shared.engine_log.parent / "work" / f"{request.node.name}.py").as_uri()
    shared.open(uri, "foo")
    return uri


@pytest.fixture
def user_file() -> Path:
    """The user's configuration file in this test."""
    return Path(os.environ["C2L_CONFIG"])
