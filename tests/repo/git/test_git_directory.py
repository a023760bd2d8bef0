"""Finding the git directory. A hostile `.git` is no repository, and raises nothing."""

import os
from pathlib import Path

import pytest

from c2l_lsp import config
from c2l_lsp.repo.filter.files import FileFilter
from c2l_lsp.repo.git import git_directory
from c2l_lsp.repo.git.git_directory import GitDir, git_busy
from tests.support.git_repositories import GitRepo, write

HOSTILE = {
    "NUL": b"gitdir: a\0b\n",
    "loop of links": b"gitdir: loop\n",
    "below a loop of links": b"gitdir: loop/inner\n",
    "name too long": b"gitdir: " + b"x" * 4000,
    "many levels": b"gitdir: " + b"x/" * 2000,
    "nothing": b"",
    "no path": b"gitdir:",
    "itself": b"gitdir: .git\n",
    "no text": b"gitdir: \xff\xfe\n",
    "device": b"gitdir: /dev/zero\n",
    "no UTF-8 surrogate": b"gitdir: \xed\xa0\x80\n",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_malformed_git_file_is_no_repository(tmp_path: Path, content: bytes):
    """Regression: a NUL or a loop of links raised at every completion."""
    (tmp_path / "loop").symlink_to("loop")
    write(tmp_path, {".git": content, "a.py": "x\n"})
    assert git_directory.at(tmp_path) is None
    assert not git_busy(tmp_path)
    assert not FileFilter(tmp_path, config.Files()).is_ignored("a.py")


@pytest.mark.parametrize("content", [b"a\0b\n", b"loop\n", b"x" * 4000], ids=["NUL", "loop", "name too long"])
def test_malformed_commondir_raises_nothing(tmp_path: Path, content: bytes):
    """Where the exclude file cannot be reached, its rules are unknown, and nothing is read."""
    write(tmp_path, {".git/HEAD": "ref: refs/heads/main\n", ".git/commondir": content})
    (tmp_path / ".git/loop").symlink_to("loop")
    no_repository = git_directory.at(tmp_path) is None
    assert FileFilter(tmp_path, config.Files()).is_ignored("a.py") != no_repository
    assert not git_busy(tmp_path)


@pytest.mark.parametrize("kind", ["loop", "link to nothing", "FIFO"])
def test_irregular_git_entry_is_no_repository(tmp_path: Path, kind: str):
    if kind == "FIFO":
        os.mkfifo(tmp_path / ".git")
    else:
        (tmp_path / ".git").symlink_to(".git" if kind == "loop" else "nowhere")
    assert git_directory.at(tmp_path) is None
    assert not git_busy(tmp_path)


def test_repositories_are_found(git_repo: GitRepo, tmp_path: Path):
    git_repo.commit({"a.py": "a\n"})
    root, top = git_repo.root, git_repo.root / ".git"
    git_repo.git("worktree", "add", "-q", str(tmp_path / "linked"))
    assert git_directory.at(root) == GitDir(top, top, root)
    assert git_directory.at(tmp_path / "linked") == GitDir(top / "worktrees/linked", top, tmp_path / "linked")
    assert git_directory.find(root / "sub") == GitDir(top, top, root)
    assert git_directory.at(root / "sub") is None
