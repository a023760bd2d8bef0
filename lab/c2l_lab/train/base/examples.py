"""Documents → packed rows of tokens: cut to pieces, half of them rearranged to fill in the middle, packed side by side.

The stream is a function of (corpus, seed, what has been seen): its state goes into a checkpoint and a resumed run sees
exactly the rows that it would have seen, also when the corpus has grown meanwhile.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2l_lab.corpus.corpus import Document
from c2l_lab.corpus.tokenizer import CodeTokenizer
from c2l_lab.train.base import fim_spans
from c2l_lsp.errors import TrainingError

IGNORE = -100  # a label that the loss passes over
_GROUP = 48  # documents packed together: large enough to fill rows, small enough for a small state
_CHARACTERS_PER_TOKEN = 4.2  # a little over the mean: rows are full, at the cost of a few cut tails


@dataclass(frozen=True)
class Batch:
    """Packed rows: token ids, their places in their own file, which file each belongs to, and the labels; (B, T) each.

    `labels[b, t]` is the token after `ids[b, t]` in the same file, IGNORE at a file's end and in padding.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    segments: NDArray[np.int64]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """How examples are made: row length in tokens, share of pieces with a hole, seed, rows to draw a batch from.

    With a small buffer the rows of one file follow one another closely, and a fast learner may learn the file, not
    the language. The size is a precaution; what it gives has not been measured apart from other changes.
    """

    length: int = 512
    fim: float = 0.5
    seed: int = 0
    buffer: int = 3000


def pieces(text: str, length: int, dice: random.Random) -> list[str]:
    """Cut `text` at line ends to pieces of about `length` tokens, the first one shortened at random.

    The random first cut keeps the later pieces from always beginning at the same places of a file.
    """
    limit = max(64, int(length * _CHARACTERS_PER_TOKEN))
    made: list[str] = []
    begin = 0
    room = limit if len(text) <= limit else dice.randint(limit // 3, limit)
    while begin < len(text):
        end = len(text)
        if end - begin > room:
            cut = text.rfind("\n", begin, begin + room) + 1
            end = cut if cut > begin else begin + room
        made.append(text[begin:end])
        begin, room = end, limit
    return [piece for piece in made if len(piece.strip()) > 40 or len(made) == 1]


def fim_tokens(cut: fim_spans.Split, tokenizer: CodeTokenizer, limit: int) -> tuple[list[int], int] | None:
    """PREFIX SUFFIX s MIDDLE p m END within `limit` tokens, and where m begins. None if m is too long.

    What follows the hole stands first (Bavarian et al. 2022, the SPM order that shares PSM's tokens): the answer goes
    on directly from the text before it, as in plain text. Prefix-suffix-middle order was not learned at this size:
    answers began a line of their own. Far ends of p and s give way.
    """
    prefix, suffix, middle = tokenizer.encode_batch([cut.prefix, cut.suffix, cut.middle])
    return joined(prefix, suffix, middle, tokenizer, limit)


def joined(
    prefix: list[int], suffix: list[int], middle: list[int], tokenizer: CodeTokenizer, limit: int
) -> tuple[list[int], int] | None:
    """`fim_tokens` of the three parts' tokens."""
    room = limit - len(middle) - 4
    if room < 16:
        return None
    over = len(prefix) + len(suffix) - room
    if over > 0:
        from_suffix = min(len(suffix), max(0, over - max(0, len(prefix) - room // 2)))
        suffix = suffix[: len(suffix) - from_suffix]
        prefix = prefix[max(0, len(prefix) - (room - len(suffix))) :]
    before = [tokenizer.prefix, tokenizer.suffix, *suffix, tokenizer.middle, *prefix]
    return [*before, *middle, tokenizer.end], len(before)


def examples(
    cut: Sequence[tuple[str, bool]], recipe: Recipe, tokenizer: CodeTokenizer, dice: random.Random
) -> list[list[int]]:
    """Tokens of pieces, at most `recipe.length` each; of a pair, the second says whether it is its file's last.

    Plain text begins with END, a file's last piece ends with it. All texts are cut into tokens in one call, which uses
    every core: on a GPU this is what a step would wait for.
    """
    holes = [fim_spans.split(piece, dice) if dice.random() < recipe.fim else None for piece, _ in cut]
    texts = [
        part
        for (piece, _), hole in zip(cut, holes, strict=True)
        for part in ([piece] if hole is None else [hole.prefix, hole.suffix, hole.middle])
    ]
    found = iter(tokenizer.encode_batch(texts))
    made: list[list[int]] = []
    for (piece, last), hole in zip(cut, holes, strict=True):
        filled = None if hole is None else joined(next(found), next(found), next(found), tokenizer, recipe.length)
        if filled is not None:
            made.append(filled[0])
            continue
        # END also opens a plain text: what is read on its own begins with it in the engine too.
        ids = next(found) if hole is None else tokenizer.encode(piece)
        made.append([tokenizer.end, *ids, *([tokenizer.end] if last else [])][: recipe.length])
    return made


def pack(examples: Sequence[list[int]], length: int) -> list[list[list[int]]]:
    """Best-fit: rows of examples whose lengths add up to at most `length`."""
    rows: list[list[list[int]]] = []
    rooms: list[int] = []
    for one in sorted(examples, key=len, reverse=True):
        fits = [(room, i) for i, room in enumerate(rooms) if room >= len(one)]
        if fits:
            _, i = min(fits)
            rows[i].append(one)
            rooms[i] -= len(one)
        else:
            rows.append([one])
            rooms.append(length - len(one))
    return rows


def to_batch(rows: Sequence[Sequence[Sequence[int]]], length: int, pad: int) -> Batch:
    """Rows of examples as arrays (B, length); padding is a segment of its own."""
    shape = (len(rows), length)
    ids, positions = np.full(shape, pad, np.int64), np.zeros(shape, np.int64)
    segments, labels = np.full(shape, -1, np.int64), np.full(shape, IGNORE, np.int64)
    for b, row in enumerate(rows):
        at = 0
        for segment, one in enumerate(row):
            end = at + len(one)
            ids[b, at:end], segments[b, at:end] = one, segment
            positions[b, at:end] = np.arange(len(one))
            labels[b, at : end - 1] = one[1:]
            at = end
    return Batch(ids, positions, segments, labels)


@dataclass
class StreamState:
    """Where a stream stands: pass over the corpus, documents seen in it, rows (of `length`) not yet given out."""

    epoch: int = 0
    seen: list[str] = field(default_factory=list)
    rows: list[list[list[int]]] = field(default_factory=list)
    length: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers."""
        return {"epoch": self.epoch, "seen": self.seen, "rows": self.rows, "length": self.length}


def dealt(states: Sequence[StreamState], rank: int, count: int) -> StreamState:
    """The part of `rank` among `count` processes in what was saved by as many, or by more or fewer.

    On another number of processes every file seen stays seen by all (each process asks only for its own), and rows that
    wait are dealt out; the order is then another, and no file comes twice. A process whose pass over the corpus is
    ahead of the others' begins with them.
    """
    if len(states) == count:
        return states[rank]
    epoch = min(state.epoch for state in states)
    seen = sorted({name for state in states if state.epoch == epoch for name in state.seen})
    rows = [row for state in states for row in state.rows]
    return StreamState(epoch, seen, rows[rank::count], states[0].length)


def order(names: Iterable[str], seed: int, epoch: int) -> list[str]:
    """The order in which documents come in a pass over the corpus."""
    return sorted(names, key=lambda name: _key(seed, epoch, name))


def _key(seed: int, epoch: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{epoch}/{name}".encode()).hexdigest()


class Stream:
    """Gives out batches for ever, in an order drawn anew for each pass."""

    def __init__(
        self,
        documents: Sequence[Document],
        tokenizer: CodeTokenizer,
        recipe: Recipe,
        state: StreamState | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        """`state` from a checkpoint goes on there; `shard` = (rank, ranks) gives each of several devices its part."""
        self.state = state or StreamState()
        self._documents = {d.id: d for d in documents if int(d.id[-8:], 16) % shard[1] == shard[0]}
        if not self._documents:
            raise TrainingError("There is no text to train on: build a corpus with more repositories.")
        self._tokenizer, self._recipe = tokenizer, recipe
        if self.state.length != recipe.length:
            self._repack()
        self._order = self._remaining()

    @property
    def epoch(self) -> int:
        """The pass over the corpus."""
        return self.state.epoch

    def states(self) -> list[StreamState]:
        """Where it stands, as the one of several that a `Supply` has."""
        return [self.state]

    def _repack(self) -> None:
        """Fill rows of a new length with what is waiting; what no longer fits into one is left out."""
        waiting = [one for row in self.state.rows for one in row if len(one) <= self._recipe.length]
        self.state.rows, self.state.length = pack(waiting, self._recipe.length), self._recipe.length

    def _remaining(self) -> list[str]:
        """What is left of this pass, the next one last."""
        seen = set(self.state.seen)
        left = (name for name in self._documents if name not in seen)
        return order(left, self._recipe.seed, self.state.epoch)[::-1]

    def _refill(self) -> None:
        if not self._order:
            self.state.epoch, self.state.seen = self.state.epoch + 1, []
            self._order = self._remaining()
        group = [self._order.pop() for _ in range(min(_GROUP, len(self._order)))]
        dice = random.Random(_key(self._recipe.seed, self.state.epoch, group[0]))  # noqa: S311 - a reproducible order, no secret
        cut: list[tuple[str, bool]] = []
        for name in group:
            parts = pieces(self._documents[name].text, self._recipe.length, dice)
            cut += [(part, i == len(parts) - 1) for i, part in enumerate(parts)]
        made = examples(cut, self._recipe, self._tokenizer, dice)
        rows = pack([one for one in made if len(one) > 1], self._recipe.length)
        dice.shuffle(rows)
        self.state.seen += group
        self.state.rows += rows

    def next(self, count: int) -> Batch:
        """The next `count` rows. Drawn from a wide buffer, so that one file's rows lie far apart."""
        while len(self.state.rows) < count + self._recipe.buffer:
            self._refill()
        place = f"{self._recipe.seed}/{self.state.epoch}/{len(self.state.seen)}/{len(self.state.rows)}"
        dice = random.Random(place)  # noqa: S311 - a reproducible order, no secret
        rows = [self.state.rows.pop(dice.randrange(len(self.state.rows))) for _ in range(count)]
        return to_batch(rows, self._recipe.length, self._tokenizer.pad)
