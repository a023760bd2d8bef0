"""Temporary git repositories, isolated from the git configuration of the machine."""

import os
from pathlib import Path

import pytest

from tests.support.git_repositories import GitRepo


@pytest.fixture(autouse=True)
def _plain_git(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use no system configuration, and a user configuration that only allows local clones."""
    home = tmp_path_factory.mktemp("home")
    (home / "gitconfig").write_text('[protocol "file"]\nallow = always\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))


@pytest.fixture
def git_repo(tmp_path: Path) -> GitRepo:
    return GitRepo(tmp_path / "repo")
