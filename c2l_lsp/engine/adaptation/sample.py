"""Which of a workspace's files the state is made from, and which part each of their chunks has in it.

| files | neural keys | gradient sums |
|---|---|---|
| the sample: at most GRADIENT_BYTES | all chunks | all chunks |
| the other files, up to `maxIndexKb` in all | all chunks | chunks that the user wrote |
| files beyond `maxIndexKb` | chunks that the user wrote | chunks that the user wrote |

Both limits choose files as a pure function of the files. What the user wrote are the chunks of an edited file that did
not exist when the file was first seen; a reverted edit removes them again. A checkout changes the sample only.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from c2l_lsp.model.hypernet import chunking
from c2l_lsp.model.hypernet.protocol import Chunk, without_gradients
from c2l_lsp.repo.history.snapshot import Snapshot

MOST_EDITED_AT_ONCE = 200
"""More files than this changing together are a checkout or a merge, not the user's edits."""

GRADIENT_BYTES = 256 * 1024
"""Most text in the gradient sums. They are means over tokens, which a sample estimates; keys stand for themselves."""

FIRST_PART = 64 * 1024
"""Bytes of text that the first generation with neural keys contains at least, if there is as much."""

MAX_PART = 1024 * 1024
"""Bytes of text that a further generation adds at most: what it embeds is live minutes later, not hours."""

_NAME_BYTES = 8  # of a chunk's digest: a file's chunks are compared with those of the same file only


def select(snapshot: Snapshot, budget: int) -> set[str]:
    """Return the files of a state: all of them, or a sample of at most `budget` bytes.

    Files are taken in the order of their path's hash, which is unbiased; smallest files first would favour stubs.
    """
    if sum(entry.size for entry in snapshot.values()) <= budget:
        return set(snapshot)
    chosen, used = set(), 0
    for path in sorted(snapshot, key=_path_hash):
        if used + snapshot[path].size <= budget:
            chosen.add(path)
            used += snapshot[path].size
    return chosen


def recently_edited(edited: Iterable[str], snapshot: Snapshot, budget: int) -> list[str]:
    """Return the most recently edited files that fit into `budget` bytes. Input and output are latest last."""
    kept, used = [], 0
    for path in reversed(list(edited)):
        if path in snapshot and used + snapshot[path].size <= budget:
            kept.append(path)
            used += snapshot[path].size
    return kept[::-1]


def next_part(
    have: Collection[str],
    missing: Iterable[str],
    snapshot: Snapshot,
    near: Collection[str],
    sample: Collection[str] = (),
) -> tuple[set[str], bool]:
    """Return the files to add to a state next, most useful first, and whether these are all that are missing.

    A part is as large as the state is already, from FIRST_PART to MAX_PART bytes: so the adapter improves early, and a
    small folder takes few generations. First come the files in `near` (the user works on them), then those of the
    `sample`, then neighbours of the former, then what changed last.
    """
    directories = {path.rpartition("/")[0] for path in near}

    def usefulness(path: str) -> tuple[bool, bool, bool, int, bytes]:
        beside = path.rpartition("/")[0] in directories
        return path not in near, path not in sample, not beside, -snapshot[path].mtime_ns, _path_hash(path)

    held = sum(snapshot[path].size for path in have if path in snapshot)
    budget = min(MAX_PART, max(FIRST_PART, held))
    ordered = sorted(missing, key=usefulness)
    part, used = set[str](), 0
    for path in ordered:
        if part and used + snapshot[path].size > budget:
            return part, False
        part.add(path)
        used += snapshot[path].size
    return part, True


def _path_hash(path: str) -> bytes:
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).digest()


