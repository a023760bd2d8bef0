"""Draft index of a folder: for every run of three tokens in its files, the tokens that followed the last occurrence.

The index holds the token ids of indexed files and open buffers, up to a limit in tokens; the oldest texts are removed
first. It needs the tokenizer only. Secrets are no part of it: a redacted text is indexed in pieces. A changed file
leaves entries that no longer match its tokens: a look-up verifies each entry, and stale entries are removed from time
to time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from c2l_lsp.engine.completion.draft import MATCH_TOKENS
from c2l_lsp.redaction import pieces

MAX_TOKENS = 120_000
"""Limit of one folder: about 35 MB with the index."""

_BOUNDARY = -1  # between the pieces of a text: no draft begins at one or extends over one
_MAX_CHARACTERS = 30_000  # of one file: tokenising more takes longer than one cooperative step


class DraftIndex:
    """A draft source over the texts of one folder. `encode` turns text into token ids."""

    def __init__(self, encode: Callable[[str], list[int]], max_tokens: int = MAX_TOKENS) -> None:
        self._encode, self._max_tokens = encode, max_tokens
        self._texts: OrderedDict[str, list[int]] = OrderedDict()
        self._positions: dict[tuple[int, ...], tuple[str, int]] = {}
        self._versions: dict[str, object] = {}
        self._size = 0

    def next_stale(self, wanted: Iterable[tuple[str, object]]) -> str | None:
        """Return a path whose current version is not in the index, or None if the index is up to date.

        `wanted` holds (path, version) of every file; a version is any value that changes with the text. Paths that are
        not in `wanted` are removed. A full index takes no new paths.
        """
        versions = dict(wanted)
        for path in self._texts.keys() - versions.keys():
            self.remove(path)
        if self._size >= self._max_tokens:
            changed = (path for path in self._texts if self._versions[path] != versions[path])
        else:
            changed = (path for path, version in versions.items() if self._versions.get(path) != version)
        return next(changed, None)

    def put(self, path: str, version: object, text: str) -> None:
        """Add a text or replace the one of the same path. The oldest texts are removed if the index is too large."""
        self.remove(path)
        ids = list[int]()
        for piece in pieces(text[:_MAX_CHARACTERS]):
            ids += [_BOUNDARY] * bool(ids) + self._encode(piece)
        self._texts[path] = ids
        self._versions[path] = version
        self._size += len(ids)
        for position in range(MATCH_TOKENS, len(ids)):
            if ids[position] != _BOUNDARY and _BOUNDARY not in ids[position - MATCH_TOKENS : position]:
                self._positions[tuple(ids[position - MATCH_TOKENS : position])] = (path, position)
        while self._size > self._max_tokens and len(self._texts) > 1:
            self.remove(next(iter(self._texts)))
        if len(self._positions) > 2 * self._max_tokens:
            self._remove_stale_positions()

    def remove(self, path: str) -> None:
        """Remove the text of a path, if there is one."""
        self._versions.pop(path, None)
        ids = self._texts.pop(path, None)
        if ids is not None:
            self._size -= len(ids)

    def continuation(self, run: list[int], limit: int) -> list[int]:
        """Return up to `limit` tokens that followed the last occurrence of `run`; [] if there is none."""
        path, position = self._positions.get(tuple(run), ("", 0))
        ids = self._texts.get(path, [])
        if ids[position - MATCH_TOKENS : position] != run:
            return []
        found = ids[position : position + limit]
        return found[: found.index(_BOUNDARY)] if _BOUNDARY in found else found

    def _remove_stale_positions(self) -> None:
        self._positions = {
            run: (path, position)
            for run, (path, position) in self._positions.items()
            if tuple(self._texts.get(path, [])[position - MATCH_TOKENS : position]) == run
        }
