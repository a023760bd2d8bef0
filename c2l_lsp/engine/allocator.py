"""Memory that the engine does not use any more goes back to the system, and kernels are not kept for ever.

glibc keeps a freed block for the next request of its size, and takes ever larger ones for worth keeping: after a folder
was read, a quarter of the engine's memory was such blocks.
"""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM, _MMAP, _ARENAS = -1, -3, -8  # malloc.h
_BLOCK = 2**20
"""Blocks above this size are the system's own pages: an activation of some hundred tokens."""


def return_freed_memory() -> bool:
    """Have large blocks freed at once, from few arenas, in this process; False where malloc is not glibc's."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another libc
        return False
    return all(mallopt(what, value) == 1 for what, value in ((_MMAP, _BLOCK), (_TRIM, _BLOCK), (_ARENAS, 2)))


KERNELS = 64
"""Matrix kernels kept ready: more than a decode step needs for one to five tokens, 30 in a model of one layer shape."""


def limit_kernel_caches() -> None:
    """Bound what oneDNN and PyTorch keep of matrix kernels; to be called before torch is loaded.

    Both keep 1,024, one for every number of tokens that was ever read, with its workspace: after 240 prompts of
    different lengths the shipped model in bf16 held 572 MB of them, with these bounds 83 MB. Fewer gain little (16: 35
    MB) and would be made anew at every decode step; the time differed no more than from run to run.
    """
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(KERNELS))
