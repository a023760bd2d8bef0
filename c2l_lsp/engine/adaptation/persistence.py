"""Saving what one workspace has learned: whether and when it is written, and the warnings where it cannot be.

`storage.store` says where state is written, `storage.background_writer` writes it in a thread of its own. This module
decides: not for an untrusted workspace, not while the disk refuses, and not before purged text is gone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from c2l_lsp.engine.events import FolderEvents
from c2l_lsp.engine.storage.background_writer import BackgroundWriter, WriteJob
from c2l_lsp.engine.storage.cache import Cache
from c2l_lsp.engine.storage.decoding import SavedState
from c2l_lsp.engine.storage.state_lock import StateInUse
from c2l_lsp.engine.storage.store import FolderStore
from c2l_lsp.errors import Severity, StorageError
from c2l_lsp.model.hypernet.protocol import RepoState

RETRY_S = 60.0
"""Pause in seconds before a write is tried again after one failed."""

_CLOSE_S = 1.0  # closing a workspace waits this long for a write in progress
_PRUNE_EVERY = 16  # generations between two clean-ups of the cache


class CacheOwner(Protocol):
    """What decides which cached embeddings are still needed: the learner."""

    @property
    def settled(self) -> bool:
        """Whether the state contains all that was embedded for it: then what it does not contain is not needed."""

    def prune_cache(self) -> bool:
        """Delete cached embeddings and texts that the state does not need; False if that was not possible."""

    def resume_cache(self) -> None:
        """Use the cache again after the disk has failed."""


class Persistence:
    """Saves the state of one workspace. `name` is the folder's name, for messages.

    `purge_pending` is true while the disk may hold text that the ignore rules exclude now: until a generation made
    under the new rules has replaced it.
    """

    def __init__(self, name: str, store: FolderStore, events: FolderEvents) -> None:
        self.store = store
        self.works = True
        self.purge_pending = False
        store.lock.report = events.warn_once
        self._name, self._events = name, events
        self._writer = BackgroundWriter(store)
        self._retry_at = 0.0

    @property
    def cache(self) -> Cache:
        """The cache of chunk embeddings."""
        return self.store.cache

    def open(self) -> None:
        """Take the state lock; warn if another process holds it. Takes up a purge that did not end."""
        try:
            if not self.store.acquire():
                self.failed(StateInUse(f"Another server saves the state of {self._name}; this one does not."))
        except StorageError as error:
            self.failed(error)
        self.purge_pending = self.store.purge_pending

    def close(self) -> None:
        """Release the state lock, at once or when the write in progress ends."""
        self._writer.close(_CLOSE_S)

    def failed(self, error: StorageError) -> None:
        """Note that a write failed: warn once, and pause for `RETRY_S`."""
        self._retry_at = time.monotonic() + RETRY_S
        if self.works:
            self.works = False
            self._events.warn_once(error)

    # --- writing -----------------------------------------------------------------------------------------------------

    @property
    def allowed(self) -> bool:
        """Whether a write should be tried now."""
        return self.works or time.monotonic() >= self._retry_at

    @property
    def outdated(self) -> bool:
        """Whether the disk lacks the current generation, or holds text that must be purged."""
        return not self.works or self.purge_pending

    @property
    def busy(self) -> bool:
        """Whether a write is in progress."""
        return self._writer.busy

    @property
    def done(self) -> bool:
        """Whether a write has ended since the last `finish`."""
        return self._writer.has_result

    def save(self, saved: SavedState, state: RepoState, extra: Mapping[str, Tensor] | None, cache: CacheOwner) -> None:
        """Write a generation in the background; of several that wait, only the last is written.

        The cache is cleaned up first if a purge is pending, else every `_PRUNE_EVERY` generations if it is settled.
        """
        purge = False
        if self.purge_pending:
            purge = cache.prune_cache()
        elif cache.settled and saved.generation % _PRUNE_EVERY == 0:
            cache.prune_cache()
        self._writer.submit(WriteJob(saved, state, extra, purge))

    def finish(self, cache: CacheOwner) -> None:
        """Take the result of a write that ended: warn, or say that saving works again."""
        result = self._writer.take_result()
        if result is None:
            return
        if result.error is not None:
            self.failed(result.error)
            return
        if result.purged:
            self.purge_pending = False
        if not self.works:
            self.works = True
            cache.resume_cache()
            message = f"The state of {self._name} is saved again."
            self._events.emit_message(StorageError.code, Severity.INFO, message)

    # --- deleting ----------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Delete everything saved. StorageError if some of it cannot be deleted."""
        self._writer.discard_pending()
        self.store.clear()

    def purge(self) -> None:
        """Delete the saved generations at once: they contain text that the ignore rules exclude now."""
        self.purge_pending = True
        self._writer.discard_pending()
        try:
            self.store.purge()
        except StorageError as error:
            self.failed(error)

    def purge_all(self) -> None:
        """End a pending purge without a new generation: the ignore rules left no file to learn from."""
        if not self.purge_pending:
            return
        try:
            self.store.purge()
            self.store.cache.prune(set(), "")
            self.purge_pending = not self.store.finish_purge(self.store.epoch)
        except StorageError as error:
            self.failed(error)
