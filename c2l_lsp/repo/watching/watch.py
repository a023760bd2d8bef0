"""Hints that files may have changed, from the operating system, and their gathering into batches.

A hint is never the truth: the scan that follows compares content. So losing precision is harmless (None means "look
at everything"), losing a change in silence is not, and every way that this is known to happen ends in None.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from watchdog.events import (
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver

from c2l_lsp.errors import C2LError, FolderError
from c2l_lsp.repo.filter.files import FileFilter
from c2l_lsp.repo.git import git_directory
from c2l_lsp.repo.git.git_directory import git_busy
from c2l_lsp.repo.watching.coalesce import Coalescer
from c2l_lsp.repo.watching.mounts import is_remote

__all__ = ["Coalescer", "Watcher", "git_busy"]

POLL_S = 5.0
_KINDS: list[type[FileSystemEvent]] = [
    DirCreatedEvent, DirDeletedEvent, DirMovedEvent, DirAttribEvent, FileAttribEvent,
    FileCreatedEvent, FileClosedEvent, FileModifiedEvent, FileDeletedEvent, FileMovedEvent,
]  # fmt: skip
_LIMITS = {errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOSYS}
_SETTLE_S = 1.0


class Watcher:
    """Watches one folder and calls `on_hint` from threads of its own.

    A hint is a set with one path relative to the root (a file the filter admits, or a directory: look at all below)
    or None: look at everything. None comes after lost events, when an ignore rule, the checked-out branch or the root
    itself changed, and when watching starts over. `.filter` follows the ignore files; the caller makes its own.
    When the system refuses more watches, and on network drives, the folder is polled; `on_warning` is told once.
    """

    def __init__(
        self,
        root: Path,
        filter: FileFilter,
        on_hint: Callable[[frozenset[str] | None], None],
        on_warning: Callable[[C2LError], None] = lambda _: None,
        poll_s: float = POLL_S,
    ) -> None:
        self.filter = filter
        self.mode: Literal["native", "polling"] = "native"
        self.overflows = 0
        """How often the system lost events."""
        self._root = str(filter.root)
        self._shown = root
        self._on_hint = on_hint
        self._on_warning = on_warning
        self._poll_s = poll_s
        self._observer: BaseObserver | None = None
        self._lock = threading.Lock()
        self._settling: threading.Timer | None = None
        self._at_limit = False
        self._root_lost = False
        self._stopped = True
        self._head: str | None = None

    @property
    def alive(self) -> bool:
        """Whether events can come. False after the root was deleted or moved; `start` tries again."""
        observer = self._observer
        return observer is not None and observer.is_alive() and not self._root_lost

    def start(self) -> None:
        """Begin; blocks while the folders are registered. Changes after its return are told.

        Raises FolderError when the root is gone or cannot be watched.
        """
        self.stop()
        self._root_lost = self._at_limit = False
        if not os.path.isdir(self._root):  # noqa: PTH112 - a str all through, like watchdog's paths
            raise FolderError(f"{self._shown} no longer exists, so it cannot be watched.")
        self.mode = "polling" if is_remote(self._root) else "native"
        observer = self._polling() if self.mode == "polling" else self._native_or_polling()
        with self._lock:
            self._observer, self._stopped = observer, False
        if self._at_limit and self.mode == "native":  # found between the end of registering and here
            self._fall_back()

    def stop(self) -> None:
        """End all threads. Not from within a callback; `start` and `stop` are for one thread."""
        with self._lock:
            self._stopped = True
        observer, settling = self._taken_out()
        if settling is not None:
            settling.cancel()
        if observer is not None:
            _end(observer)

    # --- starting --------------------------------------------------------------------------------------------------

    def _taken_out(self) -> tuple[BaseObserver | None, threading.Timer | None]:
        # Threads are ended outside of the lock: one of them may be waiting for it.
        with self._lock:
            taken = self._observer, self._settling
            self._observer = self._settling = None
        return taken

    def _native_or_polling(self) -> BaseObserver:
        observer = None
        try:
            observer = self._begun(self._native())
        except OSError as error:
            if error.errno not in _LIMITS:
                raise FolderError(f"{self._shown} cannot be watched: {error.strerror or error}.") from error
            self._at_limit = True
        if observer is not None and self._at_limit:
            _end(observer)
        return self._polling_for_want_of_watches() if observer is None or self._at_limit else observer

    def _native(self) -> BaseObserver:
        if sys.platform == "linux":
            from c2l_lsp.repo.watching.inotify import InotifyObserver

            return InotifyObserver(self._wanted, self._on_events_lost)
        else:  # a branch of its own, because that is how mypy knows platforms
            from watchdog.observers import Observer  # chooses by platform

            return Observer()

    def _polling_for_want_of_watches(self) -> BaseObserver:
        self.mode = "polling"
        self._on_warning(
            FolderError(
                f"The system allows no more file watches, so {self._shown} is looked at every {self._poll_s:g} s "
                "instead; raise fs.inotify.max_user_watches (or max_user_instances) to change that."
            )
        )
        return self._polling()

    def _polling(self) -> BaseObserver:
        from watchdog.observers.polling import PollingObserverVFS  # most never need it

        return self._begun(PollingObserverVFS(stat=os.lstat, listdir=self._listed, polling_interval=self._poll_s))

    def _begun(self, observer: BaseObserver) -> BaseObserver:
        handler = _Handler(self._on_event)
        observer.schedule(handler, self._root, recursive=True, event_filter=_KINDS)
        place = git_directory.find(Path(self._root))
        self._head = str(place.dir / "HEAD") if place else None
        if place is not None and not place.dir.is_relative_to(self._root):  # a linked worktree, or a folder inside one
            observer.schedule(handler, str(place.dir), recursive=False, event_filter=_KINDS)
        try:
            observer.start()
        except OSError:
            _end(observer)
            raise
        return observer

    def _wanted(self, path: str) -> bool:
        """Whether a directory needs a watch. `.git` for HEAD, but nothing in it."""
        relative = self._relative(path)
        return relative == ".git" or (relative is not None and self.filter.includes_directory(relative))

    def _listed(self, path: str | None) -> Iterator[os.DirEntry[str]]:
        with os.scandir(path) as entries:
            listed = list(entries)
        for entry in listed:
            relative = self._relative(entry.path)
            if relative is None:
                keep = entry.path == self._head
            elif entry.is_dir(follow_symlinks=False):
                keep = self._wanted(entry.path)
            else:
                keep = entry.path == self._head or self.filter.includes(relative) or self.filter.affects_rules(relative)
            if keep:
                yield entry

    # --- events ----------------------------------------------------------------------------------------------------

    def _on_event(self, event: FileSystemEvent) -> None:
        for raw in (event.src_path, event.dest_path):
            if raw:
                self._changed(os.fsdecode(raw), event.is_directory)

    def _changed(self, path: str, is_directory: bool) -> None:
        if path == self._root:
            self._root_lost = not os.path.isdir(path)  # noqa: PTH112
            self._on_hint(None)
        elif path == self._head:
            self._on_hint(None)
        elif (relative := self._relative(path)) is not None:
            self._changed_inside(relative, is_directory)

    def _changed_inside(self, path: str, is_directory: bool) -> None:
        parent = path.rpartition("/")[0]
        if self.filter.affects_rules(path) and self.filter.includes_directory(parent):
            self._rules_changed()
        elif self.filter.includes_directory(path) if is_directory else self.filter.includes(path):
            # The index is not looked at: it changes with every `git add` and refresh, and no file with it.
            self._on_hint(frozenset({path}))

    def _rules_changed(self) -> None:
        with contextlib.suppress(C2LError):  # the root went: what is known stays until it is back
            self.filter = self.filter.reloaded()
        self._on_hint(None)
        self._watch_anew_soon()

    def _watch_anew_soon(self) -> None:
        """Watches follow the rules once these have been quiet: a checkout can change hundreds of ignore files."""
        with self._lock:
            if self._observer is None or self._settling is not None:
                return
            self._settling = threading.Timer(_SETTLE_S, self._watch_anew)
            self._settling.daemon = True
            self._settling.start()

    def _watch_anew(self) -> None:
        with self._lock:
            self._settling = None
            observer = self._observer
        rebuild = getattr(observer, "rebuild", None)
        if rebuild is not None:
            rebuild()
        if observer is not None:
            self._on_hint(None)

    def _on_events_lost(self, loss: str) -> None:
        if loss == "overflow":
            self.overflows += 1
            self._on_hint(None)
        elif loss == "moved":
            self._root_lost = True
            self._on_hint(None)
        elif not self._at_limit:
            self._at_limit = True
            if self._observer is not None:  # running: this is the observer's own thread, which cannot end itself
                threading.Thread(target=self._fall_back, name="c2l-watch-fall-back", daemon=True).start()

    def _fall_back(self) -> None:
        observer, settling = self._taken_out()
        if settling is not None:
            settling.cancel()
        if observer is None:
            return  # stopped meanwhile
        _end(observer)
        polling = self._polling_for_want_of_watches()
        with self._lock:
            stopped, self._observer = self._stopped, None if self._stopped else polling
        if stopped:
            _end(polling)
        else:
            self._on_hint(None)

    def _relative(self, path: str) -> str | None:
        if not path.startswith(self._root + os.sep):
            return None
        return path[len(self._root) + 1 :].replace(os.sep, "/")


class _Handler(FileSystemEventHandler):
    def __init__(self, on_event: Callable[[FileSystemEvent], None]) -> None:
        self._on_event = on_event

    def dispatch(self, event: FileSystemEvent) -> None:
        self._on_event(event)


def _end(observer: BaseObserver) -> None:
    observer.stop()
    with contextlib.suppress(RuntimeError):  # never started
        observer.join()
