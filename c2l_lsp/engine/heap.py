"""Memory that the engine does not use any more goes back to the system.

glibc keeps a freed block for the next request of its size, and takes ever larger ones for worth keeping: after a folder
was read, a quarter of the engine's memory was such blocks.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM, _MMAP, _ARENAS = -1, -3, -8  # malloc.h
_BLOCK = 2**20
"""Blocks above this size are the system's own pages: an activation of some hundred tokens."""


def give_back() -> bool:
    """Have large blocks freed at once, from few arenas, in this process; False where malloc is not glibc's."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another libc
        return False
    return all(mallopt(what, value) == 1 for what, value in ((_MMAP, _BLOCK), (_TRIM, _BLOCK), (_ARENAS, 2)))
