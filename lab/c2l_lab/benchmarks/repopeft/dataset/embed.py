"""The embedding columns of a built benchmark, for training `static` and `evo`.

There is one file beside each repository's part, named after the encoder. It is written again when the part changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from c2l_lab.benchmarks.repopeft.dataset.parquet import Table, rows
from c2l_lab.benchmarks.repopeft.dataset.repository import Repository, part_of
from c2l_lab.corpus.commit_stream import locate_repository
from c2l_lsp.repo.history import git_history

if TYPE_CHECKING:
    import torch

    from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder

_COLUMNS = ("commit_index", "diff_embedding", "repo_state_embedding")


def file_of(part: Path, digest: str) -> Path:
    """The file of a part's embeddings by one encoder."""
    return part / f"embeddings-{hashlib.sha256(digest.encode()).hexdigest()[:12]}.parquet"


def embed(
    abouts: list[Repository],
    mirror: Path,
    out: Path,
    encoder: EmbeddingEncoder,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Embed diff and state of every kept commit. Finished repositories are skipped."""
    for number, about in enumerate(abouts):
        target = file_of(part_of(about.name, out), encoder.digest)
        if not target.exists():
            _embed(locate_repository(about.name, mirror), part_of(about.name, out), target, encoder)
        progress(number + 1, len(abouts))


def of_part(part: Path, digest: str) -> dict[int, dict[str, Any]]:
    """commit_index → the embedding cells of a part; empty if there are none."""
    file = file_of(part, digest)
    return {row["commit_index"]: row for row in rows(file)} if digest and file.exists() else {}


def _embed(folder: Path, part: Path, target: Path, encoder: EmbeddingEncoder) -> None:
    vectors: dict[bytes, torch.Tensor] = {}
    with Table(target, _COLUMNS) as table:
        for row in rows(part / "commits.parquet", ("commit_index", "commit_sha", "production_code_diff")):
            diff = encoder.diffs([row["production_code_diff"]])[0]
            texts = _state(folder, row["commit_sha"])
            state = encoder.repository(texts, vectors)
            cells = {"diff_embedding": diff.numpy(), "repo_state_embedding": state.numpy()}
            table.add({"commit_index": row["commit_index"], **cells})


def _state(folder: Path, sha: str) -> list[str]:
    """The texts of a commit's Python files, tests included, as in the published state embeddings."""
    files = {path: blob for path, blob in git_history.tree(folder, sha).items() if path.endswith(".py")}
    found = (data for _, data in git_history.blobs(folder, files.values()))
    return [data.decode("utf-8", "replace") for data in found if data]
