"""The diff of two texts equals that of git, byte for byte."""

import random
import subprocess
from pathlib import Path

import pytest

from c2l_lsp.repo.history.patch import unified_diff
from tests.support.git_repositories import GitRepo, write

SOURCES = sorted((Path(__file__).parents[3] / "c2l_lsp").rglob("*.py"))


def git_diffs(repo: GitRepo, old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    """Return path → section of `git diff` between two states of a repository."""
    repo.commit({"keep": "x"} | {path: text.encode("utf-8", "surrogatepass") for path, text in old.items()})
    for path in old.keys() - new.keys():
        (repo.root / path).unlink()
    repo.commit(new)
    command = ["git", "diff", "--no-color", "-U3", "HEAD~1", "HEAD"]
    output = subprocess.run(command, cwd=repo.root, capture_output=True, check=True).stdout.decode("utf-8", "replace")
    sections = [f"diff --git {part}" for part in f"\n{output}".split("\ndiff --git ")[1:]]
    closed = [part if part.endswith("\n") else f"{part}\n" for part in sections]
    return {part.split("\n", 1)[0].rpartition(" ")[2].strip('"').removeprefix("b/"): part for part in closed}


BODY = "".join(f"line {n}\n" for n in range(1, 31))
INDENTED = BODY.replace("line", " line")
BLOCKS = "".join(f"def f{n}(x):\n    if x:\n        return {n}\n\n    return x\n\n\n" for n in range(6))
CASES: dict[str, tuple[str, str]] = {
    "one_line": (BODY, BODY.replace("line 7\n", "seven\n")),
    "first_line": (BODY, BODY.replace("line 1\n", "one\n", 1)),
    "last_line": (BODY, BODY.replace("line 30\n", "thirty\n")),
    "grown_at_both_ends": (BODY, f"before\n{BODY}after\n"),
    "contexts_that_touch": (BODY, BODY.replace("line 5\n", "5\n").replace("line 12\n", "12\n")),
    "contexts_apart": (BODY, BODY.replace("line 5\n", "5\n").replace("line 13\n", "13\n")),
    "one_line_file": ("a\n", "b\n"),
    "emptied": ("a\nb\n", ""),
    "filled": ("", "a\nb\n"),
    "no_end_before": ("a\nb", "a\nb\n"),
    "no_end_after": ("a\nb\n", "a\nb"),
    "no_end_twice": ("a\nb", "a\nc"),
    "carriage_returns": ("a\r\nb\r\n", "a\r\nB\r\n"),
    "ends_changed": ("a\nb\n", "a\r\nb\r\n"),
    "form_feed_and_separators": ("a\x0cb\u2028c\x85d\n", "a\x0cb\u2028c\x85e\n"),
    "astral": ("x = '🍋'\n", "x = '🍊'\n"),
    "block_added_between": (BLOCKS, BLOCKS.replace("def f3", "def new(x):\n    return x\n\n\ndef f3")),
    "block_removed": (BLOCKS, BLOCKS.replace(BLOCKS[: len(BLOCKS) // 6].replace("f0", "f2").replace("0", "2"), "")),
    "block_repeated": (BLOCKS, BLOCKS + BLOCKS[-58:]),
    "blank_lines_only": (BLOCKS, BLOCKS.replace("\n\n\n", "\n\n")),
    "indented": (BLOCKS, "".join(f"    {line}" for line in BLOCKS.splitlines(keepends=True))),
    "rewritten": (BODY, BLOCKS),
    "long_heading": (f"def {'x' * 90}:\n{INDENTED}", f"def {'x' * 90}:\n{INDENTED}".replace("20", "twenty")),
    "heading_cut_in_a_letter": (f"{'é' * 60}\n{INDENTED}", f"{'é' * 60}\n{INDENTED}".replace("20", "twenty")),
    "same": ("a\n", "a\n"),
}


def test_diff_of_each_case_equals_git(git_repo: GitRepo):
    old = {f"{name}.py": text for name, (text, _) in CASES.items()}
    new = {f"{name}.py": text for name, (_, text) in CASES.items()}
    expected = git_diffs(git_repo, old, new)
    for path in old:
        assert unified_diff(old[path], new[path], path) == expected.get(path, ""), path


@pytest.mark.parametrize("path", ["a.py", "with space.py", "ümlaut.py", 'quo"te.py', "tab\tbed.py", "back\\slash.py"])
def test_diff_of_added_and_deleted_files_equals_git(git_repo: GitRepo, path: str):
    (added,) = git_diffs(git_repo, {}, {path: "x = 1\n"}).values()
    assert unified_diff(None, "x = 1\n", path) == added
    (deleted,) = git_diffs(git_repo, {path: "x = 1\n"}, {}).values()
    assert unified_diff("x = 1\n", None, path) == deleted


def test_diff_of_empty_files_equals_git(git_repo: GitRepo):
    (added,) = git_diffs(git_repo, {}, {"a.py": ""}).values()
    assert unified_diff(None, "", "a.py") == added
    (deleted,) = git_diffs(git_repo, {"a.py": ""}, {}).values()
    assert unified_diff("", None, "a.py") == deleted


def edited(lines: list[str], rng: random.Random) -> list[str]:
    """A few edits as people make them: removing, writing, copying, changing and moving blocks, blank lines."""
    lines = list(lines)
    for _ in range(rng.choice([1, 1, 2, 3, 6, 12])):
        at, other, size = (
            rng.randrange(len(lines) + 1),
            rng.randrange(len(lines) + 1),
            rng.choice([1, 1, 2, 3, 5, 10, 25]),
        )
        match rng.randrange(6):
            case 0:
                del lines[at : at + size]
            case 1:
                lines[at:at] = [f"    new_{rng.random()}\n" for _ in range(size)]
            case 2:
                lines[at:at] = lines[other : other + size]
            case 3:
                lines[at : at + size] = [line.replace("e", "E", 1) for line in lines[at : at + size]]
            case 4:
                block = lines[at : at + size]
                del lines[at : at + size]
                lines[other:other] = block
            case _:
                lines[at:at] = ["\n"] * rng.choice([1, 2])
    return lines


def test_diff_of_random_edits_equals_git(git_repo: GitRepo):
    rng = random.Random(11)
    old, new = {}, {}
    for n in range(300):
        lines = rng.choice(SOURCES).read_text(encoding="utf-8").splitlines(keepends=True)[: rng.choice([30, 100, 400])]
        old[f"f{n}.py"] = "".join(lines)
        new[f"f{n}.py"] = "".join(edited(lines, rng))
        if n % 10 == 0:
            new[f"f{n}.py"] = rng.choice(SOURCES).read_text(encoding="utf-8")
    expected = git_diffs(git_repo, old, new)
    assert len(expected) > 260
    wrong = [path for path in old if unified_diff(old[path], new[path], path) != expected.get(path, "")]
    # Dissimilar files have several shortest diffs, of which git's shortcuts may choose another. None differs so far.
    assert len(wrong) <= 4, wrong


def test_git_apply_accepts_the_diff(git_repo: GitRepo):
    rng = random.Random(5)
    for n in range(10):
        lines = [f"{rng.randrange(8)}\n" for _ in range(120)]
        old, new = "".join(lines), "".join(rng.sample(lines, 100))
        write(git_repo.root, {"a.py": old, "a.patch": unified_diff(old, new, "a.py")})
        git_repo.git("apply", "a.patch")
        assert (git_repo.root / "a.py").read_text() == new, n


def test_diff_of_a_large_shuffled_file_is_fast():
    rng = random.Random(3)
    lines = [f"x{rng.randrange(300)}\n" for _ in range(2000)]
    assert unified_diff("".join(lines), "".join(rng.sample(lines, len(lines))), "a.py").startswith("diff --git")
