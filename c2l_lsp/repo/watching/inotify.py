"""A variant of watchdog's inotify observer. Import it on Linux only.

Differences from watchdog:

- Ignored directories get no watch.
- Lost events are reported through `on_loss`. watchdog only logs a queue overflow, and silently skips a directory below
  the root that it cannot watch.
- The event mask is small.
- The move of a file is reported as a deletion and a creation.
- A burst of events is discarded and reported as an overflow.

The module uses private names of watchdog. Therefore watchdog's major version is pinned, and
tests/repo/watching/test_watch.py fails if one of the names disappears.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from watchdog.events import FileSystemEvent
from watchdog.observers.api import BaseObserver, EventQueue, ObservedWatch
from watchdog.observers.inotify import InotifyEmitter, InotifyWatchGroup
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, InotifyFD, Mask, WatchDescriptor

Loss: TypeAlias = Literal["overflow", "limit", "moved"]
"""overflow: the kernel's event queue was full. limit: no more watches are allowed. moved: the root was moved away."""

MASK = Mask(
    InotifyConstants.IN_ATTRIB
    | InotifyConstants.IN_CREATE
    | InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_MOVE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVE_SELF
)
"""IN_ATTRIB reports that a file became readable or unreadable. IN_MODIFY is omitted because every write of a long save
would add an event; IN_CLOSE_WRITE reports the save. IN_OPEN, IN_ACCESS and IN_CLOSE_NOWRITE are omitted because our own
reading would cause them."""

BURST_EVENTS = 1000
"""More events within a second are a burst (a checkout or a build). Converting an event to a hint takes 0.2 ms of the
interpreter, which completions need; therefore a burst is discarded and the whole folder is scanned."""

BURST_QUIET_S = 0.1
"""A burst ends after this time without an event."""

MAX_BURST_S = 5.0
"""A burst is cut off after this time."""

_OVERFLOW = InotifyEvent(WatchDescriptor(-1), InotifyConstants.IN_Q_OVERFLOW, 0, b"")


class InotifyObserver(BaseObserver):
    """Watches a folder and the directories below it for which `should_watch(absolute path)` is true.

    `on_loss` is called on the reading thread. Raises OSError (ENOSPC, EMFILE) if no watch can be added.
    """

    def __init__(self, should_watch: Callable[[str], bool], on_loss: Callable[[Loss], None]) -> None:
        self.inotify = _Reader()
        self.inotify.start()
        super().__init__(_Emitter, inotify_fd=self.inotify, should_watch=should_watch, on_loss=on_loss)

    def rebuild(self) -> None:
        """Replace all watches according to the present rules. Pending events are lost."""
        for emitter in list(self.emitters):
            if isinstance(emitter, _Emitter):
                emitter.rebuild()

    def on_thread_stop(self) -> None:
        """Stop the reading thread as well. Called by `stop`."""
        super().on_thread_stop()
        self.inotify.stop()
        self.inotify.join()


class _Reader(InotifyFD):
    """Reads events, and replaces a burst of them by one overflow event."""

    def __init__(self) -> None:
        super().__init__()
        self._second_began, self._count = 0.0, 0

    def read_events(self, **options: int) -> list[InotifyEvent]:
        events = super().read_events(**options)
        now = time.monotonic()
        if now - self._second_began > 1.0:
            self._second_began, self._count = now, 0
        self._count += sum(not event.is_ignored for event in events)  # these report watches that were removed
        if self._count <= BURST_EVENTS:
            return events
        self._discard_events(now + MAX_BURST_S)
        self._count = 0
        return [_OVERFLOW]

    def _discard_events(self, until: float) -> None:
        with self._lock:
            if self._closed:
                return
            self._is_reading = True  # `close` then leaves the descriptors to this thread
        try:
            while time.monotonic() < until and self._wait_for_event():
                os.read(self._inotify_fd, 1 << 20)
                time.sleep(BURST_QUIET_S / 4)  # fewer, larger reads
        finally:
            self._resume_reading()

    def _resume_reading(self) -> None:
        with self._lock:
            self._is_reading = False
            if self._closed:
                self._close_resources()

    def _wait_for_event(self) -> bool:
        ready, _, _ = select.select([self._inotify_fd, self._kill_r], [], [], BURST_QUIET_S)
        return self._inotify_fd in ready and self._kill_r not in ready


