"""Training examples: documents are split into chunks, half of them become FIM examples, and all are packed into rows.

The order of rows depends only on the corpus, the seed and the stream's state. The state is part of a checkpoint, so
that a resumed run sees exactly the rows that an uninterrupted one would. The corpus may have grown in between.
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

IGNORE = -100  # a label that the loss ignores
_DOCUMENTS_PER_REFILL = 48  # packed together: enough to fill rows, few enough for a small state
_CHARACTERS_PER_TOKEN = 4.2  # a little over the mean: rows are full, but the ends of a few chunks are lost


@dataclass(frozen=True)
class Batch:
    """Packed rows, four arrays (B, T): token ids, positions in the example, example numbers, labels.

    `labels[b, t]` is the token after `ids[b, t]` in the same example; IGNORE at its end and in padding.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    segments: NDArray[np.int64]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """Row length in tokens, share of FIM examples, seed, and size of the shuffle buffer in rows.

    With a small buffer, rows of the same file follow each other closely, which may make the model fit that file. The
    size is a precaution; its effect has not been measured separately.
    """

    length: int = 512
    fim: float = 0.5
    seed: int = 0
    buffer: int = 3000


def split_text(text: str, length: int, rng: random.Random) -> list[str]:
    """Split a text at line ends into chunks of about `length` tokens. The length of the first one is random.

    The random length varies where the later chunks start. Chunks of almost only white space are dropped.
    """
    limit = max(64, int(length * _CHARACTERS_PER_TOKEN))
    chunks: list[str] = []
    begin = 0
    room = limit if len(text) <= limit else rng.randint(limit // 3, limit)
    while begin < len(text):
        end = len(text)
        if end - begin > room:
            cut = text.rfind("\n", begin, begin + room) + 1
            end = cut if cut > begin else begin + room
        chunks.append(text[begin:end])
        begin, room = end, limit
    return [chunk for chunk in chunks if len(chunk.strip()) > 40 or len(chunks) == 1]


def fim_tokens(cut: fim_spans.Split, tokenizer: CodeTokenizer, limit: int) -> tuple[list[int], int] | None:
    """Return (PREFIX SUFFIX s MIDDLE p m END, index of m) in at most `limit` tokens; None if m is too long.

    p, s and m are prefix, suffix and middle. The order is SPM with the tokens of PSM (Bavarian et al. 2022): the
    completion continues the prefix directly, as in plain text. With PSM order, models of this size started a new line
    instead. The far ends of p and s are cut.
    """
    prefix, suffix, middle = tokenizer.encode_batch([cut.prefix, cut.suffix, cut.middle])
    return join_fim(prefix, suffix, middle, tokenizer, limit)


def join_fim(
    prefix: list[int], suffix: list[int], middle: list[int], tokenizer: CodeTokenizer, limit: int
) -> tuple[list[int], int] | None:
    """As `fim_tokens`, from the token ids of the three parts."""
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


def make_examples(
    chunks: Sequence[tuple[str, bool]], recipe: Recipe, tokenizer: CodeTokenizer, rng: random.Random
) -> list[list[int]]:
    """Return the token ids of (chunk, is last of its file) pairs, at most `recipe.length` each.

    Plain text starts with END, and the last chunk of a file ends with it. All texts are tokenised in one call, which
    uses every core, because a training step on a GPU waits for it.
    """
    splits = [fim_spans.split(chunk, rng) if rng.random() < recipe.fim else None for chunk, _ in chunks]
    texts = [
        part
        for (chunk, _), cut in zip(chunks, splits, strict=True)
        for part in ([chunk] if cut is None else [cut.prefix, cut.suffix, cut.middle])
    ]
    ids_of_parts = iter(tokenizer.encode_batch(texts))
    result: list[list[int]] = []
    for (chunk, last), cut in zip(chunks, splits, strict=True):
        filled = (
            None
            if cut is None
            else join_fim(next(ids_of_parts), next(ids_of_parts), next(ids_of_parts), tokenizer, recipe.length)
        )
        if filled is not None:
            result.append(filled[0])
            continue
        # END also starts a plain text, as in a prompt of the engine.
        ids = next(ids_of_parts) if cut is None else tokenizer.encode(chunk)
        result.append([tokenizer.end, *ids, *([tokenizer.end] if last else [])][: recipe.length])
    return result


def pack(examples: Sequence[list[int]], length: int) -> list[list[list[int]]]:
    """Pack examples into rows of at most `length` tokens (best fit, longest first)."""
    rows: list[list[list[int]]] = []
    free: list[int] = []
    for one in sorted(examples, key=len, reverse=True):
        fits = [(room, i) for i, room in enumerate(free) if room >= len(one)]
        if fits:
            _, i = min(fits)
            rows[i].append(one)
            free[i] -= len(one)
        else:
            rows.append([one])
            free.append(length - len(one))
    return rows


def to_batch(rows: Sequence[Sequence[Sequence[int]]], length: int, pad: int) -> Batch:
    """Return rows of examples as arrays (B, length). Padding has segment −1."""
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
    """The state of a stream: epoch, documents seen in it, and buffered rows of `length` tokens."""

    epoch: int = 0
    seen: list[str] = field(default_factory=list)
    rows: list[list[list[int]]] = field(default_factory=list)
    length: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return {"epoch": self.epoch, "seen": self.seen, "rows": self.rows, "length": self.length}


def reshard(states: Sequence[StreamState], rank: int, count: int) -> StreamState:
    """Return the state for process `rank` of `count` from the states saved by any number of processes.

    If the number has changed, every process gets all documents seen (it uses only its own shard) and a part of the
    buffered rows. The order changes, but no document is repeated. All processes continue in the earliest saved epoch.
    """
    if len(states) == count:
        return states[rank]
    epoch = min(state.epoch for state in states)
    seen = sorted({name for state in states if state.epoch == epoch for name in state.seen})
    rows = [row for state in states for row in state.rows]
    return StreamState(epoch, seen, rows[rank::count], states[0].length)


def epoch_order(names: Iterable[str], seed: int, epoch: int) -> list[str]:
    """Return the document ids in the order of an epoch."""
    return sorted(names, key=lambda name: _key(seed, epoch, name))


def _key(seed: int, epoch: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{epoch}/{name}".encode()).hexdigest()


class Stream:
    """An endless stream of batches. Every epoch has a new order."""

    def __init__(
        self,
        documents: Sequence[Document],
        tokenizer: CodeTokenizer,
        recipe: Recipe,
        state: StreamState | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        """Resume from `state` if given. `shard` is (rank, number of ranks). Raises TrainingError without documents."""
        self.state = state or StreamState()
        self._documents = {d.id: d for d in documents if int(d.id[-8:], 16) % shard[1] == shard[0]}
        if not self._documents:
            raise TrainingError("There is no text to train on. Build a corpus with more repositories.")
        self._tokenizer, self._recipe = tokenizer, recipe
        if self.state.length != recipe.length:
            self._repack()
        self._order = self._remaining()

    @property
    def epoch(self) -> int:
        """The number of completed passes over the corpus."""
        return self.state.epoch

    def states(self) -> list[StreamState]:
        """Return the state as a list, like `Prefetcher.states`."""
        return [self.state]

    def _repack(self) -> None:
        """Pack the buffered examples into rows of a new length. Examples that are too long are dropped."""
        buffered = [one for row in self.state.rows for one in row if len(one) <= self._recipe.length]
        self.state.rows, self.state.length = pack(buffered, self._recipe.length), self._recipe.length

    def _remaining(self) -> list[str]:
        """Return the remaining documents of this epoch, the next one last."""
        seen = set(self.state.seen)
        left = (name for name in self._documents if name not in seen)
        return epoch_order(left, self._recipe.seed, self.state.epoch)[::-1]

    def _refill(self) -> None:
        if not self._order:
            self.state.epoch, self.state.seen = self.state.epoch + 1, []
            self._order = self._remaining()
        group = [self._order.pop() for _ in range(min(_DOCUMENTS_PER_REFILL, len(self._order)))]
        rng = random.Random(_key(self._recipe.seed, self.state.epoch, group[0]))  # noqa: S311 - reproducible, not secret
        chunks: list[tuple[str, bool]] = []
        for name in group:
            parts = split_text(self._documents[name].text, self._recipe.length, rng)
            chunks += [(part, i == len(parts) - 1) for i, part in enumerate(parts)]
        made = make_examples(chunks, self._recipe, self._tokenizer, rng)
        rows = pack([one for one in made if len(one) > 1], self._recipe.length)
        rng.shuffle(rows)
        self.state.seen += group
        self.state.rows += rows

    def next(self, count: int) -> Batch:
        """Return `count` random rows of the shuffle buffer."""
        while len(self.state.rows) < count + self._recipe.buffer:
            self._refill()
        seed = f"{self._recipe.seed}/{self.state.epoch}/{len(self.state.seen)}/{len(self.state.rows)}"
        rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
        rows = [self.state.rows.pop(rng.randrange(len(self.state.rows))) for _ in range(count)]
        return to_batch(rows, self._recipe.length, self._tokenizer.pad)
