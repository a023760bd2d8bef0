"""From a folder's files to a change of its state: which texts count, which pieces came and went, their readings.

Everything here is a generator of small steps: the scheduler runs one, looks whether a completion waits, runs the next.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from dataclasses import dataclass, field

from c2l_lsp.engine.storage.cache import Cache
from c2l_lsp.errors import StorageError
from c2l_lsp.model.hypernet.encoder import in_diff
from c2l_lsp.model.hypernet.protocol import Chunk, ChunkEmbedding, Hypernetwork, StateChange
from c2l_lsp.model.runtime.cooperative import Slices, timed
from c2l_lsp.repo.filter.files import FileFilter
from c2l_lsp.repo.history.patch import unified_diff
from c2l_lsp.repo.history.snapshot import Entry, Snapshot

SLICE_S = 0.02
"""Aim for the longest step of adapter work: what a completion may have to wait."""

_FETCHED = 128  # readings that are looked up between two slices
_FIRST_BATCH_CHARS = 2000
_MAX_BATCH_CHARS = 48000


@dataclass(frozen=True)
class FileRecord:
    """A file as it was folded: its text's entry and the keys of its pieces (with repetitions)."""

    entry: Entry
    keys: tuple[bytes, ...]


@dataclass
class UpdatePlan:
    """What has to happen to the state. `unread` are pieces whose readings are not stored yet."""

    records: dict[str, FileRecord]
    added: Counter[bytes]
    removed: Counter[bytes]
    unread: dict[bytes, Chunk] = field(default_factory=dict)
    changed_files: int = 0
    first: bool = False
    came: dict[str, str] = field(default_factory=dict)
    """Path → new text of each file that changed, for hypernetworks that read diffs."""
    paths: list[str] = field(default_factory=list)
    """Every file that changed, came or went."""

    def largest(self, most: int) -> list[str]:
        """The files that changed with the most text now, for people."""
        sizes = {path: self.records[path].entry.size if path in self.records else 0 for path in self.paths}
        return sorted(sizes, key=lambda path: (-sizes[path], path))[:most]

    @property
    def new_texts(self) -> dict[bytes, str]:
        """The new text of each changed file, by its digest."""
        return {self.records[path].entry.digest: text for path, text in self.came.items()}

    @property
    def digests(self) -> set[bytes]:
        """The digests of all files of the plan."""
        return {record.entry.digest for record in self.records.values()}

    @property
    def empty(self) -> bool:
        """Whether the state stays as it is."""
        return not self.added and not self.removed


Rows = dict[str, tuple[bytes, int, int, list[bytes]]]
"""Records as they are kept on disk: digest, size, mtime_ns, keys."""


def to_rows(records: Mapping[str, FileRecord]) -> Rows:
    """Records as plain values."""
    return {path: (r.entry.digest, r.entry.size, r.entry.mtime_ns, list(r.keys)) for path, r in records.items()}


def from_rows(rows: Rows) -> dict[str, FileRecord]:
    """Records of plain values."""
    return {
        path: FileRecord(Entry(digest, size, mtime), tuple(keys)) for path, (digest, size, mtime, keys) in rows.items()
    }


def select(snapshot: Snapshot, budget: int) -> set[str]:
    """The files a state is made of: all, or for a folder above `budget` bytes a sample by path hash.

    A pure function of the snapshot, so that every way to the same files gives the same state. Small files first within
    a hash order would favour stubs; the plain hash order is unbiased.
    """
    if sum(entry.size for entry in snapshot.values()) <= budget:
        return set(snapshot)
    chosen, used = set(), 0
    for path in sorted(snapshot, key=_rank):
        if used + snapshot[path].size <= budget:
            chosen.add(path)
            used += snapshot[path].size
    return chosen


def pinned(touched: Iterable[str], snapshot: Snapshot, budget: int) -> list[str]:
    """Of the files somebody changed (latest last), the latest that fit into `budget` bytes, in their order.

    They count besides the sample: in a folder too large to be learned whole, what is worked on is learned all the same.
    """
    kept, used = [], 0
    for path in reversed(list(touched)):
        if path in snapshot and used + snapshot[path].size <= budget:
            kept.append(path)
            used += snapshot[path].size
    return kept[::-1]


def _rank(path: str) -> bytes:
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def plan(
    files: FileFilter,
    records: Mapping[str, FileRecord],
    snapshot: Snapshot,
    overlay: Mapping[str, str],
    network: Hypernetwork,
    chosen: set[str],
    narrow: Callable[[str, list[Chunk]], list[Chunk]] = lambda path, chunks: chunks,
    anew: Collection[str] = (),
) -> Generator[None, None, UpdatePlan]:
    """Compare what is folded with the `chosen` files as they should be; reads the texts of changed files only.

    `narrow` (path, pieces) leaves those pieces of a file that count; files in `anew` are cut again, changed or not.
    """
    target: dict[str, FileRecord] = {}
    texts: dict[bytes, Chunk] = {}
    came: dict[str, str] = {}
    paths: list[str] = []
    for path in sorted(chosen):
        old = records.get(path)
        if old is not None and old.entry.digest == snapshot[path].digest and path not in anew:
            target[path] = FileRecord(snapshot[path], old.keys)
            continue
        paths.append(path)
        text = overlay.get(path)
        if text is None:
            read = files.read(path)
            if read is None:
                continue
            text = read.text
            entry = Entry(read.digest, read.size, snapshot[path].mtime_ns)
        else:
            entry = snapshot[path]
        if network.reads_diffs:
            came[path] = text
        chunks = narrow(path, network.chunks(text))
        texts.update((chunk.key, chunk) for chunk in chunks)
        target[path] = FileRecord(entry, tuple(chunk.key for chunk in chunks))
        yield
    paths += sorted(records.keys() - target.keys() - set(paths))
    before, after = _count(records.values()), _count(target.values())
    return UpdatePlan(target, after - before, before - after, texts, len(paths), came=came, paths=paths)


