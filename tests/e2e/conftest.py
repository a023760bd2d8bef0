"""Editors connected to real server processes; whatever a test starts is gone after it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.editor import Editor, fake_command

Start = Callable[..., Awaitable[Editor]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workspace folder with one file."""
    path = tmp_path / "work"
    path.mkdir()
    (path / "a.py").write_text("x = 1\n", encoding="utf-8")
    return path


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a server (with the fake engine, unless `command` says otherwise)."""
    started: list[Editor] = []

    async def one(command: list[str] | None = None, **env: str) -> Editor:
        editor = await Editor.start(command or fake_command(), tmp_path / f"engine-{len(started)}.log", **env)
        started.append(editor)
        return editor

    yield one
    for editor in started:
        await editor.end()


@pytest.fixture
async def editor(start: Start, folder: Path) -> Editor:
    """An initialized editor with one folder, an engine that is ready, and a document `a.py` holding `foo`."""
    made = await start()
    await made.initialize([folder])
    await made.ready()
    made.open((folder / "a.py").as_uri(), "foo")
    return made


@pytest.fixture
def uri(folder: Path) -> str:
    """The URI of the open document."""
    return (folder / "a.py").as_uri()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Editor]:
    """Like `editor`, but one for a file of tests that leave no trace in it. They run in one loop, the file's."""
    home = tmp_path_factory.mktemp("shared")
    (home / "work").mkdir()
    made = await Editor.start(fake_command(), home / "engine.log", C2L_STATE_DIR=str(home), C2L_CONFIG=str(home / "c"))
    await made.initialize([home / "work"])
    await made.ready()
    yield made
    await made.end()


@pytest.fixture
def place(shared: Editor, request: pytest.FixtureRequest) -> str:
    """The URI of a document of this test's own, in the shared editor's folder, holding `foo`."""
    made = (shared.log.parent / "work" / f"{request.node.name}.py").as_uri()
    shared.open(made, "foo")
    return made


@pytest.fixture
def user_file() -> Path:
    """The user's configuration file of this test."""
    return Path(os.environ["C2L_CONFIG"])
