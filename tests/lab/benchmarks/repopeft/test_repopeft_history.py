"""Kept commits, production diffs, splits and caps, each rule with its own repository."""

from __future__ import annotations

from collections import Counter

import pytest
from c2l_lab.benchmarks.repopeft.dataset import splits, walk

from tests.support.repopeft_repositories import golden, grow, suite


def kept(repo, notes=None):
    counted = Counter() if notes is None else notes
    return list(walk.kept_commits(repo.root, walk.main_line(repo.root), counted))


def targets(found):
    return [row.assertion.target for row in found.rows]


def test_commit_with_new_assertions_is_kept(make_repo):
    repo = make_repo()
    repo.commit({"a.py": "x = 1\n"})
    first = repo.commit({"tests/test_a.py": suite("assert f(1) == 10")})
    repo.commit({"a.py": "assert x == 2\n"})  # not a test file
    repo.commit({"tests/test_a.py": suite("assert f(1)   ==   10")})  # white space
    second = repo.commit({"tests/test_a.py": suite("assert f(1) == 10", "assert f(2) == 20")})
    repo.commit({"tests/test_a.py": suite("assert f(1) == 10")})  # takes one away
    found = kept(repo)
    assert [item.step.sha for item in found] == [first, second]
    assert [targets(item) for item in found] == [["10"], ["20"]]
    assert found[1].rows[0].prefix == "def test_it():\n    assert f(1) == 10\n    assert f(2) == "


def test_edit_above_marks_following_assertions_as_modified(make_repo):
    repo = make_repo()
    repo.commit({"tests/test_a.py": suite("x = f()", "assert x == 1", "assert y == 2")})
    repo.commit({"tests/test_a.py": suite("x = g()", "assert x == 1", "assert y == 2", "assert z == 3")})
    found = kept(repo)
    assert [(targets(item), item.modified) for item in found] == [(["1", "2"], 0), (["1", "2", "3"], 2)]


def test_renamed_test_folder_has_no_new_assertions(make_repo):
    repo, notes = make_repo(), Counter()
    text = suite("assert f(1) == 10", "assert f(2) == 20")
    repo.commit({"tests/test_a.py": text, "tests/test_b.py": text.replace("f(", "g(")})
    repo.git("mv", "tests", "testing")
    repo.commit()
    repo.commit({"testing/test_a.py": suite("assert f(1) == 10", "assert f(2) == 20", "assert f(3) == 30")})
    assert [targets(item) for item in kept(repo, notes)] == [["10", "20", "10", "20"], ["30"]]
    assert notes == {"test file renamed": 2}


def test_deleted_file_that_returns_is_new(make_repo):
    repo = make_repo()
    repo.commit({"test_a.py": suite("assert a == 1")})
    repo.commit({"test_a.py": None})
    repo.commit({"test_a.py": suite("assert a == 1")})
    assert len(kept(repo)) == 2


def test_merge_is_one_step(make_repo):
    repo = make_repo()
    repo.commit({"test_a.py": suite("assert a == 1")})
    for number in (2, 3):
        repo.git("checkout", "-q", "-b", f"side{number}")
        repo.commit({f"test_{number}.py": suite(f"assert a == {number}", name=f"test_{number}")})
        repo.commit({f"test_{number}.py": suite("pass", f"assert a == {number}0", name=f"test_{number}")})
        repo.git("checkout", "-q", "main")
        repo.git("merge", "-q", "--no-ff", "-m", "merge", f"side{number}")
    steps = walk.main_line(repo.root)
    assert [step.merge for step in steps] == [False, True, True]
    assert [targets(item) for item in kept(repo)] == [["1"], ["20"], ["30"]]


def test_times_are_author_times_with_zone(make_repo):
    repo = make_repo()
    repo.commit({"a.py": "x = 1\n"})
    assert walk.main_line(repo.root)[0].time.endswith("+02:00")


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b"def test_a(:\n    assert a == 1\n", "test file with a syntax error"),
        ("def test_a():\n    assert a == 'ü'\n".encode("latin-1"), "test file not UTF-8"),
        (b"x = '" + b"a" * 2_000_001 + b"'\nassert x == 1\n", "test file missing or over 2 MB"),
    ],
)
def test_unreadable_file_is_counted_and_its_assertions_stay_known(make_repo, content, note):
    repo, notes = make_repo(), Counter()
    repo.commit({"test_a.py": suite("assert a == 1")})
    repo.commit({"test_a.py": content})
    repo.commit({"test_a.py": suite("assert a == 1", "assert b == 2")})
    assert [targets(item) for item in kept(repo, notes)] == [["1"], ["2"]]
    assert notes == {note: 1}


