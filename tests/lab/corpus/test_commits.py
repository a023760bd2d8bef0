"""Commit streams: exact replay of a history's filtered Python files, resumable builds, the manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from c2l_lab.corpus import commits, filters

from c2l_lsp.errors import CorpusError
from tests.support.git_repositories import GitRepo
from tests.support.training_text import MIT, module


def repository(mirror: Path, name: str) -> GitRepo:
    return GitRepo(mirror / name.replace("/", "+") / "repo")


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return tmp_path / "mirror"


A, B, C = module("alpha"), module("beta"), module("gamma")


def history(mirror: Path, name: str = "own/a") -> tuple[GitRepo, list[str]]:
    repo = repository(mirror, name)
    shas = [
        repo.commit({"LICENSE": MIT, "a.py": A, "pkg/b.py": B}),
        repo.commit({"a.py": A.replace("total", "summed")}),
        repo.commit({"README.md": "only words"}),
        repo.commit({"vendor/v.py": C}),
        repo.commit({"c.py": C, "pkg/b.py": None}),
    ]
    repo.git("mv", "c.py", "moved.py")
    shas += [repo.commit({}), repo.commit({"a.py": A})]
    return repo, shas


def build(mirror: Path, out: Path, *names: str, **options):
    return commits.build(names or ("own/a",), mirror, out, workers=1, **options)


def only(out: Path):
    (stream,) = commits.streams(out)
    return stream


def test_stream_has_the_files_of_each_commit_before_and_after(mirror, tmp_path):
    _, shas = history(mirror)
    build(mirror, tmp_path / "out")
    found = [(r.sha, r.index, {(c.old_path, c.path, c.old, c.new) for c in r.changes}) for r in only(tmp_path / "out")]
    other = A.replace("total", "summed")
    assert found == [
        (shas[0], 0, {(None, "a.py", None, A), (None, "pkg/b.py", None, B)}),
        (shas[1], 1, {("a.py", "a.py", A, other)}),
        (shas[4], 2, {(None, "c.py", None, C), ("pkg/b.py", None, B, None)}),
        (shas[5], 3, {("c.py", "moved.py", C, C)}),
        (shas[6], 4, {("a.py", "a.py", other, A)}),
    ]


def test_replay_gives_the_same_tree_as_git(mirror, tmp_path):
    repo, _ = history(mirror)
    build(mirror, tmp_path / "out")
    stream = only(tmp_path / "out")
    for _ in range(2):  # a stream can be iterated twice
        tree: dict[str, str] = {}
        for record in stream:
            for change in record.changes:
                if change.old is not None:
                    assert tree.pop(change.old_path) == change.old
            tree |= {change.path: change.new for change in record.changes if change.new is not None}
        assert tree == {name: (repo.root / name).read_text() for name in ("a.py", "moved.py")}
    times = [record.time for record in stream]
    assert times == sorted(times) and times[0] > 1_600_000_000


def test_text_in_the_tree_is_written_once(mirror, tmp_path):
    repo = repository(mirror, "own/a")
    repo.commit({"LICENSE": MIT, "a.py": A, "same.py": A})
    repo.commit({"copy.py": A})
    repo.commit({"a.py": None, "same.py": None, "copy.py": None, "b.py": B})
    repo.commit({"a.py": A})
    build(mirror, tmp_path / "out")
    stream = only(tmp_path / "out")
    written = [line["text"][1] for line in commits._lines(stream.file) if "text" in line]
    assert written == [A, B, A]  # written again after it left the tree
    assert stream.repository.bytes == len(A + B + A)
    assert [[c.new for c in record.changes if c.new] for record in stream] == [[A, A], [A], [B], [A]]


def test_files_refused_by_the_filters_are_absent(mirror, tmp_path):
    repo = repository(mirror, "own/a")
    repo.commit({"LICENSE": MIT, "a.py": A})
    repo.commit({"a.py": "def broken(:\n" * 20, "b.py": B.encode() + b"\xff", "c.py": "x = 1\n"})
    repo.commit({"a.py": B})
    build(mirror, tmp_path / "out")
    stream = only(tmp_path / "out")
    assert [[(c.old, c.new) for c in record.changes] for record in stream] == [[(None, A)], [(A, None)], [(None, B)]]
    assert stream.repository.skips == {"invalid UTF-8": 1, "not valid Python 3": 1, "too small": 1}


def test_texts_are_cleaned_as_in_the_corpus(mirror, tmp_path):
    head = "# Copyright 2020 Somebody. All rights reserved.\n\n"
    repo = repository(mirror, "own/a")
    repo.commit({"LICENSE": MIT, "a.py": head + A})
    repo.commit({"a.py": head.replace("2020", "2021") + A})  # only the removed header changes
    repo.commit({"a.py": head + B})
    build(mirror, tmp_path / "out")
    clean = [filters.clean((head + text).encode())[0] for text in (A, B)]
    assert "Copyright" not in clean[0]
    assert [[c.new for c in record.changes] for record in only(tmp_path / "out")] == [[clean[0]], [clean[1]]]


def test_the_oldest_used_commit_adds_all_files(mirror, tmp_path):
    _, shas = history(mirror)
    build(mirror, tmp_path / "out", most_commits=2)
    found = [(r.sha, {(c.old, c.path) for c in r.changes}) for r in only(tmp_path / "out")]
    assert found == [
        (shas[5], {(None, "a.py"), (None, "moved.py")}),
        (shas[6], {(A.replace("total", "summed"), "a.py")}),
    ]


def test_long_history_is_cut_at_the_size_limit(mirror, tmp_path):
    _, shas = history(mirror)
    manifest = build(mirror, tmp_path / "out", most_bytes=len(A + B + A) + 100)
    assert [r.sha for r in only(tmp_path / "out")] == shas[:2]
    assert manifest["repositories"][0]["skips"]["history cut at its share of bytes"] == 1


def test_merge_adds_the_difference_to_the_first_parent(mirror, tmp_path):
    repo = repository(mirror, "own/a")
    repo.commit({"LICENSE": MIT, "a.py": A})
    repo.git("checkout", "-q", "-b", "side")
    repo.commit({"b.py": B})
    repo.git("checkout", "-q", "main")
    repo.git("merge", "-q", "--no-ff", "-m", "m", "side")
    build(mirror, tmp_path / "out")
    assert [[c.path for c in r.changes] for r in only(tmp_path / "out")] == [["a.py"], ["b.py"]]


def test_second_build_reads_only_changed_repositories(mirror, tmp_path, monkeypatch):
    repo, _ = history(mirror)
    first = build(mirror, tmp_path / "out")
    before = only(tmp_path / "out").file.read_bytes()
    monkeypatch.setattr(commits, "stream_lines", None)  # a call would fail
    assert build(mirror, tmp_path / "out") == first
    monkeypatch.undo()
    repo.commit({"a.py": B})
    assert build(mirror, tmp_path / "out")["repositories"][0]["commits"] == 6
    assert only(tmp_path / "out").file.read_bytes() != before


def test_interrupted_build_leaves_no_partial_stream(mirror, tmp_path, monkeypatch):
    history(mirror)

    def stops(*args):
        yield {"text": ["a", "b"]}
        raise KeyboardInterrupt

    whole = commits.stream_lines
    monkeypatch.setattr(commits, "stream_lines", stops)
    with pytest.raises(KeyboardInterrupt):
        build(mirror, tmp_path / "out")
    assert list((tmp_path / "out" / "commits").iterdir()) == []
    with pytest.raises(CorpusError, match="contains no commit streams"):
        list(commits.streams(tmp_path / "out"))
    monkeypatch.setattr(commits, "stream_lines", whole)
    assert build(mirror, tmp_path / "out")["repositories"][0]["commits"] == 5


def test_number_of_workers_does_not_change_the_result(mirror, tmp_path):
    for name in ("own/a", "own/b"):
        history(mirror, name)
    names = ["own/a", "own/b", "own/none"]
    manifests = [commits.build(names, mirror, tmp_path / str(n), workers=n) for n in (1, 2)]
    assert manifests[0] == manifests[1]
    bytes_of = [[stream.file.read_bytes() for stream in commits.streams(tmp_path / str(n))] for n in (1, 2)]
    assert bytes_of[0] == bytes_of[1]


def test_unusable_repositories_are_reported_with_reasons(mirror, tmp_path):
    history(mirror)
    repository(mirror, "bad/licence").commit({"a.py": A})
    repository(mirror, "bad/one").commit({"LICENSE": MIT, "a.py": A})
    repository(mirror, "bad/empty")
    (mirror / "bad+broken" / "repo").mkdir(parents=True)
    names = ["own/a", "bad/licence", "bad/one", "bad/empty", "bad/broken", "bad/missing"]
    manifest = build(mirror, tmp_path / "out", *names)
    assert manifest["skipped"] == {
        "bad/licence": "no licence found",
        "bad/one": "fewer than two commits of Python",
        "bad/empty": "no commits",
        "bad/broken": "broken git folder",
        "bad/missing": "not found",
    }
    assert json.loads((tmp_path / "out" / "commits.json").read_text()) == manifest
    with pytest.raises(CorpusError, match="None of the 1 listed repositories has a usable history"):
        build(mirror, tmp_path / "other", "bad/one")


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"no zstd" + data])
def test_damaged_stream_raises(mirror, tmp_path, damage):
    history(mirror)
    build(mirror, tmp_path / "out")
    stream = only(tmp_path / "out")
    stream.file.write_bytes(damage(stream.file.read_bytes()))
    with pytest.raises(CorpusError, match="is damaged"):
        list(stream)
