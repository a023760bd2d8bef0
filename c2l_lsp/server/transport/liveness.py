"""Distinguishes a process that hangs from one that gets no CPU time. Neither answers, and only the first is killed."""

from __future__ import annotations

_STARVED_SHARE = 0.5
"""A process that got less than this share of one core is considered starved."""


def cpu_seconds(pid: int) -> float | None:
    """CPU time that a process has used, in seconds; None if it cannot be read."""
    import psutil  # slow to import, and not needed at start-up

    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)


def is_starved(pid: int, cpu_before: float | None, elapsed: float) -> bool:
    """Whether a process is runnable but got little CPU time in the last `elapsed` seconds.

    `cpu_before` is its `cpu_seconds` at the start of that time. False for a process that waits for a lock or a pipe,
    and for one that runs without pause.
    """
    import psutil

    now = cpu_seconds(pid)
    if cpu_before is None or now is None or now - cpu_before > _STARVED_SHARE * elapsed:
        return False
    try:
        status = psutil.Process(pid).status()
    except psutil.Error:
        return False
    return bool(status in (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP))
