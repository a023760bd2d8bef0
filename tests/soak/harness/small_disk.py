"""A state directory on a disk of its own, small and full, or read-only: seen by one process and its children only.

It is a file system in memory in a mount namespace of the process, so nobody needs to be root (Linux with unprivileged
user namespaces). Where that is forbidden a limit of size on every file stands for it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import psutil

SIZE_MB = 48
_ROOM = 4096
"""Bytes that a file may have at most where only a limit can be set: every larger write fails in the middle."""

_MOUNT = f'mount -t tmpfs -o size={SIZE_MB}m,mode=0700 soak "$0" && exec "$@"'


@cache
def mountable() -> str:
    """Why no small disk can be mounted here; "" if one can."""
    if sys.platform != "linux":
        return "not Linux"
    command = [*_unshare(), "sh", "-c", _MOUNT, "/mnt", "true"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if ran.returncode == 0 else ran.stderr.strip()[:200] or f"mount ended with {ran.returncode}"


def _unshare() -> list[str]:
    return ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]


class Disk:
    """What a full disk is made with. `close` takes the room, `open` gives it back."""

    def __init__(self, state: Path, kind: str) -> None:
        self.state, self.kind = state, kind

    def command(self, server: Sequence[str]) -> Sequence[str]:
        """The server's command on that disk."""
        return server

    def close(self, pid: int) -> None:
        """Take the room."""
        raise NotImplementedError

    def open(self, pid: int) -> None:
        """Give it back."""
        raise NotImplementedError

    def kept(self, pid: int) -> int:
        """Of how many folders a whole generation is on the disk."""
        from c2l_lsp.engine.storage.store import FolderStore

        pointers = list(self._seen_by(pid).glob("*/CURRENT"))
        return sum(FolderStore(pointer.parent).load_metadata() is not None for pointer in pointers)

    def _seen_by(self, pid: int) -> Path:
        del pid
        return self.state


class SmallDisk(Disk):
    """A disk of some megabytes, filled to the last byte, or mounted read-only."""

    def command(self, server: Sequence[str]) -> Sequence[str]:
        """The server in a mount namespace of its own."""
        self.state.mkdir(parents=True)
        return [*_unshare(), "sh", "-c", _MOUNT, str(self.state), *server]

    def _seen_by(self, pid: int) -> Path:
        return Path(f"/proc/{pid}/root") / str(self.state).lstrip("/")

    def close(self, pid: int) -> None:
        """Take the room, once the disk is there."""
        here, until = self._seen_by(pid), time.monotonic() + 30
        outside = self.state.stat().st_dev
        while here.stat().st_dev == outside:
            if time.monotonic() > until:
                raise TimeoutError("the small disk was not mounted")
            time.sleep(0.002)
        if self.kind == "read-only":
            self._remount(pid, "ro")
            return
        with contextlib.suppress(OSError), (here / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 4096)

    def open(self, pid: int) -> None:
        """Give it back."""
        if self.kind == "read-only":
            self._remount(pid, "rw")
        else:
            (self._seen_by(pid) / "filler").unlink()

    def _remount(self, pid: int, how: str) -> None:
        into = ["nsenter", "-t", str(pid), "-m", *([] if os.geteuid() == 0 else ["-U", "--preserve-credentials"])]
        command = [*into, "mount", "-o", f"remount,{how}", str(self.state)]
        subprocess.run(command, check=True, capture_output=True, timeout=30)


class Limited(Disk):
    """No disk of its own: files may have a page, or there is a file where the folder should be."""

    def command(self, server: Sequence[str]) -> Sequence[str]:
        """The server as it is."""
        if self.kind == "read-only":
            self.state.parent.mkdir(parents=True, exist_ok=True)
            self.state.write_text("a file where the folder should be")
        return server

    def close(self, pid: int) -> None:
        """Take the room."""
        if self.kind != "read-only":
            psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (_ROOM, -1))  # children inherit it

    def open(self, pid: int) -> None:
        """Give it back."""
        if self.kind == "read-only":
            self.state.unlink()
            return
        server = psutil.Process(pid)
        for process in (server, *server.children(recursive=True)):
            process.rlimit(psutil.RLIMIT_FSIZE, (-1, -1))
