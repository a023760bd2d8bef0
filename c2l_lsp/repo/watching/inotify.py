"""watchdog's Linux observer with five changes: ignored folders are not watched, lost events are told, few kinds of
events are asked for, moves of files stay two events, a storm of events is let pass. Import this on Linux only.

The kernel tells of a full queue, and watchdog only logs it; a watch that cannot be added below the root is passed
over without a word. Both would lose edits in silence. Uses names that watchdog does not promise, so its major
version is pinned, and tests/repo/test_watch.py fails when one of them goes.
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
"""The kernel's queue was full; no more watches are allowed; the root was moved away."""

MASK = Mask(
    InotifyConstants.IN_ATTRIB
    | InotifyConstants.IN_CREATE
    | InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_MOVE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVE_SELF
)
"""IN_ATTRIB: a file that may be read from now on, or no more; reading makes none. Not IN_MODIFY: every write of a long
save would fill the queue, and closing tells of it. Not IN_OPEN, IN_ACCESS, IN_CLOSE_NOWRITE: our own reading would feed
the watcher."""


STORM = 1000
"""More events in a second are a checkout or a build. They are let pass unread, and then everything is looked at: to
make each of them a hint takes 0.2 ms of this process's one interpreter, which completions need."""

CALM_S = 0.1
LONGEST_STORM_S = 5.0
"""A storm is over after so long without an event, and taken to be after so long at all."""


_OVERFLOW = InotifyEvent(WatchDescriptor(-1), InotifyConstants.IN_Q_OVERFLOW, 0, b"")


class InotifyObserver(BaseObserver):
    """Watches a folder and those below it for which `wanted` (an absolute path) is true.

    `on_loss` is called on the reading thread. Raises OSError (ENOSPC, EMFILE) when watching cannot start.
    """

    def __init__(self, wanted: Callable[[str], bool], on_loss: Callable[[Loss], None]) -> None:
        self.inotify = _Reader()
        self.inotify.start()
        super().__init__(_Emitter, inotify_fd=self.inotify, wanted=wanted, on_loss=on_loss)

    def rebuild(self) -> None:
        """Watch what is wanted now. Events that were under way are lost."""
        for emitter in list(self.emitters):
            if isinstance(emitter, _Emitter):
                emitter.rebuild()

    def on_thread_stop(self) -> None:
        """Called by `stop`: ends the reading thread too."""
        super().on_thread_stop()
        self.inotify.stop()
        self.inotify.join()


class _Reader(InotifyFD):
    """Reads events, and makes a storm of them one overflow of the kernel's queue."""

    def __init__(self) -> None:
        super().__init__()
        self._second, self._count = 0.0, 0

    def read_events(self, **options: int) -> list[InotifyEvent]:
        events = super().read_events(**options)
        now = time.monotonic()
        if now - self._second > 1.0:
            self._second, self._count = now, 0
        self._count += sum(not event.is_ignored for event in events)  # those are of watches that we took away
        if self._count <= STORM:
            return events
        self._let_pass(now + LONGEST_STORM_S)
        self._count = 0
        return [_OVERFLOW]

    def _let_pass(self, until: float) -> None:
        with self._lock:
            if self._closed:
                return
            self._is_reading = True  # what `close` would close under our hands is ours to close then
        try:
            while time.monotonic() < until and self._comes():
                os.read(self._inotify_fd, 1 << 20)
                time.sleep(CALM_S / 4)  # much at a time
        finally:
            self._read_on()

    def _read_on(self) -> None:
        with self._lock:
            self._is_reading = False
            if self._closed:
                self._close_resources()

    def _comes(self) -> bool:
        ready, _, _ = select.select([self._inotify_fd, self._kill_r], [], [], CALM_S)
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
        wanted: Callable[[str], bool],
        on_loss: Callable[[Loss], None],
    ) -> None:
        super().__init__(event_queue, watch, timeout=timeout, event_filter=event_filter, inotify_fd=inotify_fd)
        self._wanted = wanted
        self._on_loss = on_loss

    def on_thread_start(self) -> None:
        self._inotify = _Group(
            self._inotify_fd,
            os.fsencode(self.watch.path),
            is_recursive=self.watch.is_recursive,
            event_mask=MASK,
            wanted=self._wanted,
            on_loss=self._on_loss,
        )

    def rebuild(self) -> None:
        if isinstance(self._inotify, _Group):
            self._inotify.rebuild()


@dataclass
class _Group(InotifyWatchGroup):
    wanted: Callable[[str], bool] = field(default=bool)
    on_loss: Callable[[Loss], None] = field(default=print)
    _shut: set[bytes] = field(default_factory=set, init=False)

    def on_event(self, event: InotifyEvent) -> None:
        path = self._build_event_source_path(event)
        if path is None:
            return
        if event.is_move_self:
            if path == self.path:
                self.on_loss("moved")
            return
        if event.is_attrib and event.is_directory and not self._opened_or_shut(path):
            return
        arrived = event.is_directory and (event.is_create or event.is_moved_to)
        if not (arrived and not self.wanted(os.fsdecode(path))):
            super().on_event(_unpaired(event))

    def _opened_or_shut(self, path: bytes) -> bool:
        """Whether a directory can be read from now on or no more. Its times and owners are nobody's concern."""
        readable = os.access(path, os.R_OK | os.X_OK)
        if readable == (path in self._active_callbacks_by_path and path not in self._shut):
            return False
        if not readable:
            self._shut.add(path)
        elif path in self._shut:
            self._shut.discard(path)
        elif self.wanted(os.fsdecode(path)):
            with self._lock:
                self._add_all_callbacks(path)
        return True

    def rebuild(self) -> None:
        """What watchdog does after an overflow: all watches anew."""
        super().on_queue_overflow()

    def on_queue_overflow(self) -> None:
        super().on_queue_overflow()
        if self.is_recursive:
            self.on_loss("overflow")

    def _add_all_callbacks(self, path: bytes) -> None:
        pending = [path]
        while pending:
            here = pending.pop()
            if here != self.path and not self.wanted(os.fsdecode(here)):
                continue
            self._add_callback(here)
            if self.is_recursive:
                pending += _folders(here)

    def _add_callback(self, path: bytes) -> None:
        super()._add_callback(path)
        # watchdog passes over a failure below the root. One that is there and readable failed for want of watches.
        if path not in self._active_callbacks_by_path and os.access(path, os.R_OK):
            self.on_loss("limit")


def _unpaired(event: InotifyEvent) -> InotifyEvent:
    """A file's move as a deletion here or a creation there. watchdog would look for the other half in its whole queue,
    which takes seconds when a build renames thousands of files, and a hint needs no pairs."""
    if event.is_directory or not event.is_move:
        return event
    kind = InotifyConstants.IN_DELETE if event.is_moved_from else InotifyConstants.IN_CREATE
    return InotifyEvent(event.wd, kind, 0, event.name)


def _folders(path: bytes) -> list[bytes]:
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
