"""Tracked files, repositories below the root, and changes of git's rules while a filter is in use."""

import random
import subprocess
import time
from pathlib import Path

import pytest

from c2l_lsp import config
from c2l_lsp.repo.filter import repositories as repository_rules
from c2l_lsp.repo.filter.files import FileFilter, FileText
from c2l_lsp.repo.git import git_directory, tracked_files
from tests.support.git_repositories import GitRepo, write


def included_files(root: Path, **settings: object) -> list[str]:
    return list(FileFilter(root, config.Files(**settings)).walk())


def listed_by_git(root: Path) -> list[str]:
    """What git does not ignore in one repository: the files that it tracks, and the others that no rule ignores."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "."],
        cwd=root, capture_output=True, check=True,
    )  # fmt: skip
    return sorted(path for path in done.stdout.decode().split("\0") if path.endswith(".py"))


# --- tracked files ---------------------------------------------------------------------------------------------------


def test_tracked_file_is_not_ignored(git_repo: GitRepo):
    """Regression: a pattern that matches a tracked file excluded it."""
    write(git_repo.root, {".gitignore": "lib/\n*_gen.py\n", "lib/a.py": "x\n", "lib/b.py": "x\n", "lib/in/c.py": "x\n"})
    write(git_repo.root, {"x_gen.py": "x\n", "y_gen.py": "x\n", "plain.py": "x\n"})
    git_repo.git("add", "-f", "lib/a.py", "lib/in/c.py", "x_gen.py")
    files = FileFilter(git_repo.root, config.Files())
    assert list(files.walk()) == listed_by_git(git_repo.root) == ["lib/a.py", "lib/in/c.py", "plain.py", "x_gen.py"]
    assert isinstance(files.try_read("lib/a.py"), FileText)
    assert files.is_ignored("lib/b.py")
    assert files.includes_directory("lib/in")


def test_tracked_file_is_still_subject_to_our_own_rules(git_repo: GitRepo):
    paths = ["secrets.py", "node_modules/a.py", "own.py", "set.py", "lib/own.py", "kept.py"]
    write(git_repo.root, dict.fromkeys(paths, "x\n"))
    write(git_repo.root, {".gitignore": "*.py\n", ".c2lignore": "own.py\n", "env/pyvenv.cfg": "", "env/a.py": "x\n"})
    git_repo.git("add", "-f", ".")
    assert included_files(git_repo.root, exclude=["set.py"]) == ["kept.py"]


def test_root_inside_an_ignored_folder_has_its_tracked_files(git_repo: GitRepo):
    write(git_repo.root, {".gitignore": "data/\n", "data/deep/a.py": "x\n", "data/deep/b.py": "x\n"})
    git_repo.git("add", "-f", "data/deep/a.py")
    assert included_files(git_repo.root / "data/deep") == ["a.py"]


def test_tracked_files_count_only_with_respect_for_gitignore(git_repo: GitRepo):
    write(git_repo.root, {".gitignore": "a.py\n", "a.py": "x\n", "b.py": "x\n"})
    assert included_files(git_repo.root, respect_gitignore=False) == ["a.py", "b.py"]


_NAMES = ["a", "b", "ab", "x.py", "y.py"]
_PIECES = ["a", "b", "ab", "x.py", "*.py", "*", "**", "a*", "?", "[ab]", "x*"]


def _pattern(rng: random.Random) -> str:
    body = "/".join(rng.choice(_PIECES) for _ in range(rng.randint(1, 2)))
    return rng.choice(["", "", "!"]) + rng.choice(["", "/"]) + body + rng.choice(["", "", "/"])


def test_random_rules_and_tracked_files_give_the_same_files_as_git(tmp_path: Path):
    """For 20 random repositories with another one inside, of whose files some are tracked."""
    rng, tracked_and_ignored = random.Random(3), 0
    for number in range(20):
        outer, inner = GitRepo(tmp_path / f"r{number}"), GitRepo(tmp_path / f"r{number}" / "b" / "inner")
        for repository in (outer, inner):
            folders = ["/".join(rng.choices(_NAMES[:3], k=rng.randint(0, 3))) for _ in range(20)]
            paths = [f"{folder}/{rng.choice(_NAMES[3:])}".lstrip("/") for folder in folders]
            write(repository.root, dict.fromkeys(paths, "x\n"))
            for folder in ("", "a/"):
                rules = "\n".join(_pattern(rng) for _ in range(rng.randint(1, 3))) + "\n"
                write(repository.root, {f"{folder}.gitignore": rules})
            write(repository.root, {".git/info/exclude": _pattern(rng) + "\n"})
            repository.git("add", "-f", *rng.sample(sorted(set(paths)), 2))
            everything = ["git", "ls-files", "-ci", "--exclude-standard"]
            tracked_and_ignored += bool(subprocess.run(everything, cwd=repository.root, capture_output=True).stdout)
        within = subprocess.run(["git", "check-ignore", "-q", "b/inner"], cwd=outer.root, check=False).returncode == 0
        own = [path for path in listed_by_git(outer.root) if not path.startswith("b/inner/")]
        nested = [] if within else [f"b/inner/{path}" for path in listed_by_git(inner.root)]
        rules = [path.read_text() for path in sorted(outer.root.rglob(".gitignore"))]
        assert included_files(outer.root) == sorted(own + nested), (number, rules)
    assert tracked_and_ignored >= 10


def test_walk_waits_for_git_in_steps(git_repo: GitRepo, monkeypatch: pytest.MonkeyPatch):
    write(git_repo.root, {".gitignore": "*.py\n", "a.py": "x\n"})
    git_repo.git("add", "-f", "a.py")
    real = tracked_files.TrackedFiles._list
    monkeypatch.setattr(tracked_files.TrackedFiles, "_list", lambda self: time.sleep(0.5) or real(self))
    longest, found, last = 0.0, [], time.monotonic()
    for path in FileFilter(git_repo.root, config.Files()).walk_in_steps():
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
        found += [path] if path else []
    assert found == ["a.py"]
    assert longest < 0.4, "a completion may run between two steps"


# --- repositories below the root -------------------------------------------------------------------------------------


@pytest.fixture
def repositories(tmp_path: Path) -> Path:
    """A repository with a submodule, a clone, and a linked worktree inside."""
    library = GitRepo(tmp_path / "library")
    library.commit({".gitignore": "own_*.py\n", "lib/a.py": "x\n", "outer_b.py": "x\n"})
    outer = GitRepo(tmp_path / "outer")
    outer.commit({".gitignore": "outer_*.py\n", "app/main.py": "x\n"})
    outer.git("submodule", "add", "-q", str(library.root), "module")
    outer.git("commit", "-q", "-m", "module")
    outer.git("clone", "-q", str(library.root), "clone")
    outer.git("worktree", "add", "-q", "linked")
    for nested in ("module", "clone", "linked"):
        write(outer.root, {f"{nested}/own_c.py": "x\n", f"{nested}/new.py": "x\n"})
    return outer.root


def test_files_of_inner_repositories_follow_their_own_rules(repositories: Path):
    """Regression: everything below an inner `.git` was excluded."""
    inner = ["lib/a.py", "new.py", "outer_b.py"]
    write(repositories, {"clone/.git/info/exclude": "new.py\n"})
    files = FileFilter(repositories, config.Files())
    assert list(files.walk()) == sorted(
        ["app/main.py", *(f"module/{path}" for path in inner), *(f"clone/{p}" for p in inner if p != "new.py")]
    )
    assert files.is_ignored("module/own_c.py")
    assert files.is_ignored("clone/new.py")
    assert not files.is_ignored("module/own_d_not.md")


def test_linked_worktree_gets_completions_and_is_not_indexed(repositories: Path):
    """Its files are those of the repository once more, of another branch."""
    files = FileFilter(repositories, config.Files())
    assert not files.is_ignored("linked/app/main.py")
    assert not files.includes("linked/app/main.py")
    assert not files.includes_directory("linked/app")
    assert files.is_ignored("linked/outer_x.py")
    assert files.check_text("linked/app/main.py", "x\n") is None


def test_linked_worktree_of_another_repository_is_indexed(git_repo: GitRepo, tmp_path: Path):
    git_repo.commit({"a.py": "x\n"})
    write(tmp_path / "folder", {"b.py": "x\n"})
    git_repo.git("worktree", "add", "-q", str(tmp_path / "folder/linked"))
    assert included_files(tmp_path / "folder") == ["b.py", "linked/a.py"]
    assert included_files(tmp_path / "folder/linked") == ["a.py"]


def test_folder_of_repositories(tmp_path: Path):
    for name in ("one", "two"):
        GitRepo(tmp_path / "top" / name).commit({".gitignore": f"{name}_*.py\n", "a.py": "x\n"})
        write(tmp_path / "top" / name, {"one_x.py": "x\n", "two_x.py": "x\n"})
    write(tmp_path / "top", {".gitignore": "/one/two_x.py\n", "c.py": "x\n"})
    assert included_files(tmp_path / "top") == ["c.py", "one/a.py", "one/two_x.py", "two/a.py", "two/one_x.py"]


def test_what_the_outer_repository_ignores_stays_ignored(repositories: Path):
    write(repositories, {".gitignore": "/clone/\n/module/\n"})
    files = FileFilter(repositories, config.Files())
    assert files.is_ignored("clone/lib/a.py")
    assert not files.is_ignored("module/lib/a.py"), "git tracks the submodule"


def test_our_own_rules_hold_in_inner_repositories(repositories: Path):
    write(repositories, {".c2lignore": "/module/\na.py\n", "clone/.c2lignore": "new.py\n"})
    assert included_files(repositories) == ["app/main.py", "clone/outer_b.py"]
    write(repositories, {".c2lignore": None, "clone/.c2lignore": None, "clone/node_modules/x.py": "x\n"})
    write(repositories, {"clone/secrets.py": "x\n"})
    found = included_files(repositories, exclude=["clone/lib"])
    assert [path for path in found if path.startswith("clone/")] == ["clone/new.py", "clone/outer_b.py"]


@pytest.mark.parametrize("content", [b"x", b"gitdir: nowhere\n", b"gitdir: a\0b\n", b"gitdir: loop\n"])
def test_inner_git_file_that_git_cannot_use_excludes_its_folder(tmp_path: Path, content: bytes):
    (tmp_path / "loop").symlink_to("loop")
    write(tmp_path, {"pkg/inner/.git": content, "pkg/inner/a.py": "x\n", "pkg/b.py": "x\n"})
    assert included_files(tmp_path) == ["pkg/b.py"]


def test_inner_configuration_that_git_refuses_excludes_that_repository_alone(repositories: Path):
    write(repositories, {"clone/.git/config": "[core\n"})
    assert not [path for path in included_files(repositories) if path.startswith("clone/")]
    assert "module/lib/a.py" in included_files(repositories)


def test_digest_has_the_rules_of_inner_repositories(repositories: Path):
    digests = set()
    for rules in ("", "a.py\n", "b.py\n"):
        write(repositories, {"clone/.git/info/exclude": rules})
        digests.add(FileFilter(repositories, config.Files()).digest)
    assert len(digests) == 3


def test_after_a_survey_directories_are_judged_without_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Watching starts with a question about each directory; in a folder of 300 clones that held completions for 2 s."""
    for number in range(12):
        GitRepo(tmp_path / f"r{number}").commit({".gitignore": "build/\n", "pkg/a.py": "x\n"})
        write(tmp_path / f"r{number}", {"build/b.py": "x\n"})
    files = FileFilter(tmp_path, config.Files())
    steps = sum(1 for _ in files.survey_in_steps())
    assert steps >= 25, "the root, and two directories in each"
    monkeypatch.setattr(repository_rules, "read_rule_file", lambda *_, **__: pytest.fail("a rule file was read"))
    monkeypatch.setattr(git_directory, "at", lambda *_: pytest.fail("a repository was looked for"))
    for number in range(12):
        assert files.includes_directory(f"r{number}/pkg")
        assert not files.includes_directory(f"r{number}/build")


