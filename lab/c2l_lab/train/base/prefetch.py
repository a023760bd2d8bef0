"""Prefetching: worker processes prepare batches, because a GPU trains faster than one process can tokenise and pack.

Every worker has a `Stream` over its own shard of the documents. The saved states include the batches that the trainer
has not received. A resumed run therefore sees the same rows and no document twice, although in another order. Without
workers, training uses a `Stream` directly, and a resumed run has exactly the same order.
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
from c2l_lab.train.base.examples import Batch, Recipe, Stream, StreamState, reshard
from c2l_lsp.errors import TrainingError

_QUEUE_SIZE = 4  # batches per worker
_TIMEOUT_S = 300.0  # for one batch; a worker fills its shuffle buffer first
_POLL_S = 2.0  # interval between checks that a worker is alive


def unpack_rows(batch: Batch) -> list[list[list[int]]]:
    """Return the rows of which `to_batch` made a batch."""
    found = []
    for ids, segments in zip(batch.ids, batch.segments, strict=True):
        numbers = range(int(segments.max(initial=-1)) + 1)
        found.append([ids[segments == number].tolist() for number in numbers])
    return found


def _work(
    documents: Sequence[Document], tokenizer: Path, recipe: Recipe, state: StreamState, rows: int,
    queue_out: Any,  # noqa: ANN401 - a queue of batches and states
    state_requested: Event,
) -> None:  # fmt: skip
    """Put batches into the queue for ever; put the stream's state between them when it is requested."""
    os.environ["RAYON_NUM_THREADS"] = "1"  # set before the tokenizer starts: the workers already use all cores
    stream = Stream(documents, CodeTokenizer(tokenizer), recipe, state)
    while True:
        if state_requested.is_set():
            state_requested.clear()
            now = stream.state  # copied, because another thread sends it while the stream continues
            queue_out.put(StreamState(now.epoch, list(now.seen), list(now.rows), now.length))
        queue_out.put((stream.next(rows), stream.epoch))


class Prefetcher:
    """A `Stream` computed by `workers` processes. They end with `close` or with this process."""

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
        """Start the workers. `states` are the stream states of a checkpoint, of any number of workers.

        Raises TrainingError if a worker would have no document.
        """
        count = shard[1] * workers
        parts: list[list[Document]] = [[] for _ in range(count)]
        for document in documents:
            parts[int(document.id[-8:], 16) % count].append(document)
        if not all(parts):
            raise TrainingError(f"There are too few files for {count} workers. Use fewer (--workers).")
        context = multiprocessing.get_context("spawn")
        self._rows, self._next_worker, self.epoch = rows, 0, 0  # `epoch` is that of the last batch
        self._received: list[deque[tuple[Batch, int]]] = [deque() for _ in range(workers)]
        self._queues: list[Any] = [context.Queue(_QUEUE_SIZE) for _ in range(workers)]
        self._state_requested = [context.Event() for _ in range(workers)]
        self._workers = []
        for i, batches, requested in zip(range(workers), self._queues, self._state_requested, strict=True):
            index = shard[0] * workers + i
            state = reshard(states, index, count) if states else StreamState()
            arguments = (parts[index], tokenizer, recipe, state, rows, batches, requested)
            worker = context.Process(target=_work, args=arguments, daemon=True)
            worker.start()
            self._workers.append(worker)

    def _receive(self, i: int) -> Any:  # noqa: ANN401 - a batch or a state
        for _ in range(math.ceil(_TIMEOUT_S / _POLL_S)):
            try:
                return self._queues[i].get(timeout=_POLL_S)
            except queue.Empty:
                if not self._workers[i].is_alive():
                    raise TrainingError("A worker process has ended. Its error message is above.") from None
        raise TrainingError(
            f"A worker process returned no batch for {_TIMEOUT_S:.0f} seconds. Use fewer workers (--workers)."
        )

    def next(self, count: int) -> Batch:
        """Return the next batch, from the workers in turn. `count` must equal the `rows` of the constructor."""
        if count != self._rows:
            raise TrainingError(f"The workers make batches of {self._rows} rows, not {count}.")
        i, self._next_worker = self._next_worker, (self._next_worker + 1) % len(self._workers)
        got: tuple[Batch, int] = self._received[i].popleft() if self._received[i] else self._receive(i)
        batch, self.epoch = got
        return batch

    def states(self) -> list[StreamState]:
        """Return the state of every worker. Batches not yet taken are added to its buffered rows."""
        for requested in self._state_requested:
            requested.set()
        found = []
        for i, received in enumerate(self._received):
            while isinstance(got := self._receive(i), tuple):
                received.append(got)
            state: StreamState = got
            rows = [row for batch, _ in received for row in unpack_rows(batch)]
            found.append(StreamState(state.epoch, state.seen, rows + state.rows, state.length))
        return found

    def close(self) -> None:
        """Terminate the workers."""
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.join(10)
