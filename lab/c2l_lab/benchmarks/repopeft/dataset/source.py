"""Reads RepoPeftBench, published or built here, from a folder or from the Hub.

A folder is one dataset, or contains datasets under any of their names. A split is `SPLIT.parquet` or `SPLIT-*.parquet`;
the training split may be called train or cr_train. In a track without ir_val and ir_test files, train
contains them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from c2l_lab.benchmarks.repopeft.dataset import parquet, schema, splits
from c2l_lab.benchmarks.repopeft.dataset.schema import DATASETS, PER_COMMIT, SPLITS, Commit, Task, Track
from c2l_lsp.errors import CorpusError

OWNER = "code2lora"
_ALSO = {"train": ("train", "cr_train"), "ood_test": ("ood_test", "test")}
_IN_TRAIN = {"train": "train", "ir_val": "val", "ir_test": "test"}
_ENDS = (".parquet", "-*.parquet")
Row = TypeVar("Row", Commit, Task)


@dataclass(frozen=True)
class Step:
    """A commit with its tasks; `commit` is None if the dataset does not list the commit."""

    commit: Commit | None
    tasks: list[Task]


class Dataset:
    """One track in a folder."""

    def __init__(self, folder: Path, track: Track) -> None:
        self.folder, self.track = folder, track

    def commits(self, split: str, *, payload: bool = False) -> Iterator[Commit]:
        """The commits of a split, in file order. The large diffs and embeddings are read only with `payload`."""
        left_out = frozenset() if payload else schema.EMBEDDINGS | {"production_code_diff"}
        yield from self._rows(Commit, "commits", split, schema.COMMIT_NEEDS, left_out)

    def tasks(self, split: str, per_commit: int | None = None) -> Iterator[Task]:
        """The tasks of a split, in file order; the first `per_commit` of each commit."""
        found = self._rows(Task, "qna", split, schema.TASK_NEEDS, frozenset())
        yield from found if per_commit is None else splits.first(found, lambda task: task.key, per_commit)

    def steps(self, split: str, per_commit: int | None = PER_COMMIT) -> Iterator[Step]:
        """Tasks joined with their commits. Only the commits, without payload, are held in memory."""
        listed = {commit.key: commit for commit in self.commits(split)}
        for key, tasks in groupby(self.tasks(split, per_commit), lambda task: task.key):
            yield Step(listed.get(key), list(tasks))

    def _rows(
        self, kind: type[Row], config: str, split: str, needs: frozenset[str], left_out: frozenset[str]
    ) -> Iterator[Row]:
        names = {item.name for item in dataclasses.fields(kind)}
        files, inside = self._files(config, split)
        for file in files:
            held = set(parquet.columns_of(file))
            if missing := sorted(needs - held):
                raise CorpusError(f"{file} is not a file of RepoPeftBench: it has no column {', '.join(missing)}.")
            for row in parquet.rows(file, sorted(held & names - left_out)):
                if inside is None or row.get("in_repo_split") == inside:
                    yield _row(kind, row)

    def _files(self, config: str, split: str) -> tuple[list[Path], str | None]:
        """The files of a split, and the in-repo split to select from them (None: all)."""
        if split not in SPLITS:
            raise CorpusError(f"Unknown split {split}. Known splits: {', '.join(SPLITS)}.")
        for name in _ALSO.get(split, (split,)):
            if found := self._named(config, name):
                return found, "train" if split == "train" and self.track == "commits" else None
        if split in _IN_TRAIN:
            for name in _ALSO["train"]:
                if found := self._named(config, name):
                    return found, _IN_TRAIN[split]
        raise CorpusError(f"{self.folder} has no {config} of the split {split}.")

    def _named(self, config: str, split: str) -> list[Path]:
        folder = self.folder / config
        found = [folder / f"{split}.parquet"] if (folder / f"{split}.parquet").is_file() else []
        found = found or sorted(folder.glob(f"{split}-*.parquet"))
        if not found and split == "ood_test" and (self.folder / f"{config}.parquet").is_file():
            return [self.folder / f"{config}.parquet"]
        return found


def open_dataset(where: str | Path, track: Track) -> Dataset:
    """A track in a local folder. CorpusError if it is not there."""
    root = Path(where).expanduser()
    others = {name for other, known in DATASETS.items() if other != track for name in known}
    for folder in (*(root / name for name in DATASETS[track]), root):
        if _is_dataset(folder) and folder.name not in others:
            return Dataset(folder, track)
    names = " or ".join(DATASETS[track])
    raise CorpusError(f"{root} has no RepoPeftBench data of the {track} track ({names}).")


def download(track: Track, split: str, into: Path | None = None, *, offline: bool = False) -> Dataset:
    """Download the files of one split of a track from the Hub (up to GBs), under any of its names.

    CorpusError if that fails, with what to do instead.
    """
    import huggingface_hub
    from huggingface_hub import errors

    problem: Exception | None = None
    for name in DATASETS[track]:
        try:
            folder = huggingface_hub.snapshot_download(
                f"{OWNER}/{name}",
                repo_type="dataset",
                local_dir=into / name if into else None,
                local_files_only=offline or huggingface_hub.is_offline_mode(),
                allow_patterns=_patterns(track, split),
            )
        except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError, ValueError) as error:
            problem = error
            continue
        return open_dataset(folder, track)
    names = " or ".join(f"{OWNER}/{name}" for name in DATASETS[track])
    first = (str(problem).strip() or type(problem).__name__).splitlines()[0][:200]
    raise CorpusError(
        f"The dataset {names} cannot be had ({first}): go online, or name a folder that holds it, "
        "or build the same with `c2l-lab bench repopeft build`."
    )


def _patterns(track: Track, split: str) -> list[str]:
    """Whether a file of a dataset may contain a split."""
    names = {*_ALSO.get(split, (split,)), *(_ALSO["train"] if split in _IN_TRAIN else ())}
    return ["*.parquet"] if track == "ood" else [f"*/{name}{end}" for name in sorted(names) for end in _ENDS]


def _is_dataset(folder: Path) -> bool:
    configs = ("commits", "qna")
    return any((folder / c).is_dir() or (folder / f"{c}.parquet").is_file() for c in configs)


def _row(kind: type[Row], cells: dict[str, Any]) -> Row:
    """A typed row; a null cell gets the default of its field."""
    return kind(**{name: value for name, value in cells.items() if value is not None})
