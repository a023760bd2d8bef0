"""A state folder on a small disk that can be filled or made read-only.

The disk is a tmpfs in a mount namespace of the process, which needs Linux with unprivileged user namespaces.
Where that is forbidden, a limit on the size of files replaces it.
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
_MAX_FILE = 4096
"""Maximum bytes of a file if only a limit can be set; larger writes fail in the middle."""

_MOUNT = f'mount -t tmpfs -o size={SIZE_MB}m,mode=0700 soak "$0" && exec "$@"'


@cache
def mountable() -> str:
    """The reason why no disk can be mounted here; "" if it can."""
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
    """A disk that can be made unusable (`close`) and usable again (`open`)."""

    def __init__(self, state: Path, kind: str) -> None:
        self.state, self.kind = state, kind

    def command(self, server: Sequence[str]) -> Sequence[str]:
        """The server's command, with its state on the disk."""
        return server

    def close(self, pid: int) -> None:
        """Make the disk unusable."""
        raise NotImplementedError

    def open(self, pid: int) -> None:
        """Make the disk usable again."""
        raise NotImplementedError

    def saved(self, pid: int) -> int:
        """The number of folders with a complete generation on the disk."""
        from c2l_lsp.engine.storage.store import FolderStore

        pointers = list(self._seen_by(pid).glob("*/CURRENT"))
        return sum(FolderStore(pointer.parent).load_metadata() is not None for pointer in pointers)

    def _seen_by(self, pid: int) -> Path:
        del pid
        return self.state


class SmallDisk(Disk):
    """A disk of SIZE_MB, filled completely or mounted read-only."""

    def command(self, server: Sequence[str]) -> Sequence[str]:
        """The server in its own mount namespace."""
        self.state.mkdir(parents=True)
        return [*_unshare(), "sh", "-c", _MOUNT, str(self.state), *server]

    def _seen_by(self, pid: int) -> Path:
        return Path(f"/proc/{pid}/root") / str(self.state).lstrip("/")

    def close(self, pid: int) -> None:
        """Fill the disk or remount it, once it is mounted."""
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
        """Make the disk usable again."""
        if self.kind == "read-only":
            self._remount(pid, "rw")
        else:
            (self._seen_by(pid) / "filler").unlink()

    def _remount(self, pid: int, how: str) -> None:
        into = ["nsenter", "-t", str(pid), "-m", *([] if os.geteuid() == 0 else ["-U", "--preserve-credentials"])]
        command = [*into, "mount", "-o", f"remount,{how}", str(self.state)]
        subprocess.run(command, check=True, capture_output=True, timeout=30)


class Limited(Disk):
    """Without a disk: a limit on the size of files, or a file in place of the folder."""

    def command(self, server: Sequence[str]) -> Sequence[str]:
        """The unchanged command of the server."""
        if self.kind == "read-only":
            self.state.parent.mkdir(parents=True, exist_ok=True)
            self.state.write_text("a file where the folder should be")
        return server

    def close(self, pid: int) -> None:
        """Make the disk unusable."""
        if self.kind != "read-only":
            psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (_MAX_FILE, -1))  # children inherit it

    def open(self, pid: int) -> None:
        """Make the disk usable again."""
        if self.kind == "read-only":
            self.state.unlink()
            return
        server = psutil.Process(pid)
        for process in (server, *server.children(recursive=True)):
            process.rlimit(psutil.RLIMIT_FSIZE, (-1, -1))
