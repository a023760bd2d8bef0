"""Which files git tracks, from the index as it is now."""

import random
import time
from pathlib import Path

import pytest

from c2l_lsp.repo.git import git_directory, git_process, tracked_files
from c2l_lsp.repo.git.tracked_files import TrackedFiles
from tests.support.git_repositories import GitRepo, write


def of(root: Path) -> TrackedFiles:
    git_dir = git_directory.at(root)
    assert git_dir is not None
    found = tracked_files.of(git_dir)
    assert found.wait(20)
    return found


def test_every_name_is_found_and_no_other(git_repo: GitRepo):
    rng = random.Random(5)
    parts = ["a", "b", "ab", "a b", "a.b", "a-b", "é", "a0", "A"]
    paths = {"/".join(rng.choices(parts, k=rng.randint(1, 4))) + ".py" for _ in range(300)}
    git_repo.commit(dict.fromkeys(paths, "x\n"))
    found = of(git_repo.root)
    directories = {path.rpartition("/")[0] for path in paths if "/" in path}
    directories |= {outer for path in directories for outer in Path(path).parents if str(outer) != "."} and {
        str(outer) for path in directories for outer in [Path(path), *Path(path).parents] if str(outer) != "."
    }
    for path in paths:
        assert found.contains(path.encode())
        assert not found.contains(path.encode() + b"c")
        assert not found.contains(path.encode()[:-1])
        assert not found.contains_below(path.encode())
    for directory in directories:
        assert found.contains_below(directory.encode())
        assert not found.contains(directory.encode())
    for other in ("", "zzz", "a/zzz", "0", "\uffff"):
        assert not found.contains(other.encode())
        assert not found.contains_below(other.encode())


def test_names_follow_the_index(git_repo: GitRepo):
    write(git_repo.root, {"a.py": "x\n"})
    found = of(git_repo.root)
    assert (found.contains(b"a.py"), found.version) == (False, 1)
    git_repo.git("add", "a.py")
    found.refresh()
    assert (found.contains(b"a.py"), found.version) == (True, 2)
    git_repo.git("update-index", "--force-write-index")
    found.refresh()
    assert found.version == 2, "the index was written, and no name changed"
    git_repo.git("rm", "-q", "--cached", "a.py")
    assert of(git_repo.root) is found, "who asks anew gets the index as it is"
    assert (found.contains(b"a.py"), found.version) == (False, 3)


@pytest.mark.parametrize("feature", ["index.version=4", "core.splitIndex=true", "index.sparse=true"])
def test_any_form_of_index_is_read(git_repo: GitRepo, feature: str):
    key, value = feature.split("=")
    git_repo.git("config", key, value)
    git_repo.commit({"pkg/deep/a.py": "x\n", "pkg/deep/ab.py": "x\n"})
    found = of(git_repo.root)
    assert found.contains(b"pkg/deep/ab.py")
    assert found.contains_below(b"pkg")


def test_index_that_git_refuses_tracks_nothing(git_repo: GitRepo):
    git_repo.commit({"a.py": "x\n"})
    (git_repo.root / ".git/index").write_bytes(b"DIRC" + b"\xff" * 100)
    assert not of(git_repo.root).contains(b"a.py")


def test_git_that_does_not_end_is_stopped(git_repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    git_repo.commit({"a.py": "x\n"})
    write(tmp_path, {"bin/git": "#!/bin/sh\nexec sleep 60\n"})
    (tmp_path / "bin/git").chmod(0o755)
    monkeypatch.setattr(tracked_files, "LIMIT_S", 0.2)
    monkeypatch.setattr(git_process, "_executable", lambda: str(tmp_path / "bin/git"))
    began = time.monotonic()
    assert not of(git_repo.root).contains(b"a.py")
    assert time.monotonic() - began < 15
