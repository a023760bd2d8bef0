"""Which of a folder's files its state is made from, and how much of each.

All of every file, up to `maxIndexKb`. Above that a sample (a pure function of the files), and of the files outside it
that somebody works on the chunks they did not have when they were first seen; a reverted edit takes them out again. A
checkout changes the sample, and only that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from c2l_lsp.engine.adaptation import update_plan
from c2l_lsp.model.hypernet import chunking
from c2l_lsp.model.hypernet.protocol import Chunk
from c2l_lsp.repo.history.snapshot import Snapshot

MOST_BY_HAND = 200
"""Files that change at once by somebody's work, a large renaming included; more are a checkout or a merge."""

_BYTES = 8  # of a chunk's name: files are compared with themselves only


class Sample:
    """The choice for one folder. `partial`: some of its files are left out."""

    def __init__(self, touched: Iterable[str] = (), first: Mapping[str, bytes] | None = None) -> None:
        """`first` names the chunks each file had when it was first seen, as `rows` gave them."""
        self._touched, self.partial = dict.fromkeys(touched), False  # a list would be searched for every changed file
        self._first: dict[str, bytes] = dict(first or {})
        self._whole: set[str] = set()

    @property
    def touched(self) -> list[str]:
        """Files that were changed, latest last."""
        return list(self._touched)

    def first_seen(self, path: str, text: str) -> None:
        """A file as it is seen for the first time; later looks change nothing."""
        if path not in self._first:
            self._first[path] = b"".join(_name(chunk) for chunk in chunking.split(text))

    def touch(self, before: Snapshot, after: Snapshot) -> None:
        """Note which files were changed by hand since the last look; what a checkout brings is nobody's work."""
        changed = [path for path, entry in after.items() if path not in before or before[path].digest != entry.digest]
        if len(changed) > MOST_BY_HAND:
            for path in changed:
                self._first.pop(path, None)  # it is another file now: all of it counts once somebody works on it
            return
        for path in changed:
            self._touched.pop(path, None)
            self._touched[path] = None

    def choose(self, snapshot: Snapshot, budget: int) -> tuple[set[str], set[str]]:
        """The files that count, within `budget` bytes (and half of it for touched ones besides); those to cut anew."""
        before, self._whole = self._whole, update_plan.select(snapshot, budget)
        self.partial = len(self._whole) < len(snapshot)
        self._touched = dict.fromkeys(update_plan.pinned(self._touched, snapshot, budget // 2) if self.partial else ())
        return self._whole.union(self._touched), before ^ self._whole

    def narrow(self, path: str, chunks: Sequence[Chunk]) -> list[Chunk]:
        """The chunks of a chosen file that count: all of them in the sample, else those it did not have at first."""
        if path in self._whole:
            return list(chunks)
        held = self._first.get(path, b"")
        names = Counter(held[start : start + _BYTES] for start in range(0, len(held), _BYTES))
        found = []
        for chunk in chunks:
            if names[name := _name(chunk.text)]:
                names[name] -= 1
            else:
                found.append(chunk)
        return found

    def only(self, snapshot: Snapshot) -> None:
        """Forget files that are not to be known any more."""
        self._touched = {path: None for path in self._touched if path in snapshot}
        self._first = {path: names for path, names in self._first.items() if path in snapshot}

    def restore(self, snapshot: Snapshot, budget: int) -> None:
        """The choice as it was for files that are already folded."""
        self._whole = update_plan.select(snapshot, budget)
        self.partial = len(self._whole) < len(snapshot)

    @property
    def rows(self) -> dict[str, bytes]:
        """What is kept on disk: the first chunks of the files outside the sample."""
        return {path: names for path, names in self._first.items() if path not in self._whole} if self.partial else {}


def _name(chunk: str) -> bytes:
    return chunking.key(chunk)[:_BYTES]
