"""Token index: what followed the longest match of the last tokens, over the whole text of a repository.

It needs no model, only the tokenizer, so it covers every file of a folder seconds after it is opened. Its positions are
sorted by the tokens before them, nearest first: a suffix array of the reversed text. Positions whose last m tokens are
the same are neighbours in this order, so two binary searches find all positions that match the text before the cursor.

    ids    … −1 s t₁ t₂ … tₙ −1 s u₁ …      each chunk: a boundary, the start token, its tokens
    order  the indices in `ids` of all tokens that have a next one

A match never extends beyond its chunk and counts at most MAX_CONTEXT tokens. Equal chunks are stored once. The index of
a set of chunks answers alike however it was reached: positions with equal contexts are ordered by their next token. It
costs 8 bytes a token.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from c2l_lsp.errors import StateError
from c2l_lsp.model.runtime import kernel
from c2l_lsp.model.runtime.kernel import MAX_CONTEXT, TOKEN_CANDIDATES, Float32Array, Int32Array

BOUNDARY = -1
"""First id of every chunk; equals no token."""

NAME_BYTES = 16
"""Length of a chunk's name, a hash of its text."""

_T = TypeVar("_T", bound=np.generic)

Chunks = dict[bytes, tuple[int, int]]
"""Name of a chunk → its first index in `ids` and its length, the boundary included."""


@dataclass(frozen=True)
class TokenCandidates:
    """What followed the positions with the longest matches, at most TOKEN_CANDIDATES of them, longest match first.

    Match lengths [k] fp32 in tokens and next tokens [k] int32. `count` is the number of positions of the index that
    have the longest match.
    """

    lengths: Float32Array
    next_tokens: Int32Array
    count: int

    @property
    def longest(self) -> int:
        """The longest match in tokens, 0 without candidates."""
        return int(self.lengths[0]) if len(self.lengths) else 0


@dataclass(frozen=True, eq=False)
class TokenIndex:
    """The index of a set of chunks; immutable. `ids` int32 [M], `order` int32 [N], see the module."""

    ids: Int32Array = field(default_factory=lambda: np.zeros(0, np.int32))
    order: Int32Array = field(default_factory=lambda: np.zeros(0, np.int32))
    chunks: Chunks = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of positions."""
        return len(self.order)

    @cached_property
    def digest(self) -> bytes:
        """Sixteen bytes that identify the set of chunks."""
        return hashlib.blake2b(b"".join(sorted(self.chunks)), digest_size=NAME_BYTES).digest()

    def updated(self, added: Mapping[bytes, Sequence[int] | Int32Array], removed: Collection[bytes] = ()) -> TokenIndex:
        """The index with some chunks added (name → start token and tokens) and others removed.

        A name that is already there is not added again, an unknown one not removed. Takes time proportional to the
        index, and n log n for n tokens added.
        """
        gone = [name for name in removed if name in self.chunks]
        new = {name: np.asarray(tokens, np.int32) for name, tokens in added.items() if name not in self.chunks}
        if not gone and not new:
            return self
        kept = self._without(gone) if gone else self
        return kept._with(new) if new else kept

    def _without(self, names: Collection[bytes]) -> TokenIndex:
        keep = np.ones(len(self.ids), bool)
        for name in names:
            start, length = self.chunks[name]
            keep[start : start + length] = False
        moved = np.cumsum(keep, dtype=np.int32) - 1
        order = self.order[keep[self.order]]
        gone = set(names)
        chunks = {name: (int(moved[at]), n) for name, (at, n) in self.chunks.items() if name not in gone}
        return TokenIndex(self.ids[keep], moved[order], chunks)

    def _with(self, new: Mapping[bytes, Int32Array]) -> TokenIndex:
        parts, chunks, at = [self.ids], dict(self.chunks), len(self.ids)
        for name, tokens in new.items():
            parts += [np.array([BOUNDARY], np.int32), tokens]
            chunks[name] = (at, len(tokens) + 1)
            at += len(tokens) + 1
        if at > np.iinfo(np.int32).max:
            raise ValueError("a token index holds at most 2³¹ tokens")
        ids = np.concatenate(parts)
        fresh = _positions(ids, len(self.ids))
        order = sorted_positions(ids, fresh) if not len(self.order) else _merged(ids, self.order, fresh)
        return TokenIndex(ids, order, chunks)

    # --- look-up -----------------------------------------------------------------------------------------------------

    def find(self, before: Sequence[int]) -> TokenCandidates:
        """Candidates for what follows the tokens `before`, the current one last; its last MAX_CONTEXT count."""
        if kernel.is_available():
            return TokenCandidates(*kernel.find_token_candidates(self.ids, self.order, before))
        return self._find(before)

    def _find(self, before: Sequence[int]) -> TokenCandidates:
        """`find` without the kernel."""
        wanted = [*takewhile(lambda token: token >= 0, reversed(before[-MAX_CONTEXT:]))]
        low = high = bisect_left(self.order, [*wanted, BOUNDARY - 1], key=self._context)
        lengths, next_tokens, longest_count = list[int](), list[int](), 0
        while len(lengths) < TOKEN_CANDIDATES and (length := self._longest(wanted, low, high)):
            first, last = self._range(wanted[:length])
            shell = [*range(first, low), *range(high, last)]
            if not lengths:
                longest_count = len(shell)
            count = min(TOKEN_CANDIDATES - len(lengths), len(shell))
            next_tokens += [int(self.ids[self.order[shell[i * len(shell) // count]] + 1]) for i in range(count)]
            lengths += [length] * count
            low, high = first, last
        return TokenCandidates(np.array(lengths, np.float32), np.array(next_tokens, np.int32), longest_count)

    def _context(self, position: int) -> list[int]:
        """The tokens up to a position, nearest first: MAX_CONTEXT of them, or up to the boundary of the chunk."""
        return _reversed_context(self.ids, int(position))

    def _longest(self, wanted: Sequence[int], low: int, high: int) -> int:
        """The longest match outside the range [low, high) of the order."""
        beside = [self.order[at] for at in (low - 1, high) if 0 <= at < len(self.order)]
        return max((_common(self._context(position), wanted) for position in beside), default=0)

    def _range(self, wanted: Sequence[int]) -> tuple[int, int]:
        """The positions that match all of `wanted`, as a range of the order."""
        length = len(wanted)
        low = bisect_left(self.order, [*wanted], key=lambda at: self._context(at)[:length])
        high = bisect_left(self.order, [*wanted, BOUNDARY], lo=low, key=lambda at: [*self._context(at)[:length], -2])
        return low, high

    # --- storage -----------------------------------------------------------------------------------------------------

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The arrays to store: ids, order, names uint8 [C, NAME_BYTES] and starts int32 [C] of the chunks."""
        names = (
            np.frombuffer(b"".join(self.chunks), np.uint8).reshape(-1, NAME_BYTES).copy()
        )  # writable, as torch wants
        starts = np.array([start for start, _ in self.chunks.values()], np.int32)
        return {"ids": self.ids, "order": self.order, "names": names, "starts": starts}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], vocabulary: int) -> TokenIndex:
        """The inverse of `to_arrays`; the arrays are not copied, so they may be mapped from a file.

        Raises StateError if they are not the index of whole chunks of tokens below `vocabulary`.
        """
        ids, order = _typed(arrays, "ids", np.int32), _typed(arrays, "order", np.int32)
        names, starts = _typed(arrays, "names", np.uint8), _typed(arrays, "starts", np.int32)
        if names.shape != (len(starts), NAME_BYTES) or ids.ndim != 1 or order.ndim != 1 or starts.ndim != 1:
            raise StateError("the token index has arrays of wrong shapes")
        if len(ids) and (int(ids.min()) < BOUNDARY or int(ids.max()) >= vocabulary):
            raise StateError("the token index has token ids outside the model's vocabulary")
        places = np.sort(starts)
        if not np.array_equal(places, np.flatnonzero(ids == BOUNDARY)) or (len(ids) and ids[0] != BOUNDARY):
            raise StateError("the token index is not made of whole chunks")
        if len(order) != len(_positions(ids, 0)) or not _is_permutation(order, _positions(ids, 0), len(ids)):
            raise StateError("the token index does not order its positions")
        ends = dict(zip(places.tolist(), [*places[1:].tolist(), len(ids)], strict=True)) if len(places) else {}
        chunks = {
            name.tobytes(): (start, ends[start] - start) for name, start in zip(names, starts.tolist(), strict=True)
        }
        if len(chunks) != len(starts):
            raise StateError("the token index names a chunk twice")
        return cls(ids, order, chunks)


