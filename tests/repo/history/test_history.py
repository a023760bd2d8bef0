"""Reading the history of real repositories, hostile ones included."""

import contextlib
import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from c2l_lsp import config
from c2l_lsp.errors import GitError
from c2l_lsp.repo.filter.files import FileFilter
from c2l_lsp.repo.git import git_directory, git_process
from c2l_lsp.repo.history import git_history
from c2l_lsp.repo.history.git_history import Change, Commit
from tests.support.git_repositories import GitRepo, write


def blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def test_first_parent_commits_are_listed_oldest_first(git_repo: GitRepo):
    first = git_repo.commit({"a.py": "1\n"})
    git_repo.git("checkout", "-q", "-b", "side")
    git_repo.commit({"b.py": "1\n"})
    git_repo.git("checkout", "-q", "main")
    second = git_repo.commit({"c.py": "1\n"})
    git_repo.git("merge", "-q", "--no-ff", "-m", "merge", "side")
    third = git_repo.git("rev-parse", "HEAD")
    commits = git_history.first_parent_commits(git_repo.root, 10)
    assert [commit.sha for commit in commits] == [first, second, third]
    assert [commit.time for commit in commits] == sorted(commit.time for commit in commits)
    assert git_history.first_parent_commits(git_repo.root, 1) == commits[-1:]
    assert git_history.first_parent_commits(git_repo.root, 9, until=second) == commits[:2]
    assert git_history.first_parent_commits(git_repo.root, 0) == []
    assert git_history.head_commit(git_repo.root) == third
    assert isinstance(commits[0], Commit)


def test_changed_files_detects_renames(git_repo: GitRepo):
    body = "".join(f"line {n}\n" for n in range(20))
    a = git_repo.commit({"a.py": body, "gone.py": "g\n", "same.py": "s\n", "mode.py": "m\n", "ü b\n.py": "odd\n"})
    for path in ("a.py", "gone.py"):
        (git_repo.root / path).unlink()
    (git_repo.root / "link.py").symlink_to("same.py")
    (git_repo.root / "mode.py").chmod(0o755)
    b = git_repo.commit({"b.py": body + "more\n", "new.py": "n\n", "ü b\n.py": "odder\n"})
    assert set(git_history.changed_files(git_repo.root, a, b)) == {
        Change("renamed", "a.py", "b.py", blob(body.encode()), blob(body.encode() + b"more\n")),
        Change("deleted", "gone.py", None, blob(b"g\n"), None),
        Change("modified", "mode.py", "mode.py", blob(b"m\n"), blob(b"m\n")),
        Change("added", None, "new.py", None, blob(b"n\n")),
        Change("modified", "ü b\n.py", "ü b\n.py", blob(b"odd\n"), blob(b"odder\n")),
    }
    assert {change.kind for change in git_history.changed_files(git_repo.root, None, a)} == {"added"}
    assert {
        change.path: change.new_blob for change in git_history.changed_files(git_repo.root, None, b)
    } == git_history.tree(git_repo.root, b)


def test_file_replaced_by_a_link_counts_as_deleted(git_repo: GitRepo):
    a = git_repo.commit({"a.py": "1\n", "b.py": "2\n"})
    (git_repo.root / "a.py").unlink()
    (git_repo.root / "a.py").symlink_to("b.py")
    b = git_repo.commit()
    assert git_history.changed_files(git_repo.root, a, b) == [Change("deleted", "a.py", None, blob(b"1\n"), None)]
    assert [change.kind for change in git_history.changed_files(git_repo.root, b, a)] == ["added"]