# --- changes of the rules --------------------------------------------------------------------------------------------


def settled(root: Path) -> FileFilter:
    """A filter that has been used."""
    files = FileFilter(root, config.Files())
    list(files.walk())
    assert not files.outdated()
    assert not files.outdated()
    return files


def test_changes_of_git_are_noticed(repositories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Regression: core.excludesFile and info/exclude were read once."""
    user = tmp_path / "user"
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(user))
    write(tmp_path, {"rules": "y.py\n"})
    write(repositories, {"b_gen.py": "x\n", ".gitignore": "*_gen.py\ngen/\n/away/\n", "gen/in/c.py": "x\n"})
    GitRepo(repositories / "away").commit({"d.py": "x\n"})

    def git(*args: str) -> None:
        subprocess.run(["git", *args], cwd=repositories, check=True, capture_output=True)

    changes = {
        "info/exclude": lambda: write(repositories, {".git/info/exclude": "a.py\n"}),
        "user's configuration": lambda: user.write_text(f"[core]\nexcludesFile = {tmp_path}/rules\n"),
        "exclude file": lambda: (tmp_path / "rules").write_text("z.py\n"),
        "repository's configuration": lambda: git("config", "core.excludesFile", "/elsewhere"),
        "index, a file that is ignored": lambda: git("add", "-f", "b_gen.py"),
        "index, the same file again": lambda: git("rm", "-q", "--cached", "b_gen.py"),
        "index, an ignored folder": lambda: git("add", "-f", "gen/in/c.py"),
        "index, an ignored submodule": lambda: git("-c", "advice.addEmbeddedRepo=false", "add", "-f", "away"),
        "inner index": lambda: git("-C", "clone", "add", "-f", "own_c.py"),
        "inner exclude file": lambda: write(repositories, {"clone/.git/info/exclude": "a.py\n"}),
        "inner configuration": lambda: git("-C", "clone", "config", "core.excludesFile", "/other"),
        "repository gone": lambda: (repositories / ".git").rename(tmp_path / "aside"),
        "repository back": lambda: (tmp_path / "aside").rename(repositories / ".git"),
    }
    for name, change in changes.items():
        files = settled(repositories)
        change()
        assert files.outdated(), name


def test_changes_that_decide_nothing_are_not_noticed(repositories: Path):
    """git writes its configuration and index often. Reading the rules again would compare the whole folder."""
    files = settled(repositories)
    write(repositories, {"new.py": "x\n"})
    for args in (["config", "user.name", "B"], ["add", "new.py"], ["commit", "-qm", "x"], ["checkout", "-qb", "other"]):
        subprocess.run(["git", "-c", "user.email=a@b", *args], cwd=repositories, check=True, capture_output=True)
        assert not files.outdated(), args


def test_answer_before_git_has_answered_is_corrected(git_repo: GitRepo, monkeypatch: pytest.MonkeyPatch):
    write(git_repo.root, {".gitignore": "lib/\n", "lib/a.py": "x\n"})
    git_repo.git("add", "-f", "lib/a.py")
    real = tracked_files.TrackedFiles._list
    monkeypatch.setattr(tracked_files, "_FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(tracked_files.TrackedFiles, "_list", lambda self: time.sleep(0.5) or real(self))
    files = FileFilter(git_repo.root, config.Files())
    assert files.is_ignored("lib/a.py"), "not known yet"
    assert files._ignores.wait(20)
    assert files.outdated()
    assert not files.reloaded().is_ignored("lib/a.py")


@pytest.mark.parametrize("asked", [True, False])
def test_change_of_the_index_before_the_first_check_is_noticed(git_repo: GitRepo, asked: bool):
    write(git_repo.root, {".gitignore": "lib/\n", "lib/a.py": "x\n"})
    files = FileFilter(git_repo.root, config.Files())
    assert files._ignores.wait(20)
    if asked:
        assert files.is_ignored("lib/a.py")
    git_repo.git("add", "-f", "lib/a.py")
    assert files.outdated()


def test_repository_that_appears_is_noticed(tmp_path: Path):
    write(tmp_path, {"sub/a.py": "x\n", "sub/.git/config": ""})
    files = FileFilter(tmp_path, config.Files())
    assert files.is_ignored("sub/a.py"), "no HEAD yet: git is making it"
    write(tmp_path, {"sub/.git/HEAD": "ref: refs/heads/main\n"})
    assert files.outdated()
    assert not files.reloaded().is_ignored("sub/a.py")
    GitRepo(tmp_path / "other")
    (tmp_path / "other/.git").rename(tmp_path / ".git")
    assert files.reloaded().outdated() is False
    assert files.outdated()
