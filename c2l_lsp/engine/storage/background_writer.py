"""Writes what one folder has learned, behind everything else: a disk may take many seconds, and nobody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from c2l_lsp.engine.storage.store import FolderStore, SavedState
from c2l_lsp.errors import StorageError, place
from c2l_lsp.model.hypernet.protocol import RepoState


@dataclass(frozen=True)
class WriteJob:
    """A generation to write. `purge`: what was learned under other rules goes with it; readings are pruned already."""

    saved: SavedState
    state: RepoState
    extra: Mapping[str, Tensor]
    purge: bool = False


@dataclass(frozen=True)
class WriteResult:
    """How a job went; `purged` only if it was to purge and did."""

    error: StorageError | None = None
    purged: bool = False


class BackgroundWriter:
    """One job at a time in a thread of its own. Of the jobs that wait only the latest counts: it stands for all."""

    def __init__(self, store: FolderStore) -> None:
        self._store = store
        self._changed = threading.Condition()
        self._next: WriteJob | None = None
        self._busy = self._ended = False
        self._done: WriteResult | None = None

    @property
    def busy(self) -> bool:
        """Whether something is being written."""
        return self._busy

    @property
    def has_result(self) -> bool:
        """Whether there is an outcome to `take`."""
        return self._done is not None

    def submit(self, job: WriteJob) -> None:
        """Write this next."""
        with self._changed:
            purge = job.purge or (self._next is not None and self._next.purge)
            self._next = replace(job, purge=purge)
            if not self._busy:
                self._busy = True
                threading.Thread(target=self._run, name="c2l-keep", daemon=True).start()

    def discard_pending(self) -> None:
        """What waits is not to be written any more: it was forgotten, or the rules leave some of it out."""
        with self._changed:
            self._next = self._done = None

    def take_result(self) -> WriteResult | None:
        """How the last job that ended went, once."""
        with self._changed:
            done, self._done = self._done, None
            return done

    def close(self, wait_s: float) -> None:
        """Let go of the store: after `wait_s` at the latest, or by itself when what is being written is written."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, wait_s)
            self._ended = True
            if not self._busy:
                self._store.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                job, self._next = self._next, None
                if job is None:
                    self._busy = False
                    self._changed.notify_all()
                    if self._ended:
                        self._store.close()
                    return
            done = self._write(job)
            with self._changed:
                self._done = done

    def _write(self, job: WriteJob) -> WriteResult:
        epoch = self._store.epoch
        try:
            kept = self._store.save(job.saved, job.state, job.extra)
            return WriteResult(purged=job.purge and kept and self._store.finish_purge(epoch))
        except StorageError as error:
            return WriteResult(error)
        except Exception as error:
            return WriteResult(StorageError(f"What was learned cannot be kept: {place(error)}."))