def test_blobs_are_in_order_with_none_for_missing_and_large_ones(git_repo: GitRepo, monkeypatch: pytest.MonkeyPatch):
    data = [f"{n}\n\n".encode() * n for n in range(150)] + [b"no end"]
    commit = git_repo.commit({f"f{n}.py": content for n, content in enumerate(data)})
    shas = [blob(content) for content in data]
    assert list(git_history.blobs(git_repo.root, shas)) == list(zip(shas, data, strict=True))
    monkeypatch.setattr(git_history, "MAX_BLOB_SIZE", 5)
    asked = [shas[1], "0" * 40, shas[9], commit, shas[1]]
    assert [content for _, content in git_history.blobs(git_repo.root, asked)] == [data[1], None, None, None, data[1]]
    assert list(git_history.blobs(git_repo.root, [])) == []


def test_production_diff_equals_git_without_tests_and_vendored_files(git_repo: GitRepo):
    kept = {"a.py": "a\n", "docs/x.md": "d\n", "y.rst": "y\n", "sp ace.py": "s\n", "ü.py": "u\n", "empty.py": ""}
    left_out = ["tests/b.py", "pkg/test_c.py", "Contest/d.py", "vendor/e.py", "build/f.py", "g.txt", "h.json"]
    a = git_repo.commit(kept | dict.fromkeys(left_out, "x\n"))
    text = git_history.diff_text(git_repo.root, None, a)
    command = ["git", "diff", "--no-color", "-U3", "4b825dc642cb6eb9a060e54bf8d69288fbee4904", a, "--", *kept]
    assert text == subprocess.run(command, cwd=git_repo.root, capture_output=True, check=True).stdout.decode()
    assert text.count("diff --git") == len(kept)
    b = git_repo.commit({"a.py": "a\nmore\n", "tests/b.py": "y\n", "g.txt": "y\n"})
    assert git_history.diff_text(git_repo.root, a, b) == git_repo.git("diff", "-U3", a, b, "--", "a.py") + "\n"
    assert git_history.diff_text(git_repo.root, a, b, suffixes=(".txt",)).count("diff --git a/g.txt") == 1


def test_production_diff_has_renames_and_mode_changes(git_repo: GitRepo):
    a = git_repo.commit({"a.py": "x = 1\n" * 20, "tests/t.py": "y = 1\n" * 20, "run.py": "z\n"})
    git_repo.git("mv", "a.py", "b.py")
    git_repo.git("mv", "tests/t.py", "moved.py")
    (git_repo.root / "run.py").chmod(0o755)
    b = git_repo.commit()
    text = git_history.diff_text(git_repo.root, a, b)
    assert "rename from a.py\nrename to b.py\n" in text
    assert "rename to moved.py\n" in text
    assert "old mode 100644\nnew mode 100755\n" in text


def test_filter_applies_to_old_revisions(git_repo: GitRepo):
    """Covers files that are ignored only now, and removed lines."""
    a = git_repo.commit({"later.py": "later = 1\n", "x.py": "x = 1\n", "kept.py": "kept = 1\n"})
    b = git_repo.commit({"later.py": "later = 2\n", "x.py": "x = 2\n", "kept.py": "kept = 2\n"})
    (git_repo.root / "later.py").rename(git_repo.root / "open.py")
    c = git_repo.commit({".gitignore": "later.py\n"})
    is_ignored = FileFilter(git_repo.root, config.Files()).is_ignored
    for old, new in ((None, a), (a, b), (b, c)):
        text = git_history.diff_text(git_repo.root, old, new, is_ignored=is_ignored)
        assert "later" not in text
        assert ("kept" in text) == (new != c)


def test_content_like_a_diff_header_does_not_split_a_section(git_repo: GitRepo):
    body = "diff --git a/x.py b/x.py\n--- a/tests/x.py\n+++ b/tests/x.py\n@@ -1 +1 @@\n"
    a = git_repo.commit({"a.py": body})
    b = git_repo.commit({"a.py": body.replace("--- ", "-- ")})
    assert git_history.diff_text(git_repo.root, a, b) == git_repo.git("diff", "-U3", a, b) + "\n"


# --- kinds of repositories ----------------------------------------------------------------------------------------


