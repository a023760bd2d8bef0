"""What one update of a workspace's state consists of: which files changed, which chunks come and go.

`plan` compares the files with what the state stands for, `to_change` turns a plan and the embeddings of its chunks into
the hypernetwork's input, and `PendingUpdate` carries it to the batched update. Functions that may take long are
generators of short slices: the scheduler runs one slice, serves a waiting completion, and runs the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from c2l_lsp.cooperative import Slices
from c2l_lsp.model.hypernet.encoder import in_diff
from c2l_lsp.model.hypernet.protocol import Chunk, ChunkEmbedding, Hypernetwork, RepoState, StateChange
from c2l_lsp.repo.filter.files import FileFilter
from c2l_lsp.repo.history.patch import unified_diff
from c2l_lsp.repo.history.snapshot import Entry, Snapshot

SLICE_S = 0.02
"""Target length of a slice of adapter work in seconds: the longest a completion waits for one."""


@dataclass(frozen=True)
class FileRecord:
    """A file that the state contains: its snapshot entry and the keys of its chunks, with repetitions."""

    entry: Entry
    keys: tuple[bytes, ...]


Rows = dict[str, tuple[bytes, int, int, list[bytes]]]
"""File records in their form on disk: path → (digest, size in bytes, mtime in ns, chunk keys)."""


def to_rows(records: Mapping[str, FileRecord]) -> Rows:
    """Return file records in their form on disk."""
    return {path: (r.entry.digest, r.entry.size, r.entry.mtime_ns, list(r.keys)) for path, r in records.items()}


def from_rows(rows: Rows) -> dict[str, FileRecord]:
    """Return the file records that `to_rows` wrote."""
    return {
        path: FileRecord(Entry(digest, size, mtime), tuple(keys)) for path, (digest, size, mtime, keys) in rows.items()
    }


@dataclass
class UpdatePlan:
    """The difference between the state and the files. `added` and `removed` count chunk keys.

    `new_chunks` are the chunks of changed files by key, `texts` the new text of every changed file (only for
    hypernetworks that read diffs), `paths` every file that changed, appeared or disappeared. `first` marks the plan
    that builds the state from nothing.
    """

    records: dict[str, FileRecord]
    added: Counter[bytes]
    removed: Counter[bytes]
    new_chunks: dict[bytes, Chunk] = field(default_factory=dict)
    changed_files: int = 0
    first: bool = False
    texts: dict[str, str] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)

    def largest(self, most: int) -> list[str]:
        """Return at most `most` changed files, largest first, to be shown to the user."""
        sizes = {path: self.records[path].entry.size if path in self.records else 0 for path in self.paths}
        return sorted(sizes, key=lambda path: (-sizes[path], path))[:most]

    @property
    def new_texts(self) -> dict[bytes, str]:
        """The new text of each changed file, by its digest."""
        return {self.records[path].entry.digest: text for path, text in self.texts.items()}

    @property
    def digests(self) -> set[bytes]:
        """The digests of all files of the plan."""
        return {record.entry.digest for record in self.records.values()}

    @property
    def empty(self) -> bool:
        """Whether the state stays as it is."""
        return not self.added and not self.removed

    @property
    def changed_chunks(self) -> int:
        """The number of chunks added and removed."""
        return sum(self.added.values()) + sum(self.removed.values())


@dataclass
class PendingUpdate:
    """An update that waits for the batched call: the state it starts from, and the change to apply.

    `trigger` and `ms` (milliseconds by stage) are reported with the new generation. `history_key` names the resulting
    state if it is that of a git commit: the working tree is then compared next.
    """

    network: Hypernetwork
    state: RepoState
    change: StateChange
    plan: UpdatePlan
    trigger: str
    ms: dict[str, float]
    history_key: bytes = b""


def plan(
    files: FileFilter,
    records: Mapping[str, FileRecord],
    snapshot: Snapshot,
    overlay: Mapping[str, str],
    network: Hypernetwork,
    chosen: set[str],
    narrow: Callable[[str, list[Chunk]], list[Chunk]] = lambda path, chunks: chunks,
    rechunk: Collection[str] = (),
    *,
    first: bool = False,
) -> Slices[UpdatePlan]:
    """Compare `records` with the `chosen` files of `snapshot`; read and chunk only the files that changed.

    `overlay` holds the texts of unsaved buffers. `narrow(path, chunks)` selects the chunks of a file that count. Files
    in `rechunk` are chunked again even if their text is the same.
    """
    target: dict[str, FileRecord] = {}
    new_chunks: dict[bytes, Chunk] = {}
    texts: dict[str, str] = {}
    paths: list[str] = []
    for path in sorted(chosen):
        old = records.get(path)
        if old is not None and old.entry.digest == snapshot[path].digest and path not in rechunk:
            target[path] = FileRecord(snapshot[path], old.keys)
            continue
        paths.append(path)
        text = overlay.get(path)
        if text is None:
            read = yield from files.read_in_slices(path)
            if read is None:
                continue
            text = read.text
            entry = Entry(read.digest, read.size, snapshot[path].mtime_ns)
        else:
            entry = snapshot[path]
        if network.reads_diffs:
            texts[path] = text
        chunks = narrow(path, network.chunks(text))
        new_chunks.update((chunk.key, chunk) for chunk in chunks)
        target[path] = FileRecord(entry, tuple(chunk.key for chunk in chunks))
        yield
    paths += sorted(records.keys() - target.keys() - set(paths))
    before, after = _count(records.values()), _count(target.values())
    return UpdatePlan(target, after - before, before - after, new_chunks, len(paths), first, texts, paths)


def _count(records: Iterable[FileRecord]) -> Counter[bytes]:
    counted: Counter[bytes] = Counter()
    for record in records:
        counted.update(record.keys)
    return counted


def diff_text(plan: UpdatePlan, records: Mapping[str, FileRecord], old_texts: Mapping[bytes, str]) -> str:
    """Return the unified_diff diffs of a plan's production files as `git diff -U3` prints them, "" without any.

    `records` are those before the plan, `old_texts` their texts by digest; a file whose old text is lost is left out.
    """
    out = []
    for path in sorted(plan.texts.keys() | (records.keys() - plan.records.keys())):
        old = records.get(path)
        before = old_texts.get(old.entry.digest) if old is not None else None
        if in_diff(path) and (old is None or before is not None):
            out.append(unified_diff(before, plan.texts.get(path), path))
    return "".join(out)


def to_change(plan: UpdatePlan, found: Mapping[bytes, ChunkEmbedding]) -> StateChange | None:
    """Return the state change of a plan, None if the embedding of a chunk is missing in `found`."""
    if any(key not in found for key in plan.removed) or any(key not in found for key in plan.added):
        return None
    return StateChange(
        added=[found[key] for key in plan.added.elements()],
        removed=[found[key] for key in plan.removed.elements()],
        first=plan.first,
    )
