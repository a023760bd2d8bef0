"""What a folder's other files say after any three tokens: where drafts are looked up besides the prompt.

Holds token ids of the files that were learned and of open buffers, the latest seen first to stay, within a budget of
tokens; no model, no device. A file that changed leaves runs behind that do not fit its text any more: they are checked
when they are looked up, and swept now and then.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from c2l_lsp.engine.completion.draft import LONGEST

MOST = 120_000
"""Tokens kept of a folder, about 35 MB with their index."""

_CHARS = 30_000  # of one file: more would take longer to tokenise than a slice of adapter work may last


class DraftIndex:
    """The texts of one folder, searchable by runs of LONGEST tokens."""

    def __init__(self, encode: Callable[[str], list[int]], most: int = MOST) -> None:
        self._encode, self._most = encode, most
        self._texts: OrderedDict[str, list[int]] = OrderedDict()
        self._places: dict[tuple[int, ...], tuple[str, int]] = {}
        self._versions: dict[str, object] = {}
        self._size = 0

    @property
    def size(self) -> int:
        """Tokens held."""
        return self._size

    def next_stale(self, wanted: Iterable[tuple[str, object]]) -> str | None:
        """A path of `wanted` (path, version) that is not held as it is, if there is room; paths gone are dropped.

        A version is anything that changes with the text.
        """
        versions = dict(wanted)
        for path in self._texts.keys() - versions.keys():
            self.remove(path)
        if self._size >= self._most:
            changed = (path for path in self._texts if self._versions[path] != versions[path])
        else:
            changed = (path for path, version in versions.items() if self._versions.get(path) != version)
        return next(changed, None)

    def put(self, path: str, version: object, text: str) -> None:
        """Hold a text in place of what was held under its path; the oldest ones make room."""
        self.remove(path)
        ids = self._encode(text[:_CHARS])
        self._texts[path] = ids
        self._versions[path] = version
        self._size += len(ids)
        for at in range(LONGEST, len(ids)):
            self._places[tuple(ids[at - LONGEST : at])] = (path, at)
        while self._size > self._most and len(self._texts) > 1:
            self.remove(next(iter(self._texts)))
        if len(self._places) > 2 * self._most:
            self._sweep()

    def remove(self, path: str) -> None:
        """Forget a text."""
        self._versions.pop(path, None)
        held = self._texts.pop(path, None)
        if held is not None:
            self._size -= len(held)

    def continuation(self, run: list[int], most: int) -> list[int]:
        """Up to `most` tokens that followed the run where it stood last."""
        path, at = self._places.get(tuple(run), ("", 0))
        ids = self._texts.get(path, [])
        return ids[at : at + most] if ids[at - LONGEST : at] == run else []

    def _sweep(self) -> None:
        self._places = {
            run: (path, at)
            for run, (path, at) in self._places.items()
            if tuple(self._texts.get(path, [])[at - LONGEST : at]) == run
        }
