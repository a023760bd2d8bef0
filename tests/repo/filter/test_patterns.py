"""Patterns of ignore files: the same decisions as git's, in a time proportional to the rules and the path."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from c2l_lsp import config
from c2l_lsp.repo.filter.ignore import IgnoreRules, well_formed
from c2l_lsp.repo.filter.patterns import PatternList
from tests.support.git_repositories import GitRepo, write
from tests.support.linear import assert_linear, seconds

PIECES = [
    *("a", "b", "B", "-", "]", "[", "!", "^", ":", "#", " ", "\t", "é", ".py", "a.py", "\r", "[]", "[[:", ":]]"),
    *("*", "*", "*", "**", "***", "?", "/", "/", "/", "**/", "/**", "/**/", "\\", "\\a", "\\ ", "\\/", "\\*", "\\]"),
    *("[ab]", "[!a]", "[^b]", "[]a]", "[!]a]", "[a-b]", "[b-a]", "[A-Z]", "[a-]", "[-a]", "[é]", "[a/b]", "[\\]]"),
    *("[[:alpha:]]", "[![:alpha:]]", "[[:upper:]b]", "[[:space:]]", "[[:punct:]]", "[[:foo:]]", "[[:alpha:]-b]"),
    *("[[:alnum:]]", "[[:cntrl:]]", "[[:graph:]]", "[[:xdigit:][:blank:]]", "[a[:]", "[\\[-\\]]", "[a-\\b]"),
]
CHARACTERS = ["a", "a", "b", "b", "B", "A", "-", "]", "[", "!", "^", ":", "#", " ", "\t", "é", "*", ".py", "\\", "0"]


def _random_rules(rng: random.Random) -> list[str]:
    def pattern() -> str:
        body = "".join(rng.choices(PIECES, k=rng.randint(1, 6)))
        return rng.choice(["", "", "", "!", "/"]) + body + rng.choice(["", "", "", "/", " ", "\\ ", "\t"])

    return [pattern() for _ in range(rng.randint(1, 5))]


def _random_path(rng: random.Random, rules: list[str]) -> str:
    """Return a random path, or a pattern with its wildcards replaced, so that it is often matched."""
    if rng.random() < 0.4:
        parts = ["".join(rng.choices(CHARACTERS, k=rng.randint(1, 3))) for _ in range(rng.randint(1, 4))]
        return "/".join(parts)
    text = rng.choice(rules).strip("!/").replace("\\", "")
    for wildcard in ("[!a]", "[^b]", "[]a]", "[ab]", "[a-b]", "[[:alpha:]]", "**", "*", "?", "é"):
        while wildcard in text:
            text = text.replace(wildcard, "".join(rng.choices([*CHARACTERS, "", "/"], k=rng.randint(0, 2))), 1)
            text = text.replace("*", "b") if rng.random() < 0.3 else text
            if len(text) > 60:
                return "a"
    return text


def _paths(rng: random.Random, rules: list[str]) -> list[str]:
    drawn = {_random_path(rng, rules) for _ in range(25)}
    return sorted(path for path in drawn - {"a"} if well_formed(path))  # a is a directory


def _ignored_by_git(repository: GitRepo, paths: list[str]) -> set[str]:
    completed = subprocess.run(
        ["git", "check-ignore", "--no-index", "-z", "--stdin"],
        cwd=repository.root,
        input=b"\0".join(b"./" + os.fsencode(path) for path in paths),
        capture_output=True,
        check=False,
    )
    assert completed.returncode in (0, 1), completed.stderr
    return {os.fsdecode(path).removeprefix("./") for path in completed.stdout.split(b"\0") if path}


def _compare_with_git(repository: GitRepo, rounds: int, *, ignore_case: bool) -> tuple[int, int]:
    """Compare the decisions on about 20 paths a round. Return how many paths were ignored, and how many not."""
    repository.git("config", "core.ignoreCase", str(ignore_case).lower())
    counts = [0, 0]
    for seed in range(rounds):
        rng = random.Random(seed)
        rules, inner = _random_rules(rng), _random_rules(rng)
        write(repository.root, {".gitignore": "\n".join(rules), "a/.gitignore": "\n".join(inner) + "\n"})
        write(repository.root, {".git/info/exclude": "\n".join(_random_rules(rng))})
        paths = _paths(rng, [*rules, *inner])
        ours = IgnoreRules(repository.root, config.Files())
        found = {path for path in paths if ours.ignores_file(path)}
        expected = _ignored_by_git(repository, paths)
        assert found == expected, f"seed {seed}, {rules}, {inner}: only git {expected - found}, {found - expected}"
        counts[0] += len(expected)
        counts[1] += len(paths) - len(expected)
    return counts[0], counts[1]


@pytest.mark.parametrize("ignore_case", [False, True])
def test_random_patterns_give_the_same_decisions_as_git(git_repo: GitRepo, *, ignore_case: bool):
    assert min(_compare_with_git(git_repo, 200, ignore_case=ignore_case)) > 300


@pytest.mark.slow
@pytest.mark.parametrize("ignore_case", [False, True])
def test_many_random_patterns_give_the_same_decisions_as_git(git_repo: GitRepo, *, ignore_case: bool):
    assert min(_compare_with_git(git_repo, 2000, ignore_case=ignore_case)) > 3000


# --- time ---------------------------------------------------------------------------------------------------------

HOSTILE = {
    "asterisks": b"*a" * 30 + b"x",
    "asterisks and sets": b"*[ab]" * 30 + b"x",
    "directories": b"**/a*/" * 30 + b"x",
    "asterisks across directories": b"**/*a" * 30 + b"**/x",
    "single bytes": b"*?" * 60 + b"[xy]",
}
RULES: dict[str, Callable[[int], bytes]] = {
    "names": lambda n: b"gen_%d.py" % n,
    "paths": lambda n: b"/gen/x%d/y.py" % n,
    "beginnings": lambda n: b"/gen/x%d_*.py" % n,
    "ends": lambda n: b"*_%d.py" % n,
    "parts": lambda n: b"*x%d*" % n,
    "negations": lambda n: b"!**/x%d/*.p?" % n,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_pattern_is_matched_in_linear_time(kind: str):
    rules = PatternList.from_file(HOSTILE[kind], fold_case=False)

    def prepare(size: int) -> Callable[[], object]:
        path = b"/".join([b"a" * 200] * (size // 200)) + b"/b.py"
        return lambda: rules.last_match(path, directory=False)

    assert_linear(prepare, 4000)
    assert seconds(prepare(4000)) < 0.2  # 4 ms measured; backtracking would take years


def test_one_pattern_does_not_stop_a_folder(tmp_path: Path):
    write(tmp_path, {".gitignore": "*a" * 30 + "x\n" + "*" * 30 + "x\n", "a" * 200 + ".py": "x = 1\n"})
    found = IgnoreRules(tmp_path, config.Files())
    assert seconds(lambda: found.ignores_file("a" * 200 + ".py")) < 0.1  # 0.02 ms measured


@pytest.mark.parametrize("kind", RULES)
def test_many_rules_are_read_in_linear_time(kind: str):
    def prepare(size: int) -> Callable[[], object]:
        data = b"\n".join(RULES[kind](n) for n in range(size))
        return lambda: PatternList.from_file(data, fold_case=False)

    assert_linear(prepare, 2000)


@pytest.mark.parametrize("kind", RULES)
def test_time_of_a_match_does_not_grow_with_the_number_of_rules(kind: str):
    def prepare(size: int) -> Callable[[], object]:
        rules = PatternList.from_file(b"\n".join(RULES[kind](n) for n in range(size)), fold_case=False)
        paths = [b"src/package/module_%d.py" % n for n in range(100)]
        return lambda: [rules.last_match(path, directory=False) for path in paths]

    few, many = seconds(prepare(500)), seconds(prepare(30_000))
    assert many < 8 * max(few, 0.001)  # comparing every rule takes sixty times as long


@pytest.mark.parametrize("unit", [b"[[:", b"[a", b"\\", b"[!a]", b"**/", b"*a", b"?", b"a/", b"[:]"])
def test_long_line_is_read_in_linear_time(unit: bytes):
    def prepare(size: int) -> Callable[[], object]:
        line = b"[" + unit * (size // len(unit)) + b"]"
        return lambda: PatternList.from_file(line, fold_case=False).last_match(b"src/a.py", directory=False)

    assert_linear(prepare, 16_000)
