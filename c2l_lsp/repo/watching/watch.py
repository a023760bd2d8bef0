"""The file watcher: hints from the operating system that files may have changed.

A scan follows every hint and compares contents. An imprecise hint is therefore harmless, but a lost one is not:
whenever events may have been lost, the hint is None, which stands for the whole folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import threading
import time
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
from c2l_lsp.repo.watching.mounts import is_remote

POLL_S = 5.0
"""Default interval of polling."""

_EVENT_TYPES: list[type[FileSystemEvent]] = [
    DirCreatedEvent, DirDeletedEvent, DirMovedEvent, DirAttribEvent, FileAttribEvent,
    FileCreatedEvent, FileClosedEvent, FileModifiedEvent, FileDeletedEvent, FileMovedEvent,
]  # fmt: skip
_LIMIT_ERRORS = {errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOSYS}
_REBUILD_DELAY_S = 1.0  # from a rule change to new watches
_CHECK_S = 1.0
_CHECK_SHARE = 0.02  # of the time; a folder of a thousand repositories is checked less often
_JOIN_S = 5.0  # a check may hang on a network drive


class Watcher:
    """Watches one folder and calls `on_hint` on its own threads.

    A hint is a set of one path relative to the root: an included file, or a directory whose files must all be
    checked. The hint None stands for the whole folder. It follows lost events, a restart of watching, and a change of
    an ignore rule, of the checked-out branch or of the root itself.

    What no event tells is checked regularly: whether the root is still the same directory (a network drive went away, a
    parent was moved), and whether git's configuration, exclude files or indexes changed the ignore rules.

    `filter` is replaced when the ignore rules change. On network drives, and when the system allows no more watches,
    the folder is polled every `poll_s` seconds; in the second case `on_warning` is called once.
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
        """How many times the system lost events."""
        self._root = str(filter.root)
        self._display_root = root
        self._on_hint = on_hint
        self._on_warning = on_warning
        self._poll_s = poll_s
        self._observer: BaseObserver | None = None
        self._lock = threading.Lock()
        self._rebuild_timer: threading.Timer | None = None
        self._at_limit = False
        self._root_lost = False
        self._root_identity: object = None
        self._return_hinted = False
        self._checks: threading.Thread | None = None
        self._end_checks = threading.Event()
        self._stopped = True
        self._head_file: str | None = None

    @property
    def alive(self) -> bool:
        """Whether events are received. False after the root was deleted, moved or replaced; then call `start` again.

        The hint None says so, and comes again when the root is back.
        """
        observer = self._observer
        return observer is not None and observer.is_alive() and not self._root_lost

    def start(self) -> None:
        """Start watching. Blocks while directories are registered; later changes cause hints.

        Raises FolderError if the root is missing or cannot be watched.
        """
        self._stop_observer()
        self._start_checks()
        if self._root_lost:  # another directory may be in its place
            self._reload_filter()
        self._root_lost = self._at_limit = self._return_hinted = False
        self._root_identity = _identity(self._root)
        if self._root_identity is None:
            self._root_lost = True
            raise FolderError(f"{self._display_root} no longer exists, so it cannot be watched.")
        self.mode = "polling" if is_remote(self._root) else "native"
        observer = self._start_polling() if self.mode == "polling" else self._start_native_or_polling()
        with self._lock:
            self._observer, self._stopped = observer, False
        if self._at_limit and self.mode == "native":  # reached after registration
            self._switch_to_polling()

    def stop(self) -> None:
        """Stop all threads. Call `start` and `stop` from one thread, never from a callback."""
        self._end_checks.set()
        if self._checks is not None:
            self._checks.join(_JOIN_S)
            self._checks = None
        self._stop_observer()

    def _stop_observer(self) -> None:
        with self._lock:
            self._stopped = True
        observer, rebuild_timer = self._detach_observer()
        if rebuild_timer is not None:
            rebuild_timer.cancel()
        if observer is not None:
            _stop_and_join(observer)

    # --- regular checks --------------------------------------------------------------------------------------------

    def _start_checks(self) -> None:
        if self._checks is None:
            self._end_checks = threading.Event()
            arguments = (self._end_checks,)
            self._checks = threading.Thread(target=self._check, args=arguments, name="c2l-watch-check", daemon=True)
            self._checks.start()

    def _check(self, end: threading.Event) -> None:
        pause = _CHECK_S
        while not end.wait(pause):
            started = time.monotonic()
            self._check_root()
            if not self._root_lost and self.filter.outdated() and not end.is_set():
                self._on_rules_changed()
            pause = max(_CHECK_S, (time.monotonic() - started) / _CHECK_SHARE)

    def _check_root(self) -> None:
        """Hint when the root is gone or another directory than the watched one, and once more when it is back."""
        found = _identity(self._root)
        if not self._root_lost and found != self._root_identity:
            self._lose_root()
        elif self._root_lost and found is not None and not self._return_hinted:
            self._return_hinted = True
            self._on_hint(None)

    def _lose_root(self) -> None:
        self._return_hinted = False
        self._root_lost = True
        self._on_hint(None)

    # --- starting --------------------------------------------------------------------------------------------------

    def _detach_observer(self) -> tuple[BaseObserver | None, threading.Timer | None]:
        """Forget and return the observer and the timer. The caller stops them without the lock, which they may need."""
        with self._lock:
            detached = self._observer, self._rebuild_timer
            self._observer = self._rebuild_timer = None
        return detached

    def _start_native_or_polling(self) -> BaseObserver:
        observer = None
        try:
            observer = self._start_observer(self._native_observer())
        except OSError as error:
            if error.errno not in _LIMIT_ERRORS:
                raise FolderError(f"{self._display_root} cannot be watched: {error.strerror or error}.") from error
            self._at_limit = True
        if observer is not None and self._at_limit:
            _stop_and_join(observer)
        return self._start_polling_at_limit() if observer is None or self._at_limit else observer

    def _native_observer(self) -> BaseObserver:
        if sys.platform == "linux":
            from c2l_lsp.repo.watching.inotify import InotifyObserver

            return InotifyObserver(self._should_watch, self._on_events_lost)
        else:  # `else`, because mypy narrows sys.platform this way
            from watchdog.observers import Observer  # the class depends on the platform

            return Observer()

    def _start_polling_at_limit(self) -> BaseObserver:
        self.mode = "polling"
        self._on_warning(
            FolderError(
                f"The system allows no more file watches, so {self._display_root} is polled every {self._poll_s:g} s. "
                "To watch it instead, raise fs.inotify.max_user_watches (or max_user_instances)."
            )
        )
        return self._start_polling()

    def _start_polling(self) -> BaseObserver:
        from watchdog.observers.polling import PollingObserverVFS  # imported here because it is rarely needed

        return self._start_observer(
            PollingObserverVFS(stat=os.lstat, listdir=self._scandir, polling_interval=self._poll_s)
        )

    def _start_observer(self, observer: BaseObserver) -> BaseObserver:
        handler = _Handler(self._on_event)
        observer.schedule(handler, self._root, recursive=True, event_filter=_EVENT_TYPES)
        git_dir = git_directory.find(Path(self._root))
        self._head_file = str(git_dir.dir / "HEAD") if git_dir else None
        if git_dir is not None and not git_dir.dir.is_relative_to(self._root):
            # A linked worktree, a submodule, or a folder below the top of a working tree.
            observer.schedule(handler, str(git_dir.dir), recursive=False, event_filter=_EVENT_TYPES)
        try:
            observer.start()
        except OSError:
            _stop_and_join(observer)
            raise
        return observer

    def _should_watch(self, path: str) -> bool:
        """Return whether a directory needs a watch. `.git` does because of HEAD; directories in it do not."""
        relative = self._relative(path)
        return relative == ".git" or (relative is not None and self.filter.includes_directory(relative))

    def _scandir(self, path: str | None) -> Iterator[os.DirEntry[str]]:
        """Yield the entries of a directory that polling must compare."""
        with os.scandir(path) as entries:
            unfiltered = list(entries)
        for entry in unfiltered:
            relative = self._relative(entry.path)
            if relative is None:
                included = entry.path == self._head_file
            elif entry.is_dir(follow_symlinks=False):
                included = self._should_watch(entry.path)
            else:
                in_rules = self.filter.includes(relative) or self.filter.affects_rules(relative)
                included = in_rules or entry.path == self._head_file
            if included:
                yield entry

    # --- events ----------------------------------------------------------------------------------------------------

    def _on_event(self, event: FileSystemEvent) -> None:
        if isinstance(event, DirDeletedEvent | DirMovedEvent) and os.fsdecode(event.src_path) == self._root:
            self._lose_root()  # also if there is a new directory by now: the watches were those of the old one
            return
        for raw in (event.src_path, event.dest_path):
            if raw:
                self._on_change(os.fsdecode(raw), event.is_directory)

    def _on_change(self, path: str, is_directory: bool) -> None:
        if path in (self._root, self._head_file):
            self._on_hint(None)
        elif (relative := self._relative(path)) is not None:
            self._on_change_inside(relative, is_directory)

    def _on_change_inside(self, path: str, is_directory: bool) -> None:
        parent = path.rpartition("/")[0]
        if self.filter.affects_rules(path) and self.filter.includes_directory(parent):
            self._on_rules_changed()
        elif self.filter.includes_directory(path) if is_directory else self.filter.includes(path):
            # Changes of the index cause no hint: `git add` and refreshes write it without changing a file.
            self._on_hint(frozenset({path}))

    def _on_rules_changed(self) -> None:
        self._reload_filter()
        self._on_hint(None)
        self._schedule_rebuild()

    def _reload_filter(self) -> None:
        with contextlib.suppress(C2LError):  # the root is missing: the present rules stay in force
            self.filter = self.filter.reloaded()

    def _schedule_rebuild(self) -> None:
        """Replace the watches a little later, because a checkout can change hundreds of ignore files."""
        with self._lock:
            if self._observer is None or self._rebuild_timer is not None:
                return
            self._rebuild_timer = threading.Timer(_REBUILD_DELAY_S, self._rebuild_watches)
            self._rebuild_timer.daemon = True
            self._rebuild_timer.start()

    def _rebuild_watches(self) -> None:
        with self._lock:
            self._rebuild_timer = None
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
            self._lose_root()
        elif not self._at_limit:
            self._at_limit = True
            if self._observer is not None:  # running: this is its own thread, which cannot join itself
                threading.Thread(target=self._switch_to_polling, name="c2l-watch-polling", daemon=True).start()

    def _switch_to_polling(self) -> None:
        observer, rebuild_timer = self._detach_observer()
        if rebuild_timer is not None:
            rebuild_timer.cancel()
        if observer is None:
            return  # stopped in the meantime
        _stop_and_join(observer)
        polling = self._start_polling_at_limit()
        with self._lock:
            stopped, self._observer = self._stopped, None if self._stopped else polling
        if stopped:
            _stop_and_join(polling)
        else:
            self._on_hint(None)

    def _relative(self, path: str) -> str | None:
        if not path.startswith(self._root + os.sep):
            return None
        return path[len(self._root) + 1 :].replace(os.sep, "/")


def _identity(root: str) -> object:
    """Return what identifies the directory; None if there is none."""
    try:
        status = os.stat(root)  # noqa: PTH116 - a str, like watchdog's paths
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None


class _Handler(FileSystemEventHandler):
    def __init__(self, on_event: Callable[[FileSystemEvent], None]) -> None:
        self._on_event = on_event

    def dispatch(self, event: FileSystemEvent) -> None:
        self._on_event(event)


def _stop_and_join(observer: BaseObserver) -> None:
    observer.stop()
    with contextlib.suppress(RuntimeError):  # it was never started
        observer.join()
