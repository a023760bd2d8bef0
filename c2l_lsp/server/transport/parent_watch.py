"""Watches the editor's process: the server must not outlive it, even if a pipe stays open."""

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
    """Call `on_gone` from a thread when the process has ended; never if it is not visible (in a container).

    A thread works even while the event loop is blocked. psutil compares start times, so a reused pid is not mistaken
    for the editor. `poll` is in seconds.
    """
    existed = _exists(pid)

    def run() -> None:
        import psutil  # slow to import, and `initialize` must not wait for it

        try:
            editor = psutil.Process(pid)
        except psutil.NoSuchProcess:
            if existed:  # it ended while psutil was imported
                on_gone()
            return
        except (psutil.Error, ValueError, OverflowError):
            return
        pause = threading.Event()
        while _alive(editor):
            pause.wait(poll)
        on_gone()

    thread = threading.Thread(target=run, name="c2l-editor-watch", daemon=True)
    thread.start()
    return thread


def _exists(pid: int) -> bool:
    """Whether the process certainly exists. Always False on Windows, where os.kill(pid, 0) would end the process."""
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
    except psutil.Error:  # without permission to look, assume that it runs
        return True
