"""Reading a fixture with the published columns under every name; its scores equal a manual computation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from c2l_lab.benchmarks.repopeft import run
from c2l_lab.benchmarks.repopeft.dataset import source
from c2l_lab.benchmarks.repopeft.dataset.source import download, open_dataset

from c2l_lsp.errors import CorpusError

TASKS = [  # repository, commit, in-repo split, prefix, target, prediction
    ("o/a", "c0", "train", "assert f(0) == ", "10", "10\nassert"),
    ("o/a", "c1", "val", "assert f(1) == ", "[1, 2]", "[1,2], 'why'"),
    ("o/a", "c2", "test", "assert f(2) == ", "None", "None or 1"),
    ("o/b", "c3", "train", "self.assertEqual(f(3), ", "30)", "30) # thirty"),
    ("o/b", "c4", "val", "assert f(4) == ", "abcd", "abxd"),
    ("o/b", "c5", "test", "assert f(5) == ", "5", "6"),
]


def qna(rows, cross):
    return pa.table({
        "repo_id": [r[0] for r in rows],
        "cross_repo_split": [cross] * len(rows),
        "commit_index": pa.array([int(r[1][1:]) for r in rows], pa.int32()),
        "commit_sha": [r[1] for r in rows],
        "in_repo_split": [r[2] for r in rows],
        "test_file": ["tests/test_a.py"] * len(rows),
        "lineno": pa.array([1] * len(rows), pa.int32()),
        "col_offset": pa.array([0] * len(rows), pa.int32()),
        "assertion_type": ["assert" if "assert " in r[3] else "self.assertEqual" for r in rows],
        "test_function": ["test_a"] * len(rows),
        "prefix": pa.array([r[3] for r in rows], pa.large_string()),
        "target": [r[4] for r in rows],
    })  # fmt: skip


def anchored(rows):
    size = len(rows)
    return pa.table({
        "repo_id": [r[0] for r in rows], "commit_sha": [r[1] for r in rows],
        "commit_index": pa.array([0] * size, pa.int32()), "in_repo_split": ["train"] * size,
        "cross_repo_split": ["train"] * size, "test_file": ["t.py"] * size, "test_function": ["test_a"] * size,
        "assertion_type": ["assert"] * size, "difficulty": ["collection"] * size,
        "context_lines": pa.array([3] * size, pa.int32()), "prefix": pa.array([r[3] for r in rows], pa.large_string()),
        "target": pa.array([r[4] for r in rows], pa.large_string()), "anchor_sha": [r[1] for r in rows],
        "anchor_index": pa.array([0] * size, pa.int32()), "qna_source": ["v2_extractor_at_anchor"] * size,
    })  # fmt: skip


def commits(rows, cross, *, diffs: bool):
    vectors = [np.full(2048, i, np.float16) for i in range(len(rows))]
    columns = {
        "repo_id": [r[0] for r in rows], "cross_repo_split": [cross] * len(rows),
        "commit_index": pa.array([int(r[1][1:]) for r in rows], pa.int32()), "commit_sha": [r[1] for r in rows],
        "commit_timestamp": ["2024-01-01T00:00:00+00:00"] * len(rows), "in_repo_split": [r[2] for r in rows],
        "n_new_assertions": pa.array([1] * len(rows), pa.int32()),
        "n_added_assertions": pa.array([1] * len(rows), pa.int32()),
        "n_modified_assertions": pa.array([0] * len(rows), pa.int32()),
        "repo_state_embedding": pa.array(vectors, pa.list_(pa.float16(), 2048)),
    }  # fmt: skip
    if diffs:
        columns["production_code_diff"] = pa.array([f"diff {r[1]}" for r in rows], pa.large_string())
        columns["diff_embedding"] = pa.array(vectors, pa.list_(pa.float16()))
    return pa.table(columns)


def write(file: Path, table) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=2)


def published(root: Path, names: tuple[str, str], train: str = "train") -> Path:
    """Both tracks and OOD: repository a is trained on, b is cr_test."""
    a, b = TASKS[:3], TASKS[3:]
    snapshots, evolution = root / names[0], root / names[1]
    for split, rows in (("ir_val", a[1:2]), ("ir_test", a[2:]), ("cr_test", b), ("cr_val", b[:0])):
        write(snapshots / "qna" / f"{split}.parquet", qna(rows, split))
        write(snapshots / "commits" / f"{split}.parquet", commits(rows, split, diffs=False))
    write(snapshots / "qna" / "train.parquet", anchored(a[:1]))
    write(snapshots / "commits" / "train.parquet", commits(a[:1], "train", diffs=False))
    for split, rows in ((train, a), ("cr_test", b)):
        write(evolution / "qna" / f"{split}.parquet", qna(rows, split))
        write(evolution / "commits" / f"{split}.parquet", commits(rows, split, diffs=True))
    write(root / "code2lora-data-ood" / "qna.parquet", qna(b, "ood_test"))
    flat = commits(b, "ood_test", diffs=True)
    gone = ["diff_embedding", "repo_state_embedding", "n_added_assertions", "n_modified_assertions"]
    write(root / "code2lora-data-ood" / "commits.parquet", flat.drop_columns(gone))
    return root


NAMES = [
    pytest.param(("code2lora-data-snapshots", "code2lora-data-commits"), "train", id="data names"),
    pytest.param(("code2lora-static", "code2lora-evo"), "cr_train", id="short names"),
]


@pytest.mark.parametrize(("names", "train"), NAMES)
def test_both_tracks_under_both_names(tmp_path, names, train):
    root = published(tmp_path, names, train)
    expected = {"train": ["10"], "ir_val": ["[1, 2]"], "ir_test": ["None"], "cr_test": ["30)", "abcd", "5"]}
    for track in ("snapshots", "commits"):
        data = open_dataset(root, track)
        assert {split: [t.target for t in data.tasks(split)] for split in expected} == expected
        assert [len(list(data.commits(split))) for split in expected] == [1, 1, 1, 3]
    assert open_dataset(root / names[0], "snapshots").folder == root / names[0]
    anchor = next(open_dataset(root, "snapshots").tasks("train"))
    assert (anchor.lineno, anchor.difficulty, anchor.context_lines, anchor.anchor_index) == (None, "collection", 3, 0)
    ood = open_dataset(root, "ood")
    assert [t.target for t in ood.tasks("ood_test")] == ["30)", "abcd", "5"]
    assert [c.production_code_diff for c in ood.commits("ood_test", payload=True)] == ["diff c3", "diff c4", "diff c5"]


@pytest.mark.parametrize(("names", "train"), NAMES)
def test_scores_to_the_digit(tmp_path, names, train):
    data = open_dataset(published(tmp_path, names, train), "commits")
    found = {t.id: p for t, p in zip([*data.tasks("cr_test")], [r[5] for r in TASKS[3:]], strict=True)}
    values = run.score(run.selected(data, "cr_test"), found, codebleu=False)
    # by hand: "30)" is right; "abxd" against "abcd" shares ab and d: 2·3/8; "6" against "5" shares nothing
    assert values == {"exact_match": {"o/b": [1.0, 0.0, 0.0]}, "edit_similarity": {"o/b": [1.0, 0.75, 0.0]}}
    rows = {row.name: row.value for row in run.rows(values, "m", "cr_test", strict=False)}
    assert rows["exact_match/cr_test"] == 1 / 3
    assert rows["edit_similarity/cr_test"] == 1.75 / 3
    inside = {t.id: r[5] for split, r in (("ir_val", TASKS[1]), ("ir_test", TASKS[2])) for t in data.tasks(split)}
    # published: the reference has a comma, so the prediction keeps its second value, and "[1,2], 'why'" is wrong:
    # against "[1, 2]" it shares "[1," and "2]", 2·5/(12+6); "None or 1" is cut to the reference's one word
    assert run.score(run.selected(data, "ir_val"), inside, codebleu=False) == {
        "exact_match": {"o/a": [0.0]}, "edit_similarity": {"o/a": [10 / 18]},
    }  # fmt: skip
    assert run.score(run.selected(data, "ir_test"), inside, codebleu=False)["exact_match"] == {"o/a": [1.0]}
    # strict: the message goes by the comma outside brackets, and "None or 1" stays what it is; spacing does not count
    assert run.score(run.selected(data, "ir_val"), inside, strict=True, codebleu=False)["exact_match"] == {"o/a": [1.0]}
    assert run.score(run.selected(data, "ir_test"), inside, strict=True, codebleu=False)["exact_match"] == {
        "o/a": [0.0]
    }


def test_payload_is_typed_and_read_on_demand(tmp_path):
    data = open_dataset(published(tmp_path, ("code2lora-static", "code2lora-evo")), "commits")
    light, heavy = (list(data.commits("cr_test", payload=payload)) for payload in (False, True))
    assert all(c.diff_embedding is None and c.production_code_diff is None for c in light)
    for number, commit in enumerate(heavy):
        for vector in (commit.diff_embedding, commit.repo_state_embedding):
            assert vector.dtype == np.float16 and vector.shape == (2048,) and set(vector) == {number}


def test_sharded_files_are_read_in_order(tmp_path):
    for i, row in enumerate(TASKS[:3]):
        write(tmp_path / "qna" / f"cr_test-{i:05d}-of-00003.parquet", qna([row], "cr_test"))
    assert [t.target for t in open_dataset(tmp_path, "commits").tasks("cr_test")] == ["10", "[1, 2]", "None"]


def test_tasks_of_unlisted_commits_keep_their_place(tmp_path):
    write(tmp_path / "qna" / "cr_test.parquet", qna(TASKS[3:], "cr_test"))
    write(tmp_path / "commits" / "cr_test.parquet", commits(TASKS[3:5], "cr_test", diffs=False))
    steps = list(open_dataset(tmp_path, "snapshots").steps("cr_test"))
    assert [step.commit is None for step in steps] == [False, False, True]


def test_first_eight_of_a_commit_are_scored(tmp_path):
    rows = [("o/a", f"c{i // 12}", "test", f"assert f({i}) == ", str(i), "") for i in range(24)]
    write(tmp_path / "qna" / "cr_test.parquet", qna(rows, "cr_test"))
    write(tmp_path / "commits" / "cr_test.parquet", commits(rows[::12], "cr_test", diffs=False))
    data = open_dataset(tmp_path, "snapshots")
    assert [[t.target for t in s.tasks] for s in data.steps("cr_test")] == [
        [str(i) for i in range(8)], [str(i) for i in range(12, 20)],
    ]  # fmt: skip
    assert [len(s.tasks) for s in run.selected(data, "cr_test", most=11)] == [8, 3]
    assert len(list(data.tasks("cr_test"))) == 24


def test_reading_streams(tmp_path):
    """Rows are streamed: the first row is returned without reading all row groups."""
    file = tmp_path / "qna" / "cr_test.parquet"
    write(file, qna([("o/a", f"c{i}", "test", "x" * 1000, str(i), "") for i in range(4000)], "cr_test"))
    tasks = open_dataset(tmp_path, "snapshots").tasks("cr_test")
    before = pa.total_allocated_bytes()
    assert next(tasks).target == "0"
    assert pa.total_allocated_bytes() - before < 1_000_000


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "has no RepoPeftBench data"),
        (
            lambda root: write(root / "qna" / "cr_test.parquet", pa.table({"a": [1]})),
            "has no column commit_sha, prefix",
        ),
        (lambda root: (root / "qna").mkdir(), "has no qna of the split cr_test"),
    ],
)
def test_wrong_folder_is_reported(tmp_path, make, words):
    make(tmp_path)
    with pytest.raises(CorpusError, match=words):
        list(open_dataset(tmp_path, "snapshots").tasks("cr_test"))


def test_truncated_file_is_reported(tmp_path):
    file = tmp_path / "qna" / "cr_test.parquet"
    write(file, qna(TASKS, "cr_test"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CorpusError, match="cannot be read as parquet"):
        list(open_dataset(tmp_path, "snapshots").tasks("cr_test"))


def test_unknown_split_is_reported(tmp_path):
    (tmp_path / "qna").mkdir()
    with pytest.raises(CorpusError, match=r"Unknown split dev\. Known splits: train, ir_val"):
        list(open_dataset(tmp_path, "snapshots").tasks("dev"))


def test_folder_of_other_track_is_rejected(tmp_path):
    root = published(tmp_path, ("code2lora-static", "code2lora-evo"))
    with pytest.raises(CorpusError, match="snapshots track"):
        open_dataset(root / "code2lora-evo", "snapshots")


def test_unreachable_hub_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(CorpusError, match="code2lora/code2lora-data-commits or code2lora/code2lora-evo cannot be had"):
        download("commits", "cr_test", offline=True)


def test_hub_downloads_only_the_split_and_tries_both_names(tmp_path, monkeypatch):
    asked = []

    def snapshot_download(repo_id, **options):
        asked.append((repo_id, options["repo_type"], sorted(options["allow_patterns"])))
        if repo_id.endswith("data-commits"):
            raise OSError("not there")
        return str(published(tmp_path, ("code2lora-static", "code2lora-evo")) / "code2lora-evo")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    data = download("commits", "ir_val")
    assert [t.target for t in data.tasks("ir_val")] == ["[1, 2]"]
    patterns = sorted(
        f"*/{name}{end}" for name in ("ir_val", "train", "cr_train") for end in (".parquet", "-*.parquet")
    )
    assert asked == [(f"code2lora/{name}", "dataset", patterns) for name in source.DATASETS["commits"]]
