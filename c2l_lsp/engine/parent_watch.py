"""The engine must not outlive its server, however that ended and whatever the engine is doing.

Its stdin ends with the server, and a thread sees that while the main loop computes, loads or hangs. Only native code
that holds Python's lock stops that thread too; on Linux the kernel itself ends the process then.
"""

from __future__ import annotations

import os
import signal
import sys
import time

GRACE_S = 3.0
"""After the end of stdin the main loop has so long to end in order, with what it is writing written."""


def exit_with_parent() -> None:
    """Have the kernel end this process with the one that started it, where it can. Saving is safe against that."""
    if sys.platform == "linux":
        import ctypes

        set_death_signal = 1  # PR_SET_PDEATHSIG; the end of stdin tells of a parent that was gone before this
        ctypes.CDLL(None).prctl(set_death_signal, int(signal.SIGKILL))


def exit_after_grace() -> None:
    """For the thread that saw stdin end: wait for the orderly end, which takes this thread with it, or do without."""
    time.sleep(GRACE_S)
    os._exit(1)
