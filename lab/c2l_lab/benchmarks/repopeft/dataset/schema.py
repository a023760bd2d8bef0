"""The rows of RepoPeftBench; fields are named like the published parquet columns.

`cross_repo_split` is train, cr_val, cr_test or ood_test; `in_repo_split` train, val or test. Tasks refer to
their commit by (repo_id, commit_sha).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Embedding = NDArray[np.float16]
Track = Literal["snapshots", "commits", "ood"]

SPLITS = ("train", "ir_val", "ir_test", "cr_val", "cr_test", "ood_test")
PER_COMMIT = 8
"""Only the first tasks of a commit, in row order, are scored."""

DATASETS: dict[Track, tuple[str, ...]] = {
    "snapshots": ("code2lora-data-snapshots", "code2lora-static"),
    "commits": ("code2lora-data-commits", "code2lora-evo"),
    "ood": ("code2lora-data-ood",),
}
"""The published names of a track; we write the first."""

_KEYS = ("repo_id", "cross_repo_split", "commit_index", "commit_sha")
_COUNTS = ("n_new_assertions", "n_added_assertions", "n_modified_assertions")
COMMITS: dict[Track, tuple[str, ...]] = {
    "snapshots": (*_KEYS, "commit_timestamp", "in_repo_split", *_COUNTS, "repo_state_embedding"),
    "commits": (
        *_KEYS, "commit_timestamp", "in_repo_split", "production_code_diff", *_COUNTS,
        "diff_embedding", "repo_state_embedding",
    ),
    "ood": (*_KEYS, "commit_timestamp", "in_repo_split", "production_code_diff", "n_new_assertions"),
}  # fmt: skip
QNA = (
    *_KEYS, "in_repo_split", "test_file", "lineno", "col_offset", "assertion_type", "test_function", "prefix", "target",
)  # fmt: skip
ANCHOR_QNA = (
    "repo_id", "commit_sha", "commit_index", "in_repo_split", "cross_repo_split", "test_file", "test_function",
    "assertion_type", "difficulty", "context_lines", "prefix", "target", "anchor_sha", "anchor_index", "qna_source",
)  # fmt: skip
"""Columns of the training tasks of the snapshots track, which are from one commit of each repository."""

COMMIT_NEEDS = frozenset({"repo_id", "commit_sha", "commit_index"})
TASK_NEEDS = frozenset({"repo_id", "commit_sha", "prefix", "target"})
"""The columns that every file of this benchmark has."""

EMBEDDINGS = frozenset({"repo_state_embedding", "diff_embedding"})
_LARGE = frozenset({"production_code_diff", "prefix"})
_NUMBERS = frozenset({"commit_index", "lineno", "col_offset", "context_lines", "anchor_index", *_COUNTS})


@dataclass(frozen=True)
class Commit:
    """A kept commit: one whose test files contain new assertions.

    `production_code_diff` runs from the kept commit before it (the first: from the empty tree). Embeddings are f16,
    usually [2048]; None where the dataset has none.
    """

    repo_id: str
    commit_sha: str
    commit_index: int
    cross_repo_split: str = ""
    commit_timestamp: str = ""
    in_repo_split: str = ""
    n_new_assertions: int = 0
    n_added_assertions: int = 0
    n_modified_assertions: int = 0
    production_code_diff: str | None = None
    repo_state_embedding: Embedding | None = None
    diff_embedding: Embedding | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The key that tasks refer to."""
        return self.repo_id, self.commit_sha


@dataclass(frozen=True)
class Task:
    """A test file's text up to an assertion's expected value (`prefix`), and that value (`target`)."""

    repo_id: str
    commit_sha: str
    prefix: str
    target: str
    cross_repo_split: str = ""
    commit_index: int = -1
    in_repo_split: str = ""
    test_file: str = ""
    test_function: str = ""
    assertion_type: str = ""
    lineno: int | None = None
    col_offset: int | None = None
    difficulty: str | None = None
    context_lines: int | None = None
    anchor_sha: str | None = None
    anchor_index: int | None = None
    qna_source: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The key of the commit."""
        return self.repo_id, self.commit_sha

    @property
    def id(self) -> str:
        """A digest of the task's content: 16 hexadecimal digits."""
        parts = (self.repo_id, self.commit_sha, self.test_file, self.assertion_type, self.prefix, self.target)
        digest = hashlib.blake2b(digest_size=8)
        for part in parts:
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()


def arrow(columns: tuple[str, ...]) -> Any:  # noqa: ANN401 - pyarrow has no types
    """The published arrow schema of some columns."""
    import pyarrow

    def kind(name: str) -> Any:  # noqa: ANN401 - as above
        if name in EMBEDDINGS:
            return pyarrow.list_(pyarrow.float16())
        if name in _NUMBERS:
            return pyarrow.int32()
        return pyarrow.large_string() if name in _LARGE else pyarrow.string()

    return pyarrow.schema([(name, kind(name)) for name in columns])
