"""What one folder has learned, kept on disk: whether and when it is written, and what is said where it cannot be.

`store` is where, `keeper` writes behind everything else; here is what a folder does about both.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from torch import Tensor

from c2l_lsp.engine.adaptation.learner import Learner
from c2l_lsp.engine.events import FolderEvents
from c2l_lsp.engine.storage.background_writer import BackgroundWriter, WriteJob
from c2l_lsp.engine.storage.cache import Cache
from c2l_lsp.engine.storage.state_lock import StateInUse
from c2l_lsp.engine.storage.store import FolderStore, SavedState
from c2l_lsp.errors import Severity, StorageError
from c2l_lsp.model.hypernet.protocol import RepoState

KEEP_AGAIN_S = 60.0
"""After a state could not be kept, it is tried again no sooner."""

_END_S = 1.0  # a folder that is closed waits so long for what is being written


class Persistence:
    """Keeps nothing of a folder that is not trusted. `name` is the folder's, for people."""

    def __init__(self, name: str, store: FolderStore, trusted: bool, telling: FolderEvents) -> None:
        self.store = store
        self.works = trusted
        """Whether the last try went well."""
        self._name, self._trusted, self._telling = name, trusted, telling
        self._writer = BackgroundWriter(store)
        self._again = 0.0

    @property
    def cache(self) -> Cache | None:
        """Where readings are kept, if they are."""
        return self.store.cache if self._trusted else None

    def begin(self) -> None:
        """Become the one that writes; it is told if that is another."""
        try:
            if not self.store.acquire():
                self.failed(StateInUse(f"Another server keeps what is learned of {self._name}; this one does not."))
        except StorageError as error:
            self.failed(error)

    def end(self) -> None:
        """Let go of the store, at once or when what is being written is written."""
        self._writer.close(_END_S)

    def failed(self, error: StorageError) -> None:
        """Something could not be kept: told once, not at every try."""
        self._again = time.monotonic() + KEEP_AGAIN_S
        if self.works:
            self.works = False
            self._telling.warn_once(error)

    # --- writing -----------------------------------------------------------------------------------------------------

    @property
    def may(self) -> bool:
        """Whether it is of use to keep something now."""
        return self._trusted and (self.works or time.monotonic() >= self._again)

    @property
    def busy(self) -> bool:
        """Whether something is being written."""
        return self._writer.busy

    @property
    def done(self) -> bool:
        """Whether something was written, or could not be, and `settle` was not called yet."""
        return self._writer.has_result

    def keep(self, learner: Learner, saved: SavedState, state: RepoState, extra: Mapping[str, Tensor]) -> None:
        """Write a generation next. Readings that nothing needs go: with a purge before it, else now and then."""
        purge = learner.purge and learner.prune()
        if not learner.purge and saved.generation % 16 == 0:
            learner.prune()
        self._writer.submit(WriteJob(saved, state, extra, purge))

    def settle(self, learner: Learner) -> None:
        """What was being written is written, or could not be."""
        done = self._writer.take_result()
        if done is None:
            return
        if done.error is not None:
            self.failed(done.error)
            return
        if done.purged:
            learner.purge = False
        if not self.works:
            self.works = True
            learner.resume_keeping()
            said = f"What is learned of {self._name} is kept again."
            self._telling.emit_message(StorageError.code, Severity.INFO, said)

    # --- deleting ----------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget everything. StorageError if some of it cannot be deleted."""
        self._writer.discard_pending()
        self.store.clear()

    def purge(self) -> None:
        """What is kept goes at once, so that it does not come back with the next start."""
        self._writer.discard_pending()
        try:
            self.store.purge()
        except StorageError as error:
            self.failed(error)

    def nothing(self, learner: Learner) -> None:
        """The rules left nothing to learn: no generation will take the place of what was kept."""
        if not learner.purge:
            return
        try:
            self.store.purge()
            self.store.cache.prune(set(), "")
            learner.purge = not self.store.finish_purge(self.store.epoch)
        except StorageError as error:
            self.failed(error)
