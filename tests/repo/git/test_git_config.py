"""git's configuration, without a process of git where the repository's own file cannot decide."""

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from c2l_lsp.errors import GitError
from c2l_lsp.repo.git import git_config, git_directory, git_process
from c2l_lsp.repo.git.git_config import IgnoreConfig
from tests.support.git_repositories import GitRepo

LINES = [
    "[core]", "[Core]", '[branch "main"]', "[core", "core]", "[]", "[a.b]", '[x "a\\"b"]', "[core] bare = false",
    "excludesFile = /x", "ignoreCase = true", "ignorecase", "IGNORECASE=1", "bare = false",
    "repositoryformatversion = 0", "repositoryformatversion = 9",
    "url = https://example.org/a#b", 'name = "quoted', "name = a \\", "= value", "1a = b",
    "a_b = c", "# comment", "; comment", "", "\tindented = yes", "a", "a b", "[include]", "path = other", "é = x",
    "[extensions]", "worktreeConfig = true", "[core]ignoreCase = true",
]  # fmt: skip


def read(root: Path) -> IgnoreConfig:
    git_dir = git_directory.at(root)
    assert git_dir is not None
    return git_config.read(git_dir)


def by_git(root: Path) -> tuple[str | None, str | None] | None:
    """The two values as git itself gives them; None if git refuses."""
    values = []
    for key, kind in (("core.excludesFile", "path"), ("core.ignoreCase", "bool")):
        done = subprocess.run(
            ["git", "config", f"--type={kind}", "--get", key], cwd=root, capture_output=True, text=True, check=False
        )
        if done.returncode not in (0, 1):
            return None
        values.append(done.stdout.strip() if done.returncode == 0 else None)
    return values[0], values[1]


def test_random_configurations_decide_as_in_git(git_repo: GitRepo):
    """For 400 random files, most of them odd: the values of git, or none where git refuses the file."""
    rng, refused, decided = random.Random(11), 0, 0
    for _ in range(400):
        text = "\n".join(rng.choices(LINES, k=rng.randint(0, 3))) + "\n"
        (git_repo.root / ".git/config").write_text("[core]\n" * rng.randint(0, 1) + text)
        expected = by_git(git_repo.root)
        if expected is None:
            refused += 1
            with pytest.raises(GitError):
                read(git_repo.root)
            continue
        found = read(git_repo.root)
        default = git_config._default()
        excludes = default if expected[0] is None else git_repo.root / expected[0] if expected[0] else None
        assert (found.excludes_file, found.ignore_case) == (
            excludes,
            None if expected[1] is None else expected[1] == "true",
        ), text
        decided += expected != (None, None)
    assert refused > 20
    assert decided > 15


def test_plain_repository_needs_no_process(git_repo: GitRepo, monkeypatch: pytest.MonkeyPatch):
    """A folder may hold hundreds of repositories."""
    git_repo.git("config", "user.name", "A Name")
    git_repo.git("config", "remote.origin.url", "https://example.org/a.git")
    read(git_repo.root)
    started: list[object] = []
    real = git_process._complete
    monkeypatch.setattr(git_process, "_complete", lambda *args: started.append(args) or real(*args))
    read(git_repo.root)
    assert started == []
    git_repo.git("config", "core.excludesFile", "/x")
    assert read(git_repo.root).excludes_file == Path("/x")
    assert started


def test_change_of_the_users_configuration_is_seen(git_repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    user, inner = tmp_path / "user", tmp_path / "inner"
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(user))
    assert read(git_repo.root).excludes_file == git_config._default()
    user.write_text("[include]\npath = inner\n")
    inner.write_text("[core]\nexcludesFile = /one\n")
    assert read(git_repo.root).excludes_file == Path("/one")
    inner.write_text("[core]\nexcludesFile = /other\n")
    found = read(git_repo.root)
    assert found.excludes_file == Path("/other")
    assert {user, inner, git_repo.root / ".git/config"} <= set(found.sources)


def test_irregular_configuration_does_not_block(git_repo: GitRepo):
    (git_repo.root / ".git/config").unlink()
    os.mkfifo(git_repo.root / ".git/config")
    writer = os.open(git_repo.root / ".git/config", os.O_RDWR | os.O_NONBLOCK)  # git itself would wait for one
    try:
        began = time.monotonic()
        assert git_config._may_decide(git_repo.root / ".git/config")
        assert time.monotonic() - began < 1
    finally:
        os.close(writer)