@pytest.mark.parametrize(
    ("path", "is_test"),
    [
        ("tests/helpers.py", True), ("pkg/Testing/x.py", True), ("test_a.py", True), ("latest.py", True),
        ("pkg/a.py", False), ("tests/data.txt", False), ("vendor/tests/test_a.py", False), ("build/test_a.py", False),
    ],
)  # fmt: skip
def test_which_files_are_tests(path, is_test):
    assert walk.is_test(path) is is_test


def test_production_diff(make_repo):
    expected = golden("production_diff")
    repo = make_repo()
    shas = [repo.commit(files) for files in expected["commits"]]
    for old, new, diff in expected["diffs"]:
        made = walk.production_diff(repo.root, None if old is None else shas[old], shas[new], Counter())
        assert made.splitlines() == diff


def test_huge_diff_ends_with_a_whole_file(make_repo, monkeypatch):
    repo, notes = make_repo(), Counter()
    sha = repo.commit({"a.py": "a = 1\n" * 30, "b.py": "b = 1\n" * 30, "c.py": "c = 1\n" * 30})
    monkeypatch.setattr(walk, "LONGEST_DIFF", 700)
    made = walk.production_diff(repo.root, None, sha, notes)
    assert "+b = 1\n" in made and "c.py" not in made and made.count("+b = 1\n") == 30
    assert notes == {"production diff cut": 1}


def test_standing_assertions_are_those_of_the_tree(make_repo):
    repo = make_repo()
    repo.commit({"test_a.py": suite("assert a == 1"), "test_b.py": suite("assert b == 2")})
    sha = repo.commit({"test_a.py": suite("assert a == 3"), "src.py": suite("assert c == 4")})
    repo.commit({"test_a.py": None})
    assert sorted(row.assertion.target for row in walk.standing(repo.root, sha, Counter())) == ["2", "3"]


def test_bare_and_a_shallow_repository(make_repo, mirror):
    repo = make_repo()
    grow(repo, 4)
    bare, shallow = mirror / "bare", mirror / "shallow"
    repo.git("clone", "-q", "--bare", str(repo.root), str(bare))
    repo.git("clone", "-q", "--depth=2", f"file://{repo.root}", str(shallow))
    whole = [targets(item) for item in kept(repo)]
    assert [targets(i) for i in walk.kept_commits(bare, walk.main_line(bare), Counter())] == whole
    cut = [targets(i) for i in walk.kept_commits(shallow, walk.main_line(shallow), Counter())]
    assert cut == [["value_0", "value_1", "value_2"], ["value_3"]]


def test_chronological_splits():
    for count, expected in golden("splits")["chronological"].items():
        assert splits.chronological(int(count)) == expected.split()


def test_trivial_targets():
    for target, expected in golden("splits")["trivial"].items():
        assert splits.trivial(target) is expected, target


def test_split_depends_only_on_repository_name():
    names = [f"owner{i}/name" for i in range(2000)]
    found = Counter(map(splits.across, names))
    assert splits.across("OWNER1/Name") == splits.across("owner1/name")
    assert found["train"] == pytest.approx(1600, abs=60)
    assert found["cr_val"] == pytest.approx(200, abs=45)
    assert found["cr_test"] == pytest.approx(200, abs=45)


def test_training_cap_alternates_between_commits():
    tasks = [("a.py", f"test_{i % 2}") for i in range(100)] + [("b.py", "t")] * 3 + [("c.py", "t")]
    chosen = splits.capped(tasks, "seed")
    files = Counter(tasks[i][0] for i in chosen)
    assert files == {"a.py": 4, "b.py": 3, "c.py": 1}
    assert Counter(tasks[i][1] for i in chosen if i < 100) == {"test_0": 2, "test_1": 2}
    assert chosen == splits.capped(tasks, "seed") == sorted(chosen)
    assert chosen != splits.capped(tasks, "another")


def test_training_cap_holds_per_commit():
    tasks = [(f"{i % 5}.py", "t") for i in range(50)]
    chosen = splits.capped(tasks, "seed")
    assert len(chosen) == 8
    assert sorted(Counter(tasks[i][0] for i in chosen).values()) == [1, 1, 2, 2, 2]


def test_anchor_caps():
    one_function = splits.anchored([("a.py", "t")] * 50, "s")
    one_file = splits.anchored([("a.py", f"t{i % 25}") for i in range(100)], "s")
    many = splits.anchored([(f"{i % 40}.py", f"t{i}") for i in range(800)], "s")
    assert (len(one_function), len(one_file), len(many)) == (5, 20, 200)


def test_first_of_each_group_in_order():
    found = list(splits.first(iter("abacabac"), lambda c: c, 2))
    assert "".join(found) == "abacbc"