class _Emitter(InotifyEmitter):
    def __init__(
        self,
        event_queue: EventQueue,
        watch: ObservedWatch,
        *,
        timeout: float,
        event_filter: list[type[FileSystemEvent]] | None,
        inotify_fd: InotifyFD,
        should_watch: Callable[[str], bool],
        on_loss: Callable[[Loss], None],
    ) -> None:
        super().__init__(event_queue, watch, timeout=timeout, event_filter=event_filter, inotify_fd=inotify_fd)
        self._should_watch = should_watch
        self._on_loss = on_loss

    def on_thread_start(self) -> None:
        self._inotify = _Group(
            self._inotify_fd,
            os.fsencode(self.watch.path),
            is_recursive=self.watch.is_recursive,
            event_mask=MASK,
            should_watch=self._should_watch,
            on_loss=self._on_loss,
        )

    def rebuild(self) -> None:
        if isinstance(self._inotify, _Group):
            self._inotify.rebuild()


@dataclass
class _Group(InotifyWatchGroup):
    should_watch: Callable[[str], bool] = field(default=bool)
    on_loss: Callable[[Loss], None] = field(default=print)
    _unreadable: set[bytes] = field(default_factory=set, init=False)

    def on_event(self, event: InotifyEvent) -> None:
        path = self._build_event_source_path(event)
        if path is None:
            return
        if event.is_move_self:
            if path == self.path:
                self.on_loss("moved")
            return
        if event.is_attrib and event.is_directory and not self._readability_changed(path):
            return
        arrived = event.is_directory and (event.is_create or event.is_moved_to)
        if not (arrived and not self.should_watch(os.fsdecode(path))):
            super().on_event(_split_move(event))

    def _readability_changed(self, path: bytes) -> bool:
        """Return whether a directory became readable or unreadable. Other attributes do not matter."""
        readable = os.access(path, os.R_OK | os.X_OK)
        if readable == (path in self._active_callbacks_by_path and path not in self._unreadable):
            return False
        if not readable:
            self._unreadable.add(path)
        elif path in self._unreadable:
            self._unreadable.discard(path)
        elif self.should_watch(os.fsdecode(path)):
            with self._lock:
                self._add_all_callbacks(path)
        return True

    def rebuild(self) -> None:
        """Replace all watches, as watchdog does after an overflow."""
        super().on_queue_overflow()

    def on_queue_overflow(self) -> None:
        super().on_queue_overflow()
        if self.is_recursive:
            self.on_loss("overflow")

    def _add_all_callbacks(self, path: bytes) -> None:
        pending = [path]
        while pending:
            here = pending.pop()
            if here != self.path and not self.should_watch(os.fsdecode(here)):
                continue
            self._add_callback(here)
            if self.is_recursive:
                pending += _subdirectories(here)

    def _add_callback(self, path: bytes) -> None:
        super()._add_callback(path)
        # watchdog ignores a failure below the root. If the directory is readable, the cause is the watch limit.
        if path not in self._active_callbacks_by_path and os.access(path, os.R_OK):
            self.on_loss("limit")


def _split_move(event: InotifyEvent) -> InotifyEvent:
    """Return half of a file's move as a deletion or a creation.

    watchdog would search its whole queue for the other half, which takes seconds when a build renames thousands of
    files. A hint does not need the pair.
    """
    if event.is_directory or not event.is_move:
        return event
    kind = InotifyConstants.IN_DELETE if event.is_moved_from else InotifyConstants.IN_CREATE
    return InotifyEvent(event.wd, kind, 0, event.name)


def _subdirectories(path: bytes) -> list[bytes]:
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
