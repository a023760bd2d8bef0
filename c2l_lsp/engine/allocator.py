"""Memory limits of the engine process: freed blocks go back to the system, and kernel caches stay small."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM, _MMAP, _ARENAS = -1, -3, -8  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX
_MAX_KEPT_BYTES = 2**20  # an activation of some hundred tokens is larger, and is mapped and unmapped on its own


def return_freed_memory() -> bool:
    """Make glibc return large freed blocks at once and use two arenas. Return False if malloc is not glibc's.

    By default glibc raises its threshold for large blocks when one is freed and keeps smaller ones for reuse: after
    indexing a folder, such blocks were a quarter of the engine's memory.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another libc
        return False
    options = ((_MMAP, _MAX_KEPT_BYTES), (_TRIM, _MAX_KEPT_BYTES), (_ARENAS, 2))
    return all(mallopt(option, value) == 1 for option, value in options)


MAX_KERNELS = 64
"""Cached matrix kernels. Decode steps of one to five tokens need 30 in a model whose layers have the same shapes."""


def limit_kernel_caches() -> None:
    """Limit the kernel caches of oneDNN and PyTorch. Must be called before torch is imported.

    Both keep 1,024 kernels by default, one for each prompt length so far, with its workspace. Memory of the shipped
    model in bf16 after 240 prompts of different lengths:

        cached kernels   1,024      64      16
        memory          572 MB   83 MB   35 MB

    With 16, each decode step would compile its kernels again. The time per completion did not change measurably.
    """
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(MAX_KERNELS))
