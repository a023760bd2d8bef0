"""Which files git tracks. git ignores none of them, whatever pattern matches.

The names are read by `git ls-files` in a thread of its own, because an index can be large, and read again when the
index has changed. Everybody who asks about the same working tree shares them.
"""

from __future__ import annotations

import threading
import weakref
from pathlib import Path

from c2l_lsp.errors import GitError
from c2l_lsp.repo.git import git_process
from c2l_lsp.repo.git.git_directory import GitDir
from c2l_lsp.repo.git.stamps import Stamp, stamp

LIMIT_S = 10.0
"""A git that takes longer to list its index is stopped. No file counts as tracked until the index changes."""

_FIRST_WAIT_S = 0.1
_AT_ONCE = threading.BoundedSemaphore(4)  # processes of git


class TrackedFiles:
    """The tracked files of one working tree, as bytes relative to its top. Thread-safe.

    Until the names are read, no file counts as tracked, and `version` is 0. It grows whenever the names change.
    """

    def __init__(self, git_dir: GitDir) -> None:
        self._top, self._index = git_dir.top, git_dir.dir / "index"
        self.names = b""
        """Sorted and each ended by NUL, as git lists them: an index has up to millions of them."""
        self.first_names: bytes | None = None
        """The names that were read first; None before."""
        self._stamp: Stamp | None = None
        self._reading = threading.Lock()
        self._read = threading.Event()
        self._asked = False
        self.version = 0
        self.start()

    def start(self) -> None:
        """Begin to read the names in a thread if the index has changed; `wait` then waits for them."""
        if self._read.is_set() and stamp(self._index) == self._stamp:
            return
        self._read.clear()
        threading.Thread(target=self.refresh, name="c2l-git-index", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait until the names are read; return whether they are."""
        return self._read.wait(seconds)

    def contains(self, path: bytes) -> bool:
        """Return whether git tracks a file or a submodule. The first call waits for the names a little."""
        if not self._asked:
            self._asked = True
            self._read.wait(_FIRST_WAIT_S)
        return self._next_is(path + b"\0")

    def contains_below(self, directory: bytes) -> bool:
        """Return whether git tracks a file below a directory."""
        return self._next_is(directory + b"/")

    def refresh(self) -> None:
        """Read the names again if the index has changed. Blocks for up to LIMIT_S; raises nothing."""
        with self._reading:
            found = stamp(self._index)
            if self.version and found == self._stamp:
                self._read.set()
                return
            names = self._list() if found is not None else b""
            self._stamp = found
            if names != self.names or self.version == 0:
                self.names = names
                self.first_names = names if self.first_names is None else self.first_names
                self.version += 1
            self._read.set()

    def _list(self) -> bytes:
        try:
            with _AT_ONCE:
                return git_process.run(self._top, "ls-files", "-z", "--cached", timeout_s=LIMIT_S)
        except GitError:
            return b""

    def _next_is(self, start: bytes) -> bool:
        """Return whether the first name that is not before `start` begins with it."""
        names, low = self.names, 0
        high = len(names)
        while low < high:
            begin = names.rfind(b"\0", low, (low + high) // 2) + 1 or low
            end = names.index(b"\0", begin) + 1
            if names[begin:end] < start:
                low = end
            else:
                high = begin
        return names.startswith(start, low)


_shared: weakref.WeakValueDictionary[tuple[Path, Path], TrackedFiles] = weakref.WeakValueDictionary()
_sharing = threading.Lock()


def of(git_dir: GitDir) -> TrackedFiles:
    """Return the tracked files of a working tree. They are read again if the index has changed."""
    with _sharing:
        found = _shared.get((git_dir.dir, git_dir.top))
        if found is None:
            found = _shared[git_dir.dir, git_dir.top] = TrackedFiles(git_dir)
        else:
            found.start()
        return found
