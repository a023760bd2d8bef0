"""Ignore rules compared with git, and the names that are always ignored."""

import os
import random
import subprocess
from pathlib import Path

import pytest

from c2l_lsp import config
from c2l_lsp.errors import SettingError
from c2l_lsp.repo.filter.files import FileFilter
from c2l_lsp.repo.git import git_process
from tests.support.git_repositories import GitRepo, write


def included_files(root: Path, **settings: object) -> list[str]:
    return list(FileFilter(root, config.Files(**settings)).walk())


def test_nested_gitignore_with_negation(git_repo: GitRepo):
    write(git_repo.root, {".gitignore": "gen_*.py\n/logs/\n", "a/.gitignore": "!gen_keep.py\nsecret_plan.py\n"})
    write(git_repo.root, dict.fromkeys(["gen_x.py", "a/gen_x.py", "a/gen_keep.py", "a/secret_plan.py"], "x = 1\n"))
    write(git_repo.root, dict.fromkeys(["secret_plan.py", "logs/a.py", "a/logs/b.py"], "x = 1\n"))
    assert included_files(git_repo.root) == ["a/gen_keep.py", "a/logs/b.py", "secret_plan.py"]


def test_files_below_an_ignored_folder_cannot_be_included(git_repo: GitRepo):
    write(git_repo.root, {".gitignore": "out\n", "out/.gitignore": "!*\n", "out/a.py": "x\n", "b.py": "x\n"})
    assert included_files(git_repo.root) == ["b.py"]


def test_allow_list_patterns_work_for_folders(git_repo: GitRepo):
    """Matching the whole path at once would apply `*` to the folder and miss `!*/`."""
    write(git_repo.root, {".gitignore": "*\n!*/\n!*.py\n", "a/b/c.py": "x\n", "d.py": "x\n"})
    assert included_files(git_repo.root) == ["a/b/c.py", "d.py"]


def test_including_a_folder_does_not_include_its_ignored_files(git_repo: GitRepo):
    write(git_repo.root, {".gitignore": "*.py\n!pkg\n", "pkg/x.py": "x\n", "pkg/y.pyi": "y\n"})
    assert included_files(git_repo.root) == ["pkg/y.pyi"]


def test_rules_above_the_root_and_in_info_exclude_apply(git_repo: GitRepo):
    write(git_repo.root, {".gitignore": "/sub/top.py\n", ".git/info/exclude": "mine.py\n"})
    write(git_repo.root, dict.fromkeys(["sub/top.py", "sub/mine.py", "sub/kept.py", "sub/own.py"], "x\n"))
    write(git_repo.root, {"sub/.gitignore": "own.py\n"})
    assert included_files(git_repo.root / "sub") == ["kept.py"]


def test_global_excludes_file_applies(git_repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(
        tmp_path, {"home/rules": "personal.py\n", "home/.gitconfig": f"[core]\nexcludesFile = {tmp_path}/home/rules\n"}
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "home/.gitconfig"))
    write(git_repo.root, {"personal.py": "x\n", "a.py": "x\n"})
    assert included_files(git_repo.root) == ["a.py"]


# Where core.excludesFile is set. {rules} is an ignore file with `personal.py`, {top} the working tree.
EXCLUDES_FILE = {
    "user": {"home/gitconfig": "[core]\nexcludesFile = {rules}\n"},
    "user, include": {
        "home/gitconfig": "[include]\npath = inner\n",
        "home/inner": "[core]\nexcludesFile = {rules}\n",
    },
    "user, includeIf": {
        "home/gitconfig": '[includeIf "gitdir:{top}/"]\npath = inner\n',
        "home/inner": "[core]\nexcludesFile = {rules}\n",
    },
    "user, other includeIf": {
        "home/gitconfig": '[includeIf "gitdir:/elsewhere/"]\npath = inner\n',
        "home/inner": "[core]\nexcludesFile = {rules}\n",
    },
    "user, from home": {"home/gitconfig": "[core]\nexcludesFile = ~/rules\n"},
    "system": {"home/system": "[core]\nexcludesFile = {rules}\n"},
    "repository": {"repo/.git/config": "[core]\nexcludesFile = {rules}\n"},
    "repository, relative": {"repo/.git/config": "[core]\nexcludesFile = ../home/rules\n"},
    "repository, include": {
        "repo/.git/config": "[include]\npath = ../../home/inner\n",
        "home/inner": "[core]\nexcludesFile = {rules}\n",
    },
    "repository before user": {
        "home/gitconfig": "[core]\nexcludesFile = {rules}\n",
        "repo/.git/config": "[core]\nexcludesFile = /nonexistent\n",
    },
    "worktree": {
        "repo/.git/config": "[core]\nrepositoryFormatVersion = 1\n[extensions]\nworktreeConfig = true\n",
        "repo/.git/config.worktree": "[core]\nexcludesFile = {rules}\n",
    },
    "default": {"home/git/ignore": "personal.py\n"},
    "default turned off": {"home/git/ignore": "personal.py\n", "home/gitconfig": "[core]\nexcludesFile =\n"},
}
NOT_EXCLUDED = {"user, other includeIf", "repository before user", "default turned off"}


