"""The baseline of `bench lines`: an interpolated 5-gram over the same tokens, with a cache of the open file.

Witten–Bell interpolation (Bell, Cleary & Witten 1990) from order 1 to 5; the cache is the same model over the
tokens of the file, mixed in with a fixed weight (Kuhn & De Mori 1990).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from c2l_lsp.model.lm.token_healing import TokenBytes

ORDER = 5
_BITS = 16  # of a token in a key; the other 48 bits are the hash of the history
_MIX = np.uint64(0x9E3779B97F4A7C15)
Floats = NDArray[np.float64]


def _keys(ids: NDArray[np.uint64], order: int) -> NDArray[np.uint64]:
    """One key per position from `order - 1` on: the hash of the `order - 1` tokens before it, and the token."""
    history = np.zeros(len(ids) - order + 1, np.uint64)
    for back in range(order - 1):
        history = (history + ids[back : back + len(history)] + np.uint64(1)) * _MIX
        history ^= history >> np.uint64(29)
    return (history << np.uint64(_BITS)) | ids[order - 1 :]


@dataclass(frozen=True)
class _Order:
    """The sorted keys of one order and their counts."""

    keys: NDArray[np.uint64]
    counts: NDArray[np.int32]

    def after(self, history: np.uint64) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(tokens, counts) after a history; `history` is its key with token 0."""
        begin, end = np.searchsorted(self.keys, [history, history | np.uint64((1 << _BITS) - 1)], side="left")
        end += int(end < len(self.keys) and self.keys[end] == history | np.uint64((1 << _BITS) - 1))
        tokens = (self.keys[begin:end] & np.uint64((1 << _BITS) - 1)).astype(np.int64)
        return tokens, self.counts[begin:end]


class NGram:
    """Next-token distributions over `vocabulary` tokens (at most 65,536)."""

    def __init__(self, streams: Iterable[Sequence[int]], vocabulary: int) -> None:
        """Count the n-grams of token streams (one per file)."""
        rows = [np.asarray(ids, np.uint64) for ids in streams if len(ids) >= ORDER]
        self.tokens = sum(map(len, rows))
        self._vocabulary = vocabulary
        self._orders = []
        for order in range(1, ORDER + 1):
            keys = np.concatenate([_keys(row, order) for row in rows]) if rows else np.zeros(0, np.uint64)
            unique, counts = np.unique(keys, return_counts=True)
            self._orders.append(_Order(unique, counts.astype(np.int32)))

    def next(self, before: Sequence[int]) -> Floats:
        """Probabilities [vocabulary] after `before`."""
        made = np.full(self._vocabulary, 1 / self._vocabulary)
        for order, table in enumerate(self._orders, start=1):
            if len(before) < order - 1:
                break
            tail = np.asarray([*before[len(before) - order + 1 :], 0], np.uint64)
            tokens, counts = table.after(_keys(tail, order)[0])
            if not len(tokens):
                break  # longer histories were not seen either
            made *= len(tokens) / (counts.sum() + len(tokens))
            made[tokens] += counts / (counts.sum() + len(tokens))
        return made


class Cache:
    """The same interpolation over the tokens of one file, which is extended token by token."""

    def __init__(self, shown: Sequence[int] = ()) -> None:
        """Start with the given parts of the file."""
        self._after: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        self._ids: list[int] = []
        for token in shown:
            self.add(token)

    def add(self, token: int) -> None:
        """Append a token."""
        for order in range(1, ORDER + 1):
            if len(self._ids) >= order - 1:
                self._after[tuple(self._ids[len(self._ids) - order + 1 :])][token] += 1
        self._ids = [*self._ids[-ORDER:], token]

    def next(self, before: Sequence[int], vocabulary: int) -> Floats | None:
        """Probabilities [vocabulary] after `before`; None while the cache is empty."""
        if not self._ids:
            return None
        made = np.zeros(vocabulary)
        for order in range(1, ORDER + 1):
            if len(before) < order - 1:
                break
            seen = self._after.get(tuple(before[len(before) - order + 1 :]))
            if not seen:
                break
            total, kinds = sum(seen.values()), len(seen)
            if order > 1:
                made *= kinds / (total + kinds)
                total += kinds
            made[list(seen)] += np.fromiter(seen.values(), np.float64) / total
        return made


class CachedNGram:
    """A mixture: weight `share` for the cache, the rest for the n-grams of the corpus."""

    def __init__(self, corpus: NGram, vocabulary: int, share: float = 0.5) -> None:
        self._corpus, self._vocabulary, self._share = corpus, vocabulary, share

    def next(self, before: Sequence[int], cache: Cache) -> Floats:
        """Probabilities [vocabulary] after `before`."""
        far, near = self._corpus.next(before), cache.next(before, self._vocabulary)
        return far if near is None else (1 - self._share) * far + self._share * near

    def nat(self, ids: Sequence[int], skip: int) -> float:
        """The summed loss, in nat, of `ids[skip:]`; the cache grows along the text."""
        cache, total = Cache(), 0.0
        for at, token in enumerate(ids):
            if at >= skip:
                total -= float(np.log(self.next(ids[max(0, at - ORDER) : at], cache)[token]))
            cache.add(token)
        return total

    def greedy(
        self,
        before: Sequence[int],
        shown: Sequence[Sequence[int]],
        most: int,
        chunks: TokenBytes | None,
        forced_prefix: bytes = b"",
    ) -> Iterable[int]:
        """Greedy tokens after `before`, at most `most`; the cache contains the texts `shown`.

        The text starts with the bytes `forced_prefix`, as in the engine.
        """
        cache, ids = Cache(), list(before)
        for text in shown:
            for token in text:
                cache.add(token)
        for _ in range(most):
            likely = self.next(ids[-ORDER:], cache)
            if forced_prefix and chunks is not None and (allowed := chunks.compatible_tokens(forced_prefix)):
                token = allowed[int(likely[allowed].argmax())]
                forced_prefix = forced_prefix[len(chunks[token]) :]
            else:
                token = int(likely.argmax())
            ids.append(token)
            yield token
