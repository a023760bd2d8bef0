"""The built benchmark: published columns, splits, joins, resuming, and the manifest."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from c2l_lab.benchmarks.repopeft.dataset import build, schema
from c2l_lab.benchmarks.repopeft.dataset.source import open_dataset

from c2l_lsp.errors import CorpusError
from tests.support.repopeft_repositories import MIT, Repo, grow, suite

ASSIGN = {"own/train": "train", "own/val": "cr_val", "own/test": "cr_test"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict]:
    """A benchmark of three small repositories and one out of distribution."""
    folder = tmp_path_factory.mktemp("benchmark")
    for name, commits in (("own/train", 10), ("own/val", 3), ("own/test", 4), ("new/ood", 3)):
        repo = Repo(folder / "mirror", name)
        repo.commit({"LICENSE": MIT, "pkg/__init__.py": ""})
        grow(repo, commits)
    out = folder / "out"
    manifest = build.build(list(ASSIGN), folder / "mirror", out, ood=["new/ood"], assign=ASSIGN, workers=1)
    return folder / "mirror", out, manifest


def columns(file: Path) -> dict[str, str]:
    return {field.name: str(field.type).replace("element", "item") for field in pq.read_schema(file)}


def test_columns_and_types_are_the_published_ones(built):
    _, out, _ = built
    text, number, vector = "string", "int32", "list<item: halffloat>"
    keys = {"repo_id": text, "cross_repo_split": text, "commit_index": number, "commit_sha": text}
    head = {**keys, "commit_timestamp": text, "in_repo_split": text}
    counts = {"n_new_assertions": number, "n_added_assertions": number, "n_modified_assertions": number}
    qna = {
        **keys, "in_repo_split": text, "test_file": text, "lineno": number, "col_offset": number,
        "assertion_type": text, "test_function": text, "prefix": "large_string", "target": text,
    }  # fmt: skip
    anchored = {
        "repo_id": text, "commit_sha": text, "commit_index": number, "in_repo_split": text, "cross_repo_split": text,
        "test_file": text, "test_function": text, "assertion_type": text, "difficulty": text, "context_lines": number,
        "prefix": "large_string", "target": text, "anchor_sha": text, "anchor_index": number, "qna_source": text,
    }  # fmt: skip
    diff = {"production_code_diff": "large_string"}
    snapshots, commits = out / "code2lora-data-snapshots", out / "code2lora-data-commits"
    assert columns(snapshots / "commits" / "cr_test.parquet") == {**head, **counts, "repo_state_embedding": vector}
    assert columns(snapshots / "qna" / "train.parquet") == anchored
    assert columns(snapshots / "qna" / "ir_test.parquet") == qna
    assert columns(commits / "qna" / "train.parquet") == qna
    assert columns(commits / "commits" / "train.parquet") == {
        **head, **diff, **counts, "diff_embedding": vector, "repo_state_embedding": vector,
    }  # fmt: skip
    ood = out / "code2lora-data-ood"
    assert columns(ood / "commits.parquet") == {**head, **diff, "n_new_assertions": number}
    assert columns(ood / "qna.parquet") == qna


def test_every_split_has_its_tasks(built):
    _, out, manifest = built
    evolution, snapshots = open_dataset(out, "commits"), open_dataset(out, "snapshots")
    found = {split: [t.target for t in evolution.tasks(split)] for split in schema.SPLITS[:-1]}
    assert found == {
        "train": [f"value_{i}" for i in range(8)],
        "ir_val": ["value_8"],
        "ir_test": ["value_9"],
        "cr_val": ["value_0", "value_1", "value_2"],
        "cr_test": ["value_0", "value_1", "value_2", "value_3"],
    }
    for split in ("ir_val", "ir_test", "cr_val", "cr_test"):
        assert [t.id for t in snapshots.tasks(split)] == [t.id for t in evolution.tasks(split)]
    assert [t.target for t in snapshots.tasks("ood_test")] == ["value_0", "value_1", "value_2"]
    assert [t.id for t in open_dataset(out, "ood").tasks("ood_test")] == [t.id for t in snapshots.tasks("ood_test")]
    assert manifest["rows"]["commits/qna/train"] == 10  # in-repo validation and test lie within


def test_anchor_is_last_training_commit(built):
    _, out, _ = built
    snapshots = open_dataset(out, "snapshots")
    (anchor,) = snapshots.commits("train")
    tasks = list(snapshots.tasks("train"))
    assert anchor.commit_index == 7
    assert {(t.commit_sha, t.anchor_sha, t.anchor_index) for t in tasks} == {(anchor.commit_sha, anchor.commit_sha, 7)}
    assert len(tasks) == 5 and {t.target for t in tasks} < {f"value_{i}" for i in range(8)}  # five of one function
    assert {(t.difficulty, t.context_lines, t.qna_source) for t in tasks} >= {
        ("variable", 2 + int(tasks[0].target[6:]), "anchor")
    }


def test_tasks_refer_to_commits(built):
    _, out, _ = built
    for track, split in (("commits", "cr_test"), ("snapshots", "ir_val"), ("snapshots", "train"), ("ood", "ood_test")):
        steps = list(open_dataset(out, track).steps(split))
        assert steps
        for step in steps:
            assert step.commit is not None
            assert {task.key for task in step.tasks} == {step.commit.key}


def test_diffs_run_from_kept_commit_to_kept_commit(built):
    _, out, _ = built
    first, second, *_ = open_dataset(out, "commits").commits("cr_val", payload=True)
    assert (
        first.production_code_diff.startswith("diff --git a/pkg/__init__.py")
        and "+    return x + 0\n" in first.production_code_diff
    )
    assert "-    return x + 0\n+    return x + 1\n" in second.production_code_diff
    assert "test" not in first.production_code_diff
    assert next(open_dataset(out, "commits").commits("cr_val")).production_code_diff is None  # not read unasked


def test_manifest_is_complete(built):
    _, out, manifest = built
    assert manifest == build.manifest_of(out)
    about = next(item for item in manifest["repositories"] if item["repo_id"] == "own/train")
    assert (about["licence"], about["commits"], about["kept"], about["assertions"]) == ("MIT", 11, 10, 10)
    assert (about["scored"], about["trained"], about["anchor_tasks"], about["split"]) == (10, 8, 5, "train")
    assert len(about["commit"]) == 40


def test_second_build_reuses_files_and_is_byte_identical(built, monkeypatch):
    mirror, out, manifest = built
    files = {f: f.read_bytes() for f in out.rglob("*.parquet")}
    monkeypatch.setattr("c2l_lab.benchmarks.repopeft.dataset.walk.main_line", None)  # would fail if asked
    again = build.build(list(ASSIGN), mirror, out, ood=["new/ood"], assign=ASSIGN, workers=1)
    assert again == manifest
    assert {f: f.read_bytes() for f in out.rglob("*.parquet")} == files


def test_stopped_build_continues(tmp_path, mirror, monkeypatch):
    from c2l_lab.benchmarks.repopeft.dataset import repository

    for name in ("own/a", "own/b"):
        grow(Repo(mirror, name), 3)
    plain = build.build(["own/a", "own/b"], mirror, tmp_path / "plain", assign="cr_test", workers=1)
    whole = repository._write_anchor

    def stop(folder, kept, about, *rest):
        if about.name == "own/b":
            raise KeyboardInterrupt
        whole(folder, kept, about, *rest)

    monkeypatch.setattr(repository, "_write_anchor", stop)
    with pytest.raises(KeyboardInterrupt):
        build.build(["own/a", "own/b"], mirror, tmp_path / "cut", assign="cr_test", workers=1)
    assert [part.name for part in (tmp_path / "cut" / "parts").iterdir()] == ["own+a"]
    monkeypatch.undo()
    assert build.build(["own/a", "own/b"], mirror, tmp_path / "cut", assign="cr_test", workers=1) == plain


def test_number_of_workers_does_not_change_result(tmp_path, mirror):
    for name in ("own/a", "own/b", "own/c"):
        grow(Repo(mirror, name), 3)
    names = ["own/a", "own/b", "own/c", "own/none"]
    made = [build.build(names, mirror, tmp_path / str(n), assign="cr_val", workers=n) for n in (1, 3)]
    assert made[0] == made[1]
    files = [
        {f.relative_to(tmp_path / str(n)): f.read_bytes() for f in (tmp_path / str(n)).rglob("*.parquet")}
        for n in (1, 3)
    ]
    assert files[0] == files[1]


def test_new_commits_are_read(tmp_path, mirror):
    repo = Repo(mirror, "own/a")
    grow(repo, 3)
    assert build.build(["own/a"], mirror, tmp_path / "o", assign="cr_val", workers=1)["repositories"][0]["kept"] == 3
    grow(repo, 2, start=3)
    assert build.build(["own/a"], mirror, tmp_path / "o", assign="cr_val", workers=1)["repositories"][0]["kept"] == 5


def _bad(mirror: Path) -> list[str]:
    """One repository for each kind of unusable input."""
    one = Repo(mirror, "bad/one-commit")
    one.commit({"test_a.py": suite("assert a == 1")})
    Repo(mirror, "bad/empty")
    none = Repo(mirror, "bad/no-python")
    none.commit({"a.txt": "x"})
    none.commit({"a.txt": "y"})
    plain = Repo(mirror, "bad/no-tests")
    plain.commit({"a.py": "x = 1\n"})
    plain.commit({"a.py": "x = 2\n"})
    lazy = Repo(mirror, "bad/no-assertions")
    lazy.commit({"tests/test_a.py": "x = 1\n"})
    lazy.commit({"tests/test_a.py": "x = 2\n"})
    wrong = Repo(mirror, "bad/syntax")
    wrong.commit({"tests/test_a.py": "assert (:\n"})
    wrong.commit({"tests/test_a.py": "assert :)\n"})
    latin = Repo(mirror, "bad/latin")
    latin.commit({"tests/test_a.py": "assert 'ü' == x\n".encode("latin-1")})
    latin.commit({"tests/test_a.py": "assert 'ö' == x\n".encode("latin-1")})
    (mirror / "bad+broken" / "repo").mkdir(parents=True)
    (mirror / "bad+broken" / "repo" / "HEAD").write_text("ref: nowhere")
    merges = Repo(mirror, "odd/merges")
    merges.commit({"README.md": "x"})
    for number in range(3):
        merges.git("checkout", "-q", "-b", f"side{number}")
        merges.commit({f"test_{number}.py": suite(f"assert a == value_{number}", name=f"test_{number}")})
        merges.git("checkout", "-q", "main")
        merges.git("merge", "-q", "--no-ff", "-m", "merge", f"side{number}")
    moved = Repo(mirror, "odd/moved")
    grow(moved, 3)
    moved.git("mv", "tests", "test")
    moved.commit()
    moved.commit({"test/test_u.py": b"\xff", "test/test_s.py": b"def"})
    return [f"bad/{n}" for n in (
        "one-commit", "empty", "no-python", "no-tests", "no-assertions", "syntax", "latin", "broken", "missing"
    )] + ["odd/merges", "odd/moved"]  # fmt: skip


def test_bad_input_is_counted(tmp_path, mirror):
    manifest = build.build(_bad(mirror), mirror, tmp_path / "out", assign="cr_test", workers=1)
    assert manifest["skipped"] == {
        "bad/one-commit": "one commit",
        "bad/empty": "no commits",
        "bad/no-python": "no Python",
        "bad/no-tests": "no tests",
        "bad/no-assertions": "no assertions in its tests",
        "bad/syntax": "no test file that can be parsed",
        "bad/latin": "no test file that can be parsed",
        "bad/broken": "broken git folder",
        "bad/missing": "not found",
    }
    kept = {about["repo_id"]: (about["kept"], about["merges"]) for about in manifest["repositories"]}
    assert kept == {"odd/merges": (3, 3), "odd/moved": (3, 0)}
    reasons = Counter(manifest["reasons"])
    for reason in (
        "test file renamed",
        "test file not UTF-8",
        "test file with a syntax error",
        "main line of merges only",
    ):
        assert reasons[reason] == 1, reason
    assert reasons["no test file that can be parsed"] == 2
    assert str(tmp_path) not in json.dumps(manifest)


def test_parent_repository_is_not_used_for_missing_one(tmp_path):
    outer = Repo(tmp_path, "own/outer")
    grow(outer, 3)
    (outer.root / "mirror" / "bad+inner").mkdir(parents=True)
    grow(Repo(outer.root / "mirror", "own/good"), 3)
    names = ["bad/inner", "own/good"]
    manifest = build.build(names, outer.root / "mirror", tmp_path / "out", assign="cr_test", workers=1)
    assert manifest["skipped"] == {"bad/inner": "broken git folder"}


def test_error_explains_why_no_repository_is_usable(tmp_path, mirror):
    with pytest.raises(CorpusError, match=r"None of the 1 listed .* can be used: \{'not found': 1\}"):
        build.build(["no/where"], mirror, tmp_path / "out", workers=1)
    with pytest.raises(CorpusError, match="is on both lists"):
        build.build(["a/b"], mirror, tmp_path / "out", ood=["a/b"], workers=1)


def test_local_folder_is_named_after_itself(tmp_path, mirror):
    repo = Repo(mirror, "own/mine")
    grow(repo, 3)
    manifest = build.build([str(repo.root)], tmp_path, tmp_path / "out", assign="cr_test", workers=1)
    (about,) = manifest["repositories"]
    assert about["repo_id"].startswith("local/repo-")
    assert str(tmp_path) not in json.dumps(manifest)


def test_evaluation_takes_the_first_eight_of_a_commit(tmp_path, mirror):
    repo = Repo(mirror, "own/wide")
    repo.commit({"a.py": "x = 1\n"})
    repo.commit({"test_a.py": suite(*(f"assert f({i}) == value_{i}" for i in range(30)))})
    manifest = build.build(["own/wide"], mirror, tmp_path / "out", assign="cr_test", workers=1)
    tasks = list(open_dataset(tmp_path / "out", "commits").tasks("cr_test"))
    assert [task.target for task in tasks] == [f"value_{i}" for i in range(8)]
    assert manifest["repositories"][0]["assertions"] == 30
    assert next(open_dataset(tmp_path / "out", "commits").commits("cr_test")).n_new_assertions == 30


def test_training_tasks_are_capped_and_not_trivial(tmp_path, mirror):
    repo = Repo(mirror, "own/wide")
    repo.commit({"a.py": "x = 1\n"})
    slight = [f"assert g({i}) == {i}" for i in range(10)]
    repo.commit({"test_a.py": suite(*slight, *(f"assert f({i}) == value_{i}" for i in range(30)))})
    manifest = build.build(["own/wide"], mirror, tmp_path / "out", assign="train", workers=1)
    tasks = list(open_dataset(tmp_path / "out", "commits").tasks("train"))
    assert len(tasks) == 4 and all(task.target.startswith("value_") for task in tasks)
    assert manifest["repositories"][0]["trained"] == manifest["rows"]["commits/qna/train"] == 4
    anchored = list(open_dataset(tmp_path / "out", "snapshots").tasks("train"))
    assert len(anchored) == 5 and all(task.target.startswith("value_") for task in anchored)


def test_embeddings_are_written(tmp_path, mirror, tiny):
    from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder

    grow(Repo(mirror, "own/a"), 3)
    encoder = EmbeddingEncoder.of_base(tiny)
    build.build(["own/a"], mirror, tmp_path / "bare", assign="cr_test", workers=1)
    assert all(
        c.diff_embedding is None for c in open_dataset(tmp_path / "bare", "commits").commits("cr_test", payload=True)
    )
    build.build(["own/a"], mirror, tmp_path / "out", assign="cr_test", workers=1, encoder=encoder)
    found = list(open_dataset(tmp_path / "out", "commits").commits("cr_test", payload=True))
    texts = ["def f(x):\n    return x + 2\n", suite(*(f"assert f({i}) == value_{i}" for i in range(3)))]
    for made, expected in (
        (found[2].diff_embedding, encoder.diffs([found[2].production_code_diff])[0]),
        (found[2].repo_state_embedding, encoder.repository(texts)),
    ):
        assert made.dtype == np.float16 and made.shape == (128,)
        np.testing.assert_allclose(made, expected.numpy(), atol=2e-3)
    snapshot = list(open_dataset(tmp_path / "out", "snapshots").commits("cr_test", payload=True))
    np.testing.assert_array_equal(snapshot[2].repo_state_embedding, found[2].repo_state_embedding)
