"""Ends the engine with its server, however the server ended and whatever the engine is doing.

The engine's stdin ends with the server. A reader thread notices this while the main loop computes, loads or hangs. Only
native code that holds the GIL stops that thread as well; on Linux the kernel ends the process in this case.
"""

from __future__ import annotations

import os
import signal
import sys
import time

GRACE_S = 3.0
"""Time for an orderly exit after the end of stdin, in which the main loop finishes a write."""


def exit_with_parent() -> None:
    """Have the kernel kill this process when its parent ends (Linux only). A save may be interrupted at any point."""
    if sys.platform == "linux":
        import ctypes

        set_death_signal = 1  # PR_SET_PDEATHSIG; a parent that ended earlier is noticed by the end of stdin
        ctypes.CDLL(None).prctl(set_death_signal, int(signal.SIGKILL))


def exit_after_grace() -> None:
    """Exit if the process still runs after GRACE_S. To be called by the reader thread at the end of stdin."""
    time.sleep(GRACE_S)
    os._exit(1)
