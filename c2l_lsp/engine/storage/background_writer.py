"""Writes generations of a folder in a background thread, so that nothing waits for a slow disk."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from c2l_lsp.engine.storage.decoding import SavedState
from c2l_lsp.engine.storage.store import FolderStore
from c2l_lsp.errors import StorageError, type_and_location
from c2l_lsp.model.hypernet.protocol import RepoState


@dataclass(frozen=True)
class WriteJob:
    """A generation to write, as for `FolderStore.save`.

    `purge`: afterwards, finish the purge of data from excluded files. The cache must be pruned already.
    """

    saved: SavedState
    state: RepoState
    extra: Mapping[str, Tensor] | None
    purge: bool = False


@dataclass(frozen=True)
class WriteResult:
    """The outcome of a job. `purged`: it finished a purge."""

    error: StorageError | None = None
    purged: bool = False


class BackgroundWriter:
    """Runs one job at a time. A new job replaces a waiting one, because a generation contains the whole state."""

    def __init__(self, store: FolderStore) -> None:
        self._store = store
        self._changed = threading.Condition()
        self._waiting: WriteJob | None = None
        self._busy = self._closed = False
        self._result: WriteResult | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is running or waiting."""
        return self._busy

    @property
    def has_result(self) -> bool:
        """Whether `take_result` would return a result."""
        return self._result is not None

    def submit(self, job: WriteJob) -> None:
        """Run a job next, instead of a waiting one, whose purge and extra tensors are taken over."""
        with self._changed:
            purge = job.purge or (self._waiting is not None and self._waiting.purge)
            extra = self._waiting.extra if job.extra is None and self._waiting is not None else job.extra
            self._waiting = replace(job, purge=purge, extra=extra)
            if not self._busy:
                self._busy = True
                threading.Thread(target=self._run, name="c2l-write", daemon=True).start()

    def discard_pending(self) -> None:
        """Discard the waiting job and the last result: the state was cleared or is purged."""
        with self._changed:
            self._waiting = self._result = None

    def take_result(self) -> WriteResult | None:
        """Return and remove the result of the last finished job."""
        with self._changed:
            result, self._result = self._result, None
            return result

    def close(self, wait_s: float) -> None:
        """Close the store once all jobs are done. Returns after `wait_s` seconds at the latest."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, wait_s)
            self._closed = True
            if not self._busy:
                self._store.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                job, self._waiting = self._waiting, None
                if job is None:
                    self._busy = False
                    self._changed.notify_all()
                    if self._closed:
                        self._store.close()
                    return
            result = self._write(job)
            with self._changed:
                self._result = result

    def _write(self, job: WriteJob) -> WriteResult:
        epoch = self._store.epoch
        try:
            saved = self._store.save(job.saved, job.state, job.extra)
            return WriteResult(purged=job.purge and saved and self._store.finish_purge(epoch))
        except StorageError as error:
            return WriteResult(error)
        except Exception as error:
            return WriteResult(StorageError(f"The state cannot be saved: {type_and_location(error)}."))