def _count(records: Iterable[FileRecord]) -> Counter[bytes]:
    counted: Counter[bytes] = Counter()
    for record in records:
        counted.update(record.keys)
    return counted


class ChunkEmbeddings:
    """Readings of pieces by key: from the cache, from memory where the cache cannot be written, or made anew."""

    def __init__(self, cache: Cache | None, network: Hypernetwork, on_trouble: Callable[[StorageError], None]) -> None:
        self._cache, self._network, self._on_trouble = cache, network, on_trouble
        self._held: dict[bytes, ChunkEmbedding] = {}
        self._paused = False

    def get(self, keys: Iterable[bytes]) -> dict[bytes, ChunkEmbedding]:
        """Those that are there."""
        wanted = list(dict.fromkeys(keys))
        found = {key: self._held[key] for key in wanted if key in self._held}
        rest = [key for key in wanted if key not in found]
        if self._cache is not None and rest:
            try:
                found |= self._cache.get(rest, self._network.digest)
            except StorageError as error:
                self._give_up(error)
        return found

    def fetch(self, keys: Iterable[bytes]) -> Slices[dict[bytes, ChunkEmbedding]]:
        """As `get`, in slices."""
        wanted, found = list(dict.fromkeys(keys)), dict[bytes, ChunkEmbedding]()
        for start in range(0, len(wanted), _FETCHED):
            found |= self.get(wanted[start : start + _FETCHED])
            yield
        return found

    def make(self, chunks: Iterable[Chunk], progress: Callable[[int, int], None]) -> Generator[None, None, None]:
        """Read pieces in batches sorted by length, of a size whose longest slice is about SLICE_S, and keep what
        comes out."""
        waiting = sorted(chunks, key=lambda chunk: (len(chunk.text), chunk.key))
        total, done, size = len(waiting), 0, _FIRST_BATCH_CHARS
        while waiting:
            batch = _take(waiting, size)
            readings, slices = yield from timed(self._network.embed_in_slices(batch))
            self.keep(dict(zip((chunk.key for chunk in batch), readings, strict=True)))
            size = int(min(_MAX_BATCH_CHARS, max(_FIRST_BATCH_CHARS, size * min(2.0, SLICE_S / max(*slices, 1e-4)))))
            done += len(batch)
            progress(done, total)
            yield

    def prune(self, alive: set[bytes], texts: set[bytes]) -> bool:
        """Forget readings nobody needs, and kept texts other than `texts`; whether they are gone from the disk."""
        self._held = {key: reading for key, reading in self._held.items() if key in alive}
        if self._cache is not None and not self._paused:
            try:
                self._cache.prune(alive, self._network.digest, texts)
            except StorageError as error:
                self._give_up(error)
        return not self._paused

    def keep(self, readings: dict[bytes, ChunkEmbedding]) -> None:
        """Keep readings under their keys."""
        if self._cache is None or self._paused:
            self._held |= readings
            return
        try:
            self._cache.put(readings, self._network.digest)
        except StorageError as error:
            self._give_up(error)
            self._held |= readings

    def resume(self) -> None:
        """The cache can be written again: it gets what was held in memory meanwhile."""
        self._paused = False
        held, self._held = self._held, {}
        if held:
            self.keep(held)

    def _give_up(self, error: StorageError) -> None:
        self._paused = True
        self._on_trouble(error)


def _take(waiting: list[Chunk], chars: int) -> list[Chunk]:
    """Remove and return the longest pieces whose padded size stays within `chars` (at least one)."""
    longest = max(len(waiting[-1].text), 1)
    count = max(1, min(len(waiting), chars // longest))
    batch = waiting[-count:]
    del waiting[-count:]
    return batch


def diff_text(plan: UpdatePlan, records: Mapping[str, FileRecord], old_texts: Mapping[bytes, str]) -> str:
    """The unified diffs of a plan's production files, as `git diff -U3` would print them; "" if there are none."""
    out = []
    for path in sorted(plan.came.keys() | (records.keys() - plan.records.keys())):
        old = records.get(path)
        before = old_texts.get(old.entry.digest) if old is not None else None
        if in_diff(path) and (old is None or before is not None):
            out.append(unified_diff(before, plan.came.get(path), path))
    return "".join(out)


def to_change(plan: UpdatePlan, found: Mapping[bytes, ChunkEmbedding]) -> StateChange | None:
    """The change of a plan; None if a reading that must be subtracted is lost (the state is then built anew)."""
    if any(key not in found for key in plan.removed) or any(key not in found for key in plan.added):
        return None
    return StateChange(
        added=[found[key] for key in plan.added.elements()],
        removed=[found[key] for key in plan.removed.elements()],
        first=plan.first,
    )
