"""git without the machine's configuration, and a mirror folder of temporary repositories."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.repopeft_repositories import Repo


@pytest.fixture(autouse=True)
def _plain_git(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / "gitconfig").write_text("")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / "gitconfig"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return tmp_path / "mirror"


@pytest.fixture
def make_repo(mirror: Path) -> Callable[..., Repo]:
    return lambda name="own/repo", *init: Repo(mirror, name, *init)
