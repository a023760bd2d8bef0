"""Builds all three published datasets from a list of git repositories, with a manifest.

    OUT/parts/OWNER+NAME/                      one repository (the unit of resuming), see `repository`
    OUT/code2lora-data-snapshots/{commits,qna}/SPLIT.parquet
    OUT/code2lora-data-commits/{commits,qna}/SPLIT.parquet
    OUT/code2lora-data-ood/{commits,qna}.parquet        when a list of such repositories is given
    OUT/manifest.json

The same command continues after a stop; a repository is not read again at the same commit. Tasks that are neither among
the first eight of their commit nor chosen for training are counted but not written.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from c2l_lab.benchmarks.repopeft.dataset import embed, schema, splits
from c2l_lab.benchmarks.repopeft.dataset.parquet import Table, rows
from c2l_lab.benchmarks.repopeft.dataset.repository import RULES, Repository, part_of, read_repository
from c2l_lsp.errors import CorpusError

if TYPE_CHECKING:
    from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder

Progress = Callable[[int, int], None]


def build(
    names: Sequence[str],
    mirror: Path,
    out: Path,
    *,
    ood: Sequence[str] = (),
    assign: Mapping[str, str] | str = "auto",
    workers: int = 2,
    encoder: EmbeddingEncoder | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Build or update the benchmark of `names` and `ood` in `out`; returns the manifest.

    `assign`: the split of each repository (by list entry), or one for all, or "auto" to draw it from each name.
    Raises CorpusError: a name on both lists, no usable repository, a full disk.
    """
    if both := sorted(set(names) & set(ood)):
        raise CorpusError(f"{both[0]} is on both lists. Remove it from one of them.")
    everything = [*names, *ood]
    (out / "parts").mkdir(parents=True, exist_ok=True)
    done = _read_all(everything, mirror, out, workers, progress)
    used = [done[name] for name in everything if not done[name].skipped]
    if not used:
        reasons = dict(Counter(about.skipped for about in done.values()))
        raise CorpusError(f"None of the {len(everything)} listed repositories can be used: {reasons}.")
    if encoder is not None:
        embed.embed(used, mirror, out, encoder, progress)
    of_repositories = dict.fromkeys(ood, "ood_test") | {name: _split(name, assign) for name in names}
    written = _assemble(used, of_repositories, out, encoder.digest if encoder else "", bool(ood))
    manifest = _manifest(done, everything, of_repositories, written, encoder.digest if encoder else "")
    _write(out / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    return manifest


def manifest_of(out: Path) -> dict[str, Any]:
    """The manifest of a built benchmark. CorpusError if there is none."""
    try:
        return dict(json.loads((out / "manifest.json").read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{out} contains no benchmark. Run `c2l-lab bench repopeft build` first.") from error


def _split(name: str, assign: Mapping[str, str] | str) -> str:
    given = assign if isinstance(assign, str) else assign.get(name, "auto")
    return splits.across(name) if given == "auto" else given


def _read_all(names: Sequence[str], mirror: Path, out: Path, workers: int, progress: Progress) -> dict[str, Repository]:
    done: dict[str, Repository] = {}
    if workers <= 1:
        for name in names:
            done[name] = read_repository(name, mirror, out)
            progress(len(done), len(names))
        return done
    with ProcessPoolExecutor(workers) as pool:
        waiting = {pool.submit(read_repository, name, mirror, out): name for name in names}
        for future in as_completed(waiting):
            done[waiting[future]] = future.result()
            progress(len(done), len(names))
    return done


class _Files:
    """The open parquet files of all tracks."""

    def __init__(self, out: Path, stack: ExitStack, with_ood: bool) -> None:
        self._tables: dict[str, Table] = {}
        for track, kind, split, columns in _layout(with_ood):
            folder = out / schema.DATASETS[track][0]
            file = folder / f"{kind}.parquet" if track == "ood" else folder / kind / f"{split}.parquet"
            name = f"{track}/{kind}/{split}"
            self._tables[name] = stack.enter_context(Table(file, columns))

    def add(self, name: str, row: Mapping[str, Any]) -> None:
        """Append a row to `track/kind/split` if the track has that file."""
        table = self._tables.get(name)
        if table is not None:
            table.add(row)

    @property
    def counts(self) -> dict[str, int]:
        """The number of rows of each file."""
        return {name: table.count for name, table in self._tables.items()}


def _layout(with_ood: bool) -> Iterator[tuple[schema.Track, str, str, tuple[str, ...]]]:
    for split in ("train", "ir_val", "ir_test", "cr_val", "cr_test"):
        yield "snapshots", "commits", split, schema.COMMITS["snapshots"]
        yield "snapshots", "qna", split, schema.ANCHOR_QNA if split == "train" else schema.QNA
    for split in ("train", "cr_val", "cr_test"):
        yield "commits", "commits", split, schema.COMMITS["commits"]
        yield "commits", "qna", split, schema.QNA
    if with_ood:
        yield "snapshots", "qna", "ood_test", schema.QNA
        yield "ood", "commits", "ood_test", schema.COMMITS["ood"]
        yield "ood", "qna", "ood_test", schema.QNA


def _assemble(
    used: Sequence[Repository], of_repositories: Mapping[str, str], out: Path, digest: str, with_ood: bool
) -> dict[str, int]:
    with ExitStack() as stack:
        files = _Files(out, stack, with_ood)
        for about in used:
            part, cross = part_of(about.name, out), of_repositories[about.name]
            in_repo = _add_commits(part, cross, files, embed.of_part(part, digest))
            _add_tasks(part, cross, files, in_repo)
            if cross == "train":
                for row in rows(part / "anchor.parquet"):
                    files.add("snapshots/qna/train", row | {"cross_repo_split": cross})
        return files.counts


def _add_commits(part: Path, cross: str, files: _Files, embedded: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """Write a part's commits; returns the in-repo split of each."""
    in_repo: list[str] = []
    anchor: dict[str, Any] | None = None
    for row in rows(part / "commits.parquet"):
        row |= {"cross_repo_split": cross, **embedded.get(row["commit_index"], {})}
        in_repo.append(row["in_repo_split"])
        files.add(f"commits/commits/{cross}", row)
        files.add(f"ood/commits/{cross}", row)
        if cross != "train":
            files.add(f"snapshots/commits/{cross}", row)
        elif row["in_repo_split"] == "train":
            anchor = row
        else:
            files.add(f"snapshots/commits/ir_{row['in_repo_split']}", row)
    if anchor is not None:
        files.add("snapshots/commits/train", anchor)
    return in_repo


def _add_tasks(part: Path, cross: str, files: _Files, in_repo: Sequence[str]) -> None:
    for row in rows(part / "qna.parquet"):
        split = in_repo[row["commit_index"]]
        row |= {"cross_repo_split": cross, "in_repo_split": split}
        if cross == "train" and split == "train":
            if row["trained"]:
                files.add("commits/qna/train", row)
        elif row["scored"]:
            files.add(f"commits/qna/{cross}", row)
            files.add(f"ood/qna/{cross}", row)
            files.add(f"snapshots/qna/{f'ir_{split}' if cross == 'train' else cross}", row)


def _manifest(
    done: Mapping[str, Repository],
    names: Sequence[str],
    of_repositories: Mapping[str, str],
    written: Mapping[str, int],
    digest: str,
) -> dict[str, Any]:
    reasons: Counter[str] = Counter()
    for about in done.values():
        reasons.update(about.skips if not about.skipped else {about.skipped: 1})
    listed = [done[name] for name in names if not done[name].skipped]
    # The manifest is published with the data, so it names no local folder.
    return {
        "rules": RULES,
        "python": ".".join(platform.python_version_tuple()[:2]),  # its grammar determines which files can be parsed
        "encoder": digest,
        "rows": dict(written),
        "repositories": [
            {**asdict(about), "name": about.repo_id, "split": of_repositories[about.name]} for about in listed
        ],
        "skipped": {done[name].repo_id: done[name].skipped for name in names if done[name].skipped},
        "reasons": dict(sorted(reasons.items())),
    }


def _write(file: Path, text: str) -> None:
    part = file.with_name(file.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    except OSError as error:
        raise CorpusError(f"{file} cannot be written ({error.strerror}). Free some space and run it again.") from error
