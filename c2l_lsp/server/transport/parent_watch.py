"""Watches the editor's process: a server must not outlive it, even where a pipe stays open. Nothing else."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

POLL = 2.0


def watch(pid: int, on_gone: Callable[[], None], poll: float = POLL) -> threading.Thread:
    """Call `on_gone` in a thread once the process is gone; never if it cannot be seen from here (a container).

    A thread, not the loop: it must work while the loop is stuck. The start time guards against a reused pid.
    """
    seen = _exists(pid)

    def run() -> None:
        import psutil  # takes a while, and `initialize` need not wait for it

        try:
            editor = psutil.Process(pid)
        except psutil.NoSuchProcess:
            if seen:  # it ended while psutil was loaded
                on_gone()
            return
        except (psutil.Error, ValueError, OverflowError):
            return
        never = threading.Event()
        while _alive(editor):
            never.wait(poll)
        on_gone()

    thread = threading.Thread(target=run, name="c2l-editor-watch", daemon=True)
    thread.start()
    return thread


def _exists(pid: int) -> bool:
    """True only if it is certain at once; on Windows signal 0 would end the process, so there nothing is asked."""
    if sys.platform == "win32" or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _alive(process: psutil.Process) -> bool:
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # no permission to look is no proof of an end
        return True
