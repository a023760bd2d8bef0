"""Detects opens of files with inotify, by any process and any path: relative names, native code, git."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
from collections.abc import Iterable
from pathlib import Path

_IN_OPEN = 0x20
_HEADER = 16


class Opens:
    """Watches files; `seen` returns those that were opened. Linux only; elsewhere `blind` is true."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.blind = sys.platform != "linux"
        self._names: dict[int, Path] = {}
        if self.blind:
            return
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        for path in paths:
            if path.is_file():
                watch = libc.inotify_add_watch(self._descriptor, os.fsencode(path), _IN_OPEN)
                if watch < 0:
                    raise OSError(ctypes.get_errno(), f"inotify_add_watch {path}")
                self._names[watch] = path

    def seen(self) -> set[Path]:
        """The files opened since the last call. OSError if the kernel lost events."""
        found: set[Path] = set()
        if self.blind:
            return found
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._descriptor, 1 << 16):
                while data:
                    watch, mask = (int.from_bytes(data[at : at + 4], sys.byteorder, signed=True) for at in (0, 4))
                    if mask & 0x4000:
                        raise OSError(errno.EOVERFLOW, "the inotify queue overflowed")
                    size = int.from_bytes(data[12:16], sys.byteorder)
                    if watch in self._names and mask & _IN_OPEN:
                        found.add(self._names[watch])
                    data = data[_HEADER + size :]
        return found

    def close(self) -> None:
        """Stop watching."""
        if not self.blind:
            os.close(self._descriptor)
