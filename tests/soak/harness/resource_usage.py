"""The resources of a process: memory, descriptors, threads, file watches."""

from __future__ import annotations

from pathlib import Path

import psutil


def usage(process: psutil.Process) -> dict[str, float]:
    """RSS in MB, and counts. Watches are 0 except on Linux. Empty if the process is gone."""
    try:
        used = {
            "mb": process.memory_info().rss / 2**20,
            "descriptors": float(process.num_fds() if hasattr(process, "num_fds") else 0),
            "threads": float(process.num_threads()),
        }
        used["watches"] = float(_watches(process.pid))
    except psutil.NoSuchProcess:
        return {}
    return used


def _watches(pid: int) -> int:
    count = 0
    try:
        for info in Path(f"/proc/{pid}/fdinfo").iterdir():
            try:
                count += info.read_text().count("inotify wd:")
            except OSError:
                continue
    except OSError:
        return 0
    return count