class Sample:
    """The choice for one workspace. `partial` is true if some of its files are left out.

    `gradients`: the files whose chunks are all in the gradient sums.
    """

    def __init__(self, edited: Iterable[str] = (), first_chunks: Mapping[str, bytes] | None = None) -> None:
        """`edited` and `first_chunks` are what an earlier instance's `edited` and `first_chunks` were."""
        self._edited, self.partial = dict.fromkeys(edited), False  # a dict: membership is asked for every changed file
        self._first: dict[str, bytes] = dict(first_chunks or {})
        self._keyed: set[str] = set()
        self.gradients: set[str] = set()
        self._sampled = False  # some files are not in `gradients`

    @property
    def edited(self) -> list[str]:
        """The files that the user edited, latest last."""
        return list(self._edited)

    @property
    def first_chunks(self) -> dict[str, bytes]:
        """The chunks that files outside the sample had at first, as concatenated names; stored with the state."""
        return (
            {path: names for path, names in self._first.items() if path not in self.gradients} if self._sampled else {}
        )

    def note_first_text(self, path: str, text: str) -> None:
        """Remember the chunks of a file that is seen for the first time; later calls change nothing."""
        if path not in self._first:
            self._first[path] = b"".join(_name(chunk) for chunk in chunking.split(text))

    def note_changes(self, before: Snapshot, after: Snapshot) -> None:
        """Record which files the user edited between two snapshots."""
        changed = [path for path, entry in after.items() if path not in before or before[path].digest != entry.digest]
        if len(changed) > MOST_EDITED_AT_ONCE:
            for path in changed:
                self._first.pop(path, None)  # another file now: all of it counts as soon as the user edits it
            return
        for path in changed:
            self._edited.pop(path, None)
            self._edited[path] = None

    def choose(self, snapshot: Snapshot, budget: int) -> tuple[set[str], set[str]]:
        """Return the files that count and those to chunk again: their part in the state changed, not their text.

        The files with keys have at most `budget` bytes. Edited files outside the sample have at most half of its limit.
        """
        before, edited = (self._keyed, self.gradients), self._edited
        self._select(snapshot, budget)
        limit = min(budget, GRADIENT_BYTES) // 2
        self._edited = dict.fromkeys(recently_edited(edited, snapshot, limit) if self._sampled else ())
        moved = (before[0] ^ self._keyed) | (before[1] ^ self.gradients) | (edited.keys() - self._edited.keys())
        return self._keyed.union(self._edited), moved

    def _select(self, snapshot: Snapshot, budget: int) -> None:
        self._keyed = select(snapshot, budget)
        self.partial = len(self._keyed) < len(snapshot)
        self.gradients = select({path: snapshot[path] for path in self._keyed}, min(budget, GRADIENT_BYTES))
        self._sampled = len(self.gradients) < len(snapshot)

    def narrow(self, path: str, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks of a chosen file that count, those without a part in the gradient sums as keys alone."""
        if path in self.gradients:
            return list(chunks)
        keyed = path in self._keyed
        if path not in self._edited:
            return [without_gradients(chunk) for chunk in chunks] if keyed else []
        held = self._first.get(path, b"")
        names = Counter(held[start : start + _NAME_BYTES] for start in range(0, len(held), _NAME_BYTES))
        found = []
        for chunk in chunks:
            if not names[name := _name(chunk.text)]:
                found.append(chunk)
                continue
            names[name] -= 1
            if keyed:
                found.append(without_gradients(chunk))
        return found

    def covered_by(self, paths: Collection[str]) -> bool:
        """Whether some paths include every file that should have keys."""
        return self._keyed.issubset(paths)

    def keep_only(self, snapshot: Snapshot) -> None:
        """Forget files that are not in `snapshot`: the ignore rules exclude them now."""
        self._edited = {path: None for path in self._edited if path in snapshot}
        self._first = {path: names for path, names in self._first.items() if path in snapshot}

    def restore(self, snapshot: Snapshot, budget: int) -> None:
        """Take up the choice that a restored state was made with."""
        self._select(snapshot, budget)


def _name(chunk: str) -> bytes:
    return chunking.key(chunk)[:_NAME_BYTES]
