"""Who writes a folder's state directory: one process at a time."""

from __future__ import annotations

import threading
from pathlib import Path

import filelock

from c2l_lsp.engine.storage import disk
from c2l_lsp.errors import Severity, StorageError

LOCK = "lock"


class StateInUse(StorageError):
    """Another process keeps this folder's state; nothing is wrong, and nothing may be written."""

    severity = Severity.INFO


class StateLock:
    """The right to write a directory. `changing` is held where the right, or what is current there, changes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mutex = threading.RLock()
        self._lock: filelock.BaseFileLock | None = None

    @property
    def held(self) -> bool:
        """Whether this process has the right by now."""
        return self._lock is not None

    def acquire(self) -> bool:
        """Whether this process may write here; tries to become the one that may. StorageError if no file can be made.

        The lock is the operating system's: it ends with the process that holds it, however that ends.
        """
        with self.mutex:
            if self._lock is not None:
                return True
            try:
                disk.make_private(self.root)
                lock = filelock.FileLock(self.root / LOCK, mode=0o600, thread_local=False)
                lock.acquire(blocking=False)
            except filelock.Timeout:
                return False
            except (OSError, NotImplementedError) as error:
                raise disk.storage_error(self.root, error) from error
            self._lock = lock
            return True

    def require_held(self) -> None:
        """StateInUse if another process may write here."""
        if not self.acquire():
            raise StateInUse(
                f"Another server keeps what is learned in {self.root}; this one keeps nothing there meanwhile."
            )

    def release(self) -> None:
        """Let another process have it."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