def test_bare_repository_can_be_read(git_repo: GitRepo, tmp_path: Path):
    a = git_repo.commit({"a.py": "1\n", "pkg/b.py": "2\n"})
    git_repo.git("clone", "-q", "--bare", str(git_repo.root), str(tmp_path / "bare.git"))
    bare = tmp_path / "bare.git"
    assert git_history.head_commit(bare) == a
    assert set(git_history.tree(bare, a)) == {"a.py", "pkg/b.py"}
    assert len(git_history.changed_files(bare, None, a)) == 2
    assert git_history.diff_text(bare, None, a).count("diff --git") == 2
    assert list(git_history.blobs(bare, [blob(b"1\n")])) == [(blob(b"1\n"), b"1\n")]


def test_linked_worktree_and_submodule_are_separate_roots(git_repo: GitRepo, tmp_path: Path):
    inner = GitRepo(tmp_path / "inner")
    inner_head = inner.commit({"i.py": "i\n"})
    git_repo.commit({"a.py": "1\n"})
    git_repo.git("submodule", "add", "-q", str(inner.root), "sub")
    outer_head = git_repo.commit()
    git_repo.git("worktree", "add", "-q", "-b", "second", str(tmp_path / "linked"))
    write(tmp_path / "linked", {"only.py": "x\n"})
    assert git_history.head_commit(tmp_path / "linked") == outer_head
    assert git_history.head_commit(git_repo.root / "sub") == inner_head
    assert set(git_history.tree(git_repo.root, "HEAD")) == {"a.py", ".gitmodules"}
    place = git_directory.find(tmp_path / "linked")
    assert place is not None
    assert (place.top, place.common) == (tmp_path / "linked", git_repo.root / ".git")
    assert place.dir == git_repo.root / ".git/worktrees/linked"
    assert list(FileFilter(git_repo.root, config.Files()).walk()) == ["a.py", "sub/i.py"], "a part of the folder"
    assert list(FileFilter(git_repo.root / "sub", config.Files()).walk()) == ["i.py"]
    assert list(FileFilter(tmp_path / "linked", config.Files()).walk()) == ["a.py", "only.py"]


def test_subfolder_of_a_repository_gets_relative_paths(git_repo: GitRepo):
    a = git_repo.commit({"a.py": "1\n", "sub/b.py": "2\n", "sub/deep/c.py": "3\n"})
    sub = git_repo.root / "sub"
    assert set(git_history.tree(sub, a)) == {"b.py", "deep/c.py"}
    assert {change.path for change in git_history.changed_files(sub, None, a)} == {"b.py", "deep/c.py"}
    assert "diff --git a/b.py b/b.py" in git_history.diff_text(sub, None, a)
    assert "a.py" not in git_history.diff_text(sub, None, a)


def test_sha256_repository_can_be_read(tmp_path: Path):
    repo = GitRepo(tmp_path / "repo", "--object-format=sha256")
    a = repo.commit({"a.py": "1\n"})
    assert len(a) == 64
    assert [change.path for change in git_history.changed_files(repo.root, None, "HEAD")] == ["a.py"]
    assert git_history.diff_text(repo.root, None, "HEAD").startswith("diff --git a/a.py")


# --- errors -------------------------------------------------------------------------------------------------------


def test_missing_repository_and_missing_commit_raise(tmp_path: Path, git_repo: GitRepo):
    (tmp_path / "plain").mkdir()
    assert git_history.head_commit(tmp_path / "plain") is None
    with pytest.raises(GitError, match="is not a git repository; its history cannot be used"):
        git_history.first_parent_commits(tmp_path / "plain", 5)
    assert git_history.head_commit(git_repo.root) is None
    with pytest.raises(GitError, match="no such commit; it may have no commits yet"):
        git_history.first_parent_commits(git_repo.root, 5)
    git_repo.commit({"a.py": "1\n"})
    with pytest.raises(GitError, match="no such commit"):
        git_history.changed_files(git_repo.root, None, "0" * 40)