def _typed(arrays: Mapping[str, NDArray[np.generic]], name: str, dtype: type[_T]) -> NDArray[_T]:
    array = arrays.get(name)
    if array is None or array.dtype != dtype:
        raise StateError(f"the token index lacks {name} as {np.dtype(dtype)}")
    return cast("NDArray[_T]", array)


def _positions(ids: Int32Array, start: int) -> Int32Array:
    """Indices from `start` on of the tokens that have a next one in their chunk."""
    some = ids[start:]
    return (np.flatnonzero((some[:-1] != BOUNDARY) & (some[1:] != BOUNDARY)) + start).astype(np.int32)


def _is_permutation(order: Int32Array, positions: Int32Array, size: int) -> bool:
    if len(order) and (int(order.min()) < 0 or int(order.max()) >= size):
        return False
    seen = np.zeros(size, bool)
    seen[order] = True
    return bool(seen[positions].all())


def _reversed_context(ids: Int32Array, position: int) -> list[int]:
    found: list[int] = ids[max(0, position - MAX_CONTEXT + 1) : position + 1][::-1].tolist()
    return found[: found.index(BOUNDARY) + 1] if BOUNDARY in found else found


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    size = min(len(a), len(b))
    return next((at for at in range(size) if a[at] != b[at]), size)


def sorted_positions(ids: Int32Array, positions: Int32Array) -> Int32Array:
    """Positions by the tokens before them, nearest first, then by the next token, then by place."""
    if kernel.is_available():
        return kernel.sort_positions(ids, positions)
    return _sorted_positions(ids, positions)


def _sorted_positions(ids: Int32Array, positions: Int32Array) -> Int32Array:
    """`sorted_positions` without the kernel, by prefix doubling: ranks of contexts of 1, 2, 4 … MAX_CONTEXT tokens."""
    chunk_starts = np.maximum.accumulate(np.where(ids == BOUNDARY, np.arange(len(ids)), 0))
    offsets = np.arange(len(ids)) - chunk_starts
    rank = np.unique(ids, return_inverse=True)[1].astype(np.int64)
    width = 1
    while width < MAX_CONTEXT:
        further = np.where(offsets >= width, rank[np.maximum(np.arange(len(ids)) - width, 0)], -1)
        rank = np.unique(rank * (len(ids) + 1) + further + 1, return_inverse=True)[1].astype(np.int64)
        width *= 2
    return positions[np.lexsort((positions, ids[positions + 1], rank[positions]))]


def _merged(ids: Int32Array, order: Int32Array, fresh: Int32Array) -> Int32Array:
    """Sorted positions with other, unsorted ones added."""
    if kernel.is_available():
        return kernel.merge_positions(ids, order, kernel.sort_positions(ids, fresh))
    return _sorted_positions(ids, np.concatenate([order, fresh]))