@pytest.mark.parametrize("subfolder", ["", "sub"])
@pytest.mark.parametrize("where", EXCLUDES_FILE)
def test_global_excludes_are_those_of_git(
    git_repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, subfolder: str
):
    names = {"rules": f"{tmp_path}/home/rules", "top": str(git_repo.root)}
    write(tmp_path, {"home/rules": "personal.py\n"})
    write(tmp_path, {path: text.format(**names) for path, text in EXCLUDES_FILE[where].items()})
    write(git_repo.root, dict.fromkeys(["personal.py", "a.py", "sub/personal.py", "sub/a.py"], "x\n"))
    for variable, value in {"HOME": "", "XDG_CONFIG_HOME": "", "GIT_CONFIG_GLOBAL": "/gitconfig"}.items():
        monkeypatch.setenv(variable, f"{tmp_path}/home{value}")
    if where == "system":
        monkeypatch.setenv("GIT_CONFIG_SYSTEM", str(tmp_path / "home/system"))
    root = git_repo.root / subfolder
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard", "."], cwd=root, capture_output=True, check=True, text=True
    )
    assert included_files(root) == sorted(listed.stdout.split())
    assert ("personal.py" in listed.stdout) == (where in NOT_EXCLUDED)


@pytest.mark.parametrize("ignore_case", ["true", "false"])
def test_case_is_ignored_as_configured(git_repo: GitRepo, ignore_case: str):
    git_repo.git("config", "core.ignoreCase", ignore_case)
    write(git_repo.root, {".gitignore": "Personal*.py\n/Sub/B.PY\n", "personal_1.py": "x\n", "sub/b.py": "x\n"})
    write(git_repo.root, {"a.py": "x\n"})
    assert included_files(git_repo.root) == (
        ["a.py"] if ignore_case == "true" else ["a.py", "personal_1.py", "sub/b.py"]
    )


def test_configuration_that_git_refuses_excludes_everything(git_repo: GitRepo):
    write(git_repo.root, {"a.py": "x\n"})
    assert included_files(git_repo.root) == ["a.py"]
    write(git_repo.root, {".git/config": "[core\n"})
    assert included_files(git_repo.root) == []