@pytest.mark.parametrize("name", ["--output=/tmp/x", "-h", "", "a b", "a\nb", "HEAD;ls"])
def test_revision_that_looks_like_an_option_is_rejected(git_repo: GitRepo, name: str):
    git_repo.commit({"a.py": "1\n"})
    with pytest.raises(GitError, match="is not a git revision"):
        git_history.first_parent_commits(git_repo.root, 5, until=name)
    with pytest.raises(GitError, match="is not a git revision"):
        git_history.tree(git_repo.root, name)


def test_missing_git_is_explained(git_repo: GitRepo, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    git_process._executable.cache_clear()
    try:
        with pytest.raises(GitError, match="git was not found on PATH; install it"):
            git_history.head_commit(git_repo.root)
        assert FileFilter(git_repo.root, config.Files()).includes("a.py"), "the filter works without git"
    finally:
        git_process._executable.cache_clear()


def test_repository_owned_by_another_user_is_explained(git_repo: GitRepo, monkeypatch: pytest.MonkeyPatch):
    git_repo.commit({"a.py": "1\n"})
    monkeypatch.setattr(
        git_process, "_ENVIRONMENT", git_process._ENVIRONMENT | {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    )
    with pytest.raises(GitError, match=r"another user owns it; run `git config --global --add safe\.dir"):
        git_history.head_commit(git_repo.root)


def test_git_that_hangs_is_killed(git_repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, {"bin/git": "#!/bin/sh\nexec sleep 60\n"})
    (tmp_path / "bin/git").chmod(0o755)
    monkeypatch.setattr(git_process, "_executable", lambda: str(tmp_path / "bin/git"))
    monkeypatch.setattr(git_process, "TIMEOUT_S", 0.2)
    with pytest.raises(GitError, match="took more than"):
        git_process.run(git_repo.root, "log")
    with pytest.raises(GitError, match="took more than"):
        list(git_process.lines(git_repo.root, "log"))


def test_missing_folder_raises(tmp_path: Path):
    with pytest.raises(GitError, match="cannot be started"):
        git_history.head_commit(tmp_path / "gone")


# --- hostile repositories -----------------------------------------------------------------------------------------


def test_programs_configured_by_a_repository_are_not_run(
    git_repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    marker = tmp_path / "executed"
    script = tmp_path / "evil"
    script.write_text(f'#!/bin/sh\necho "$0 $*" >> {marker}\ncat\n')
    script.chmod(0o755)
    write(git_repo.root, {".gitattributes": "*.py diff=evil filter=evil\n"})
    a = git_repo.commit({"a.py": "1\n"})
    b = git_repo.commit({"a.py": "2\n"})
    for hook in ("post-index-change", "post-checkout", "reference-transaction", "fsmonitor-watchman"):
        (git_repo.root / ".git/hooks").mkdir(exist_ok=True)
        (git_repo.root / ".git/hooks" / hook).write_text(script.read_text())
        (git_repo.root / ".git/hooks" / hook).chmod(0o755)
    settings = ["core.fsmonitor", "diff.external", "diff.evil.textconv", "diff.evil.command", "filter.evil.clean"]
    settings += ["filter.evil.smudge", "filter.evil.process", "core.pager", "core.sshCommand", "gpg.program"]
    settings += ["core.askPass", "credential.helper", "core.editor", "pager.diff", "pager.log", "core.gitProxy"]
    for name in settings:
        git_repo.git("config", name, str(script))
    git_repo.git("config", "core.hooksPath", str(git_repo.root / ".git/hooks"))
    git_repo.git("config", "log.showSignature", "true")
    marker.unlink(missing_ok=True)
    for name in ("GIT_EXTERNAL_DIFF", "GIT_PAGER", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_EDITOR"):
        monkeypatch.setenv(name, str(script))

    assert git_history.head_commit(git_repo.root) == b
    assert len(git_history.first_parent_commits(git_repo.root, 5)) == 2
    assert [change.kind for change in git_history.changed_files(git_repo.root, a, b)] == ["modified"]
    assert git_history.diff_text(git_repo.root, a, b).endswith("-1\n+2\n")
    assert set(git_history.tree(git_repo.root, b)) == {"a.py", ".gitattributes"}
    assert [content for _, content in git_history.blobs(git_repo.root, git_history.tree(git_repo.root, b).values())]
    FileFilter(git_repo.root, config.Files())
    assert not marker.exists(), marker.read_text()

    subprocess.run(["git", "diff", a, b], cwd=git_repo.root, capture_output=True, check=False)
    assert marker.exists(), "the trap works: a plain git runs it"


def test_missing_objects_are_not_fetched(git_repo: GitRepo, tmp_path: Path):
    """A partial clone lacks blobs, which a plain git would fetch."""
    sha = git_repo.commit({"a.py": "1\n"})
    git_repo.git("config", "uploadpack.allowFilter", "true")
    partial = tmp_path / "partial"
    git_repo.git("clone", "-q", "--no-checkout", "--filter=blob:none", f"file://{git_repo.root}", str(partial))
    wanted = git_history.tree(partial, sha)["a.py"]
    with contextlib.suppress(GitError):  # the blob is missing or git fails, depending on its version
        assert list(git_history.blobs(partial, [wanted])) == [(wanted, None)]
    with contextlib.suppress(GitError):
        assert git_history.diff_text(partial, None, sha) == ""
    command = ["git", "cat-file", "-e", wanted]
    offline = os.environ | {"GIT_ALLOW_PROTOCOL": "none"}
    assert subprocess.run(command, cwd=partial, env=offline, capture_output=True, check=False).returncode != 0
    subprocess.run(command, cwd=partial, check=True)  # a plain git fetches it


def test_git_variables_of_the_caller_are_ignored(git_repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The server may be started from within a hook."""
    sha = git_repo.commit({"a.py": "1\n"})
    other = GitRepo(tmp_path / "other")
    other.commit({"b.py": "1\n"})
    monkeypatch.setenv("GIT_DIR", str(other.root / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere")
    assert git_history.head_commit(git_repo.root) == sha


def test_user_configuration_does_not_change_the_diff(
    git_repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    a = git_repo.commit({"a.py": "".join(f"{n}\n" for n in range(30)), "ü.py": "1\n"})
    b = git_repo.commit({"a.py": "".join(f"{n}\n" for n in range(30) if n % 11), "ü.py": "2\n"})
    plain = git_history.diff_text(git_repo.root, a, b)
    likes = {"noprefix": "true", "mnemonicPrefix": "true", "context": "7", "algorithm": "patience", "renames": "false"}
    write(tmp_path, {"order": "ü.py\n"})
    likes |= {
        "orderFile": str(tmp_path / "order"),
        "interHunkContext": "9",
        "indentHeuristic": "false",
        "colorMoved": "zebra",
        "wordRegex": ".",
    }
    lines = [f"{key} = {value}" for key, value in likes.items()]
    more = "[color]\nui = always\n[core]\nquotePath = false\nabbrev = 20\npager = less\n"
    write(tmp_path, {"likes": "[diff]\n" + "\n".join(lines) + "\n" + more})
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "likes"))
    assert git_history.diff_text(git_repo.root, a, b) == plain


def test_reading_does_not_write_to_the_repository(git_repo: GitRepo):
    sha = git_repo.commit({"a.py": "1\n"})
    (git_repo.root / "a.py").touch()

    def held() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in git_repo.root.rglob("*")}

    before = held()
    git_history.head_commit(git_repo.root)
    git_history.changed_files(git_repo.root, None, sha)
    git_history.diff_text(git_repo.root, None, sha)
    list(git_history.blobs(git_repo.root, git_history.tree(git_repo.root, sha).values()))
    assert held() == before
