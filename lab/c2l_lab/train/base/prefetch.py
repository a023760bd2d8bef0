"""Batches made ahead of time by other processes: a GPU learns faster than one process can cut and pack text.

Every worker is a `Stream` over its own part of the documents. What is saved is what the trainer has not been given: a
run that goes on sees the same rows, no file twice, though in another order than one that was never stopped. Without
workers a `Stream` itself is used, and the order is exactly the same.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import queue
from collections import deque
from collections.abc import Sequence
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from c2l_lab.corpus.corpus import Document
from c2l_lab.corpus.tokenizer import CodeTokenizer
from c2l_lab.train.base.examples import Batch, Recipe, Stream, StreamState, dealt
from c2l_lsp.errors import TrainingError

_AHEAD = 4  # batches that a worker may be ahead
_TIMEOUT_S = 300.0  # of one batch: a worker first fills its buffer
_LOOK_S = 2.0  # how often it is looked whether a worker that is waited for still lives


def rows_of(batch: Batch) -> list[list[list[int]]]:
    """The packed rows that `to_batch` made `batch` of."""
    found = []
    for ids, segments in zip(batch.ids, batch.segments, strict=True):
        numbers = range(int(segments.max(initial=-1)) + 1)
        found.append([ids[segments == number].tolist() for number in numbers])
    return found


def _work(
    documents: Sequence[Document], tokenizer: Path, recipe: Recipe, state: StreamState, rows: int,
    made: Any,  # noqa: ANN401 - a queue of batches and states
    asked: Event,
) -> None:  # fmt: skip
    """The worker: batches into `made` for ever; when `asked` is set, its state in between, once."""
    os.environ["RAYON_NUM_THREADS"] = "1"  # before the tokenizer begins: the workers are what uses the cores
    stream = Stream(documents, CodeTokenizer(tokenizer), recipe, state)
    while True:
        if asked.is_set():
            asked.clear()
            now = stream.state  # a copy: it is sent by a thread, while this one goes on
            made.put(StreamState(now.epoch, list(now.seen), list(now.rows), now.length))
        made.put((stream.next(rows), stream.epoch))


class Supply:
    """`next` and `state` of a `Stream`, from `workers` processes (ended by `close`, and with this one)."""

    def __init__(
        self,
        documents: Sequence[Document],
        tokenizer: Path,
        recipe: Recipe,
        rows: int,
        workers: int,
        states: Sequence[StreamState] = (),
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        """Start the workers on their parts of `documents`; `states` are those of a checkpoint, of any number.

        Raises TrainingError when there are fewer documents than workers.
        """
        count = shard[1] * workers
        parts: list[list[Document]] = [[] for _ in range(count)]
        for document in documents:
            parts[int(document.id[-8:], 16) % count].append(document)
        if not all(parts):
            raise TrainingError(f"There are too few files for {count} workers: take fewer (--workers).")
        context = multiprocessing.get_context("spawn")
        self._rows, self._turn, self.epoch = rows, 0, 0  # the pass over the corpus that the last batch is of
        self._waiting: list[deque[tuple[Batch, int]]] = [deque() for _ in range(workers)]
        self._queues: list[Any] = [context.Queue(_AHEAD) for _ in range(workers)]
        self._asked = [context.Event() for _ in range(workers)]
        self._workers = []
        for i, made, asked in zip(range(workers), self._queues, self._asked, strict=True):
            place = shard[0] * workers + i
            state = dealt(states, place, count) if states else StreamState()
            words = (parts[place], tokenizer, recipe, state, rows, made, asked)
            worker = context.Process(target=_work, args=words, daemon=True)
            worker.start()
            self._workers.append(worker)

    def _from(self, i: int) -> Any:  # noqa: ANN401 - a batch or a state
        for _ in range(math.ceil(_TIMEOUT_S / _LOOK_S)):
            try:
                return self._queues[i].get(timeout=_LOOK_S)
            except queue.Empty:
                if not self._workers[i].is_alive():
                    raise TrainingError("A process that cuts text has ended; its error is above.") from None
        raise TrainingError(
            f"A process that cuts text gave nothing for {_TIMEOUT_S:.0f} seconds: take fewer (--workers)."
        )

    def next(self, count: int) -> Batch:
        """The next batch, of the workers in turn; `count` must be the number of rows they were started for."""
        if count != self._rows:
            raise TrainingError(f"The workers make batches of {self._rows} rows, not {count}.")
        i, self._turn = self._turn, (self._turn + 1) % len(self._workers)
        got: tuple[Batch, int] = self._waiting[i].popleft() if self._waiting[i] else self._from(i)
        batch, self.epoch = got
        return batch

    def states(self) -> list[StreamState]:
        """Where every worker stands, with what it has made and nobody has taken as rows that wait."""
        for asked in self._asked:
            asked.set()
        found = []
        for i, waiting in enumerate(self._waiting):
            while isinstance(got := self._from(i), tuple):
                waiting.append(got)
            state: StreamState = got
            rows = [row for batch, _ in waiting for row in rows_of(batch)]
            found.append(StreamState(state.epoch, state.seen, rows + state.rows, state.length))
        return found

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.join(10)
