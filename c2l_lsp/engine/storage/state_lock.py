"""Lock of a state directory: one process at a time may write it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import filelock

from c2l_lsp import regular_files
from c2l_lsp.engine.storage import disk
from c2l_lsp.errors import Severity, StateError, StorageError

LOCK = "lock"


class StateInUse(StorageError):
    """Another process holds the lock. This is a normal condition, and nothing may be written."""

    severity = Severity.INFO


class StateLock:
    """A lock file of the operating system. It is released when its process ends, however that happens.

    `mutex` is for the threads of this process. It is held while the lock or the current generation changes. `report` is
    called, from any thread, with what was set aside in the directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mutex = threading.RLock()
        self.report: Callable[[StateError], None] = lambda error: None
        self._lock: filelock.BaseFileLock | None = None

    @property
    def held(self) -> bool:
        """Whether this process holds the lock."""
        return self._lock is not None

    def acquire(self) -> bool:
        """Take the lock if it is free, and return whether this process holds it. Does not wait.

        Raises StorageError if the lock file cannot be created.
        """
        with self.mutex:
            if self._lock is not None:
                return True
            try:
                self._clear_the_way()
                lock = filelock.FileLock(self.root / LOCK, mode=0o600, thread_local=False)
                lock.acquire(blocking=False)
            except filelock.Timeout:
                return False
            except (OSError, NotImplementedError) as error:
                raise disk.storage_error(self.root, error) from error
            self._lock = lock
            return True

    def _clear_the_way(self) -> None:
        """Create the directory. What is in the place of the directory or of the lock file is set aside."""
        path, moved = self.root / LOCK, []
        if disk.make_private(self.root):
            moved.append(self.root)
        if os.path.lexists(path) and not regular_files.is_regular(path):
            disk.set_aside(path)
            moved.append(path)
        for one in moved:
            self.report(StateError(f"{one} is a link or of another kind than it must be. It was set aside."))

    def require_held(self) -> None:
        """Take the lock, or raise StateInUse."""
        if not self.acquire():
            raise StateInUse(f"Another server writes the state in {self.root}. This one does not save there meanwhile.")

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
