"""Fixtures: the packaged extension, and a VS Code with it on the fake engine or on the real server and model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.editors.vscode import code_server
from tests.editors.vscode.code_server import HERE, ROOT
from tests.editors.vscode.workbench import PATIENT, Workbench

MODEL = ROOT / "c2l_lsp" / "assets" / "c2l-nano"
TEXT = '''"""Shapes and their sizes."""


def area(width, height):
    """Area of a rectangle."""
    return width * height


def circumference(width, height):
    """Length of a rectangle's border."""
    return 2 * (width + height)


def volume(width, height, depth):
    """Volume of a box."""
    return area(width, height) * depth


'''
FILES = (
    "accept.py",
    "cycle.py",
    "partial.py",
    "through.py",
    "toggle.py",
    "settings.py",
    "killed.py",
    "other.py",
    "changes.py",
    "missing.py",
    "follow_line.py",
    "follow_ghost.py",
    "follow_all.py",
    "shelves.ipynb",
    "shelves_again.ipynb",
)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker for runs whose root is this folder."""
    config.addinivalue_line("markers", "editors: needs a real editor (make test-editors)")


@pytest.fixture(scope="session")
def vsix() -> Path:
    return code_server.package()


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory, vsix: Path) -> Iterator[Workbench]:
    """VS Code on the fake engine, whose completions are determined by the text (tests/support/fake_engine.py)."""
    yield from _opened(tmp_path_factory.mktemp("fake"), vsix, [sys.executable, str(HERE / "fake_server.py")])


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, vsix: Path) -> Iterator[Workbench]:
    """VS Code on the real server and the shipped model."""
    if not MODEL.is_dir():
        pytest.skip("the shipped model is not in this checkout")
    command = [sys.executable, "-m", "c2l_lsp", "serve", "--stdio"]
    yield from _opened(tmp_path_factory.mktemp("real"), vsix, command, PATIENT)


def _opened(
    work: Path, vsix: Path, server: list[str], settings: dict[str, object] | None = None
) -> Iterator[Workbench]:
    (work / "project").mkdir()
    for name in FILES:
        (work / "project" / name).write_text(TEXT)
    vscode = Workbench(work, vsix, server, settings)
    try:
        vscode.begin("other.py")
        vscode.generation(0)
        yield vscode
    finally:
        vscode.close()