def test_excludes_file_that_is_no_file_excludes_everything(git_repo: GitRepo, tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    git_repo.git("config", "core.excludesFile", str(tmp_path / "fifo"))
    write(git_repo.root, {"a.py": "x\n"})
    assert included_files(git_repo.root) == []


def test_default_global_excludes_apply_without_git(git_repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, {"git/ignore": "personal.py\n"})
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    git_process._executable.cache_clear()
    write(git_repo.root, {"personal.py": "x\n", "a.py": "x\n"})
    try:
        assert included_files(git_repo.root) == ["a.py"]
    finally:
        git_process._executable.cache_clear()


def test_reading_the_configuration_executes_nothing(git_repo: GitRepo, tmp_path: Path):
    """Every key of the repository's configuration that names a program names one that leaves a trace."""
    program = tmp_path / "program"
    write(tmp_path, {"program": f"#!/bin/sh\ntouch '{tmp_path}/executed'\n"})
    program.chmod(0o755)
    keys = ["core.fsmonitor", "core.pager", "core.editor", "core.sshCommand", "core.askPass", "diff.external"]
    keys += [
        "alias.config",
        "pager.config",
        "credential.helper",
        "filter.x.clean",
        "gpg.program",
        "uploadpack.packObjectsHook",
    ]
    for key in keys:
        git_repo.git("config", key, str(program))
    (git_repo.root / ".git/hooks").mkdir(exist_ok=True)
    for hook in ("post-index-change", "fsmonitor-watchman", "post-checkout"):
        write(git_repo.root, {f".git/hooks/{hook}": program.read_bytes()})
        (git_repo.root / ".git/hooks" / hook).chmod(0o755)
    write(git_repo.root, {"a.py": "x\n", ".gitattributes": "*.py filter=x\n"})
    assert included_files(git_repo.root) == ["a.py"]
    assert not (tmp_path / "executed").exists()


def test_root_inside_an_ignored_folder_is_empty(git_repo: GitRepo):
    write(git_repo.root, {".gitignore": "data/\n", "data/deep/a.py": "x\n"})
    assert included_files(git_repo.root / "data/deep") == []


def test_project_ignore_file_applies_without_gitignore(tmp_path: Path):
    write(tmp_path, {".git/HEAD": "ref: refs/heads/main\n", ".gitignore": "a.py\n", ".c2lignore": "b.py\n"})
    write(tmp_path, dict.fromkeys(["a.py", "b.py", "c.py", "d.py"], "x\n"))
    assert included_files(tmp_path, respect_gitignore=False, exclude=["c.py"]) == ["a.py", "d.py"]


def test_project_rules_can_only_exclude(git_repo: GitRepo):
    write(git_repo.root, {".gitignore": "a.py\n", ".c2lignore": "!a.py\nsub/b.py\n", "a.py": "x\n", "sub/b.py": "x\n"})
    write(git_repo.root, {"sub/.c2lignore": "c*\n", "sub/c.py": "x\n", "sub/d.py": "x\n"})
    assert included_files(git_repo.root, exclude=["!a.py"]) == ["sub/d.py"]


def test_gitignore_applies_without_a_repository(tmp_path: Path):
    write(tmp_path, {".gitignore": "a.py\n", "a.py": "x\n", "b.py": "x\n"})
    assert included_files(tmp_path) == ["b.py"]


def test_unusable_ignore_file_excludes_its_folder(tmp_path: Path):
    write(tmp_path, {"a/x.py": "x\n", "b/x.py": "x\n", "c/x.py": "x\n"})
    (tmp_path / "a/.gitignore").symlink_to("/dev/zero")
    write(tmp_path, {"b/.c2lignore": "#" * (1 << 21)})
    assert included_files(tmp_path) == ["c/x.py"]


@pytest.mark.parametrize(
    "path",
    """.git/x.py node_modules/x.py a/.venv/x.py VENV/x.py a/__pycache__/x.py lib/site-packages/x.py .tox/x.py
    pkg.egg-info/x.py build/lib/x.py .mypy_cache/x.py .ssh/x.py .env.d/x.py secrets/x.py .env.py .envrc.py
    credentials.py Credentials_old.py secrets.py .secrets.py id_rsa.py tool.pem secrets_prod.py passwords.py tokens.py
    .tokens.py credentials_x.py PASSWORDS.py db_passwords.py prod-secrets.py api_tokens.py secrets.local.py
    secretsProd.py my_creds.py""".split(),  # noqa: SIM905
)
def test_names_that_are_always_ignored(tmp_path: Path, path: str):
    write(tmp_path, {path: "x\n", "kept.py": "x\n"})
    every = config.Files(respect_gitignore=False, exclude=["!*"])
    rules = FileFilter(tmp_path, every)
    assert rules.is_ignored(path)
    assert list(rules.walk()) == ["kept.py"]


@pytest.mark.parametrize(
    "path",
    """tokenizer.py token_healing.py token.py semantic_tokens.py css_tokens.py tokens_test.py password_validators.py
    password.py reset_passwords.py get_secrets.py secrets_manager.py secretsManager.py test_passwords.py secret_key.py
    AwsCredentials.py credential.py forms.py monkey.py""".split(),  # noqa: SIM905
)
def test_code_that_handles_secrets_is_read(tmp_path: Path, path: str):
    write(tmp_path, {path: "x\n"})
    assert included_files(tmp_path) == [path]


@pytest.mark.parametrize("marker", ["pyvenv.cfg", "CACHEDIR.TAG", "conda-meta", ".git"])
def test_environments_caches_and_nested_repositories_are_ignored(tmp_path: Path, marker: str):
    write(tmp_path, {f"pkg/inner/{marker}": "x", "pkg/inner/a.py": "x\n", "pkg/b.py": "x\n"})
    assert included_files(tmp_path) == ["pkg/b.py"]


@pytest.mark.parametrize(
    "path", ["", ".", "..", "../x.py", "/x.py", "a//x.py", "a/../x.py", "./x.py", "a\0.py", "\udcff.py"]
)
def test_malformed_paths_are_ignored(tmp_path: Path, path: str):
    assert not FileFilter(tmp_path, config.Files()).includes(path)


def test_invalid_settings_raise(tmp_path: Path):
    with pytest.raises(SettingError, match=r"files\.exclude: '!'"):
        FileFilter(tmp_path, config.Files(exclude=["!"]))
    with pytest.raises(SettingError, match=r"files\.ignoreFile"):
        FileFilter(tmp_path, config.Files(ignore_file="../elsewhere"))


_PIECES = ["a", "b", "ab", "x.py", "*.py", "*", "**", "a*", "?", "[ab]", "[!a]", "x*"]
_NAMES = ["a", "b", "ab", "x.py", "y.py"]


def _pattern(rng: random.Random) -> str:
    body = "/".join(rng.choice(_PIECES) for _ in range(rng.randint(1, 3)))
    return rng.choice(["", "", "!"]) + rng.choice(["", "", "/"]) + body + rng.choice(["", "", "/", " ", "\r"])


def test_random_rules_give_the_same_files_as_git(git_repo: GitRepo):
    """For 25 random sets of nested rules and 1,500 paths, the walk yields the files that git lists as untracked."""
    rng = random.Random(7)
    for round_ in range(25):
        paths = {
            "/".join([*(f"{n}.d" for n in rng.choices(_NAMES[:3], k=rng.randint(0, 3))), "y.py"]) for _ in range(30)
        }
        paths |= {path.replace(".d", "").replace("y.py", rng.choice(["x.py", "y.py"])) for path in paths}
        base = git_repo.root / f"r{round_}"
        write(base, dict.fromkeys(paths, "x\n"))
        for folder in ("", "a/", "a/b/"):
            write(base, {f"{folder}.gitignore": "\n".join(_pattern(rng) for _ in range(rng.randint(1, 4))) + "\n"})
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--others", "--exclude-standard", "."], cwd=base, capture_output=True, check=True
        )
        expected = sorted(path for path in listed.stdout.decode().split("\0") if path.endswith(".py"))
        assert included_files(base) == expected, [p.read_text() for p in sorted(base.rglob(".gitignore"))]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.parametrize("name", [".gitignore", ".c2lignore"])
