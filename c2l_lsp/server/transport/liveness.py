"""Telling a process that hangs from one that gets no processor: both are silent, and only the first must be ended."""

from __future__ import annotations

_SHARE = 0.5
"""A process that got less than this share of a core in a time it needed could not answer in it."""


def cpu_seconds(pid: int) -> float | None:
    """The processor time a process has used; None if it cannot be seen."""
    import psutil  # takes a while, and start-up does not need it

    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)


def starved(pid: int, used: float | None, wall: float) -> bool:
    """Whether a process wants to run and got little of the last `wall` seconds; `used` was `cpu_seconds` before them.

    One that waits for something (a lock, a pipe) or that runs and runs is not.
    """
    import psutil

    now = cpu_seconds(pid)
    if used is None or now is None or now - used > _SHARE * wall:
        return False
    try:
        status = psutil.Process(pid).status()
    except psutil.Error:
        return False
    return bool(status in (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP))
