"""Training data of a hypernetwork: embeddings of repositories, cached in the folder of the run, and windows to predict.

A state must not contain what it is scored on. For `static` and `text2lora` the file of the target and its
near-duplicates are left out of the pooled files. For `evo` some files of a repository are in no snapshot and no diff.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from c2l_lab.corpus.corpus import Document
from c2l_lab.corpus.dedup import signature
from c2l_lab.train.hypernet.text2lora import describe
from c2l_lsp.errors import CheckpointError, TrainingError
from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder
from c2l_lsp.model.lm.base import BaseModel

Report = Callable[[str], None]
"""Called with a line of progress."""

NEAR = 0.5
"""Jaccard similarity (estimated, of 5-token shingles) from which a file counts as a near-duplicate of another."""

_SHARD = 20  # repositories per cache file


@dataclass(frozen=True)
class Sizes:
    """How much of each repository is embedded and predicted. The repr names the cache."""

    repositories: int = 160
    files: int = 10
    chars: int = 6400  # per file, about 1,800 tokens
    windows: int = 3  # per file
    window: int = 512  # tokens
    commits: int = 7  # `evo` only: diffs of a repository
    diff_chars: int = 8000
    changed: int = 6  # `evo` only: held-out files of a diff that are predicted

    @property
    def name(self) -> str:
        """Hash of the sizes, part of the name of the cache."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Repo:
    """One repository with F files, W windows and T diffs (T = 0 except for `evo`).

    | field | shape | content |
    |---|---|---|
    | files | [F, hidden] fp32 | file vectors |
    | near | [F, F] bool | near[i, j]: file j must not be in a state that is scored on file i |
    | ids | [W, window + 1] int32 | windows to predict |
    | owner | [W] int32 | the file of each window; for `evo` the number of diffs up to the window's commit |
    | diffs | [T, 2·hidden] fp32 | diff embeddings, oldest first |
    """

    name: str
    files: Tensor
    near: Tensor
    ids: Tensor
    owner: Tensor
    diffs: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by their names in a cache file."""
        fields = ("files", "near", "ids", "owner", "diffs")
        return {f"{self.name}\t{field}": getattr(self, field).contiguous() for field in fields}


Make = Callable[[str, list[Document]], "Repo | None"]
"""(name, documents) → the repository as training data; None if it has too little text."""


def prepare(
    folder: Path, name: str, documents: Iterable[Document], make: Make, sizes: Sizes, report: Report
) -> list[Repo]:
    """The repositories of a corpus, from the cache files `folder/name-….safetensors`; missing ones are computed.

    Repositories are taken in the order of a hash of their names, so a larger number includes a smaller one. Raises
    TrainingError if no repository is usable.
    """
    by_name: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        by_name[document.repo].append(document)
    order = sorted(by_name, key=rank)[: sizes.repositories]
    found: list[Repo] = []
    for start in range(0, len(order), _SHARD):
        part = order[start : start + _SHARD]
        file = folder / f"{name}-{sizes.name}-{_key(part)}.safetensors"
        if not file.is_file():
            made = [repo for one in part if (repo := make(one, by_name[one])) is not None]
            _write(file, made)
        found += _read(file)
        report(f"{name}: {min(start + _SHARD, len(order))} of {len(order)} repositories, {len(found)} usable")
    if not found:
        raise TrainingError(f"No repository of the {name} corpus has enough text to train a hypernetwork.")
    return found


def pooled_maker(model: BaseModel, encoder: EmbeddingEncoder, sizes: Sizes, *, described: bool, held_out: bool) -> Make:
    """For `static`, or for `text2lora` with `described`. With `held_out` only a third of the files is predicted."""

    def make(name: str, documents: list[Document]) -> Repo | None:
        ordered = sorted(documents, key=lambda d: rank(d.path))[: sizes.files]
        texts = [document.text[: sizes.chars] for document in ordered]
        if len(texts) < 4:
            return None
        signatures = np.stack([signature(text) for text in texts])
        near = (signatures[:, None] == signatures[None]).mean(-1) >= NEAR
        predicted = range(max(1, len(texts) // 3)) if held_out else range(len(texts))
        rows = [(index, row) for index in predicted for row in windows(model, texts[index], sizes)]
        if not rows:
            return None
        vectors = encoder.files([describe(text) if described else text for text in texts])
        return Repo(
            name,
            vectors,
            torch.from_numpy(near),
            torch.tensor([row for _, row in rows], dtype=torch.int32),
            torch.tensor([index for index, _ in rows], dtype=torch.int32),
            torch.zeros(0, 2 * encoder.hidden),
        )

    return make


def windows(model: BaseModel, text: str, sizes: Sizes) -> list[list[int]]:
    """Windows of `window` + 1 tokens, evenly from all parts of a text; the first one begins with the start token."""
    ids = [model.start_id, *model.encode(text)]
    last = len(ids) - sizes.window - 1
    if last < 0:
        return []
    count = min(sizes.windows, 1 + last // sizes.window)
    starts = [round(last * number / max(1, count - 1)) for number in range(count)]
    return [ids[begin : begin + sizes.window + 1] for begin in starts]


def rank(name: str) -> bytes:
    """Sort key of a name: its hash, an order that is unbiased and the same on every machine."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _key(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:10]


def _write(file: Path, repositories: Sequence[Repo]) -> None:
    part = file.with_suffix(".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor for repo in repositories for name, tensor in repo.tensors().items()}, part)
        part.replace(file)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise TrainingError(f"{file} cannot be written ({error}); free some space and try again.") from error


def _read(file: Path) -> list[Repo]:
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"The embeddings in {file} cannot be read ({error}); delete the file.") from error
    names = sorted({name.split("\t")[0] for name in tensors}, key=rank)
    fields = ("files", "near", "ids", "owner", "diffs")
    return [Repo(name, *(tensors[f"{name}\t{field}"] for field in fields)) for name in names]