@pytest.mark.parametrize("kind", ["link in the folder", "link to nothing", "link out", "link to a device", "FIFO"])
def test_irregular_ignore_file_excludes_its_folder_without_being_opened(
    git_repo: GitRepo, monkeypatch, tmp_path, kind, name
):
    """git ignores a linked .gitignore. Its intended rules are unknown, so nothing in the folder may be read."""
    root = git_repo.root
    write(root, {"rules": "later.py\n", "a/later.py": "x\n", "a/b/c.py": "x\n", "top.py": "x\n"})
    (tmp_path / "outside").write_text("later.py\n")
    path = root / "a" / name
    targets = {"link in the folder": "../rules", "link to nothing": "nowhere", "link to a device": "/dev/zero"}
    if kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to(targets.get(kind, tmp_path / "outside"))
    opened, real = [], os.open
    monkeypatch.setattr(os, "open", lambda path, *args, **more: opened.append(str(path)) or real(path, *args, **more))
    assert included_files(root) == ["top.py"]
    assert not [path for path in opened if path.endswith(name) and "/a/" in path]


def test_ignore_file_replaced_by_a_link_is_not_followed(git_repo: GitRepo, monkeypatch):
    write(git_repo.root, {".gitignore": "later.py\n", "rules": "", "later.py": "x\n", "top.py": "x\n"})
    real = os.open

    def swapped(path, *args, **more):
        if str(path) == str(git_repo.root / ".gitignore"):
            (git_repo.root / ".gitignore").unlink()
            (git_repo.root / ".gitignore").symlink_to("rules")
        return real(path, *args, **more)

    monkeypatch.setattr(os, "open", swapped)
    assert included_files(git_repo.root) == []


def test_info_exclude_may_be_a_link(git_repo: GitRepo, tmp_path):
    (tmp_path / "dotfiles").write_text("later.py\n")
    exclude = git_repo.root / ".git" / "info" / "exclude"
    exclude.parent.mkdir(exist_ok=True)
    exclude.unlink(missing_ok=True)
    exclude.symlink_to(tmp_path / "dotfiles")
    write(git_repo.root, {"later.py": "x\n", "top.py": "x\n"})
    assert included_files(git_repo.root) == ["top.py"]
