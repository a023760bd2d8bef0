"""Whether a function takes a time proportional to its input."""

import gc
import time
from collections.abc import Callable

TRIES = 5
MAX_FACTOR = 8.0
"""For four times the input. A linear function takes four times as long, a quadratic one sixteen times."""
ROUNDS = 3
"""A machine that is busy with other work slows one measurement down, hardly three in a row."""
_FLOOR_S = 0.002  # below this the clock and constant costs decide


def seconds(run: Callable[[], object]) -> float:
    """Return the least CPU time of this thread that one of TRIES runs takes.

    The garbage collector is off: it visits every object that other tests left behind.
    """
    taken = []
    enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(TRIES):
            began = time.thread_time()
            run()
            taken.append(time.thread_time() - began)
    finally:
        if enabled:
            gc.enable()
    return min(taken)


def assert_linear(prepare: Callable[[int], Callable[[], object]], size: int) -> None:
    """Compare `prepare(size)()` with `prepare(4 * size)()`. The preparation is not timed.

    Raises:
        AssertionError: In each of ROUNDS the large input took MAX_FACTOR times as long as the small one.
    """
    pairs = []
    for _ in range(ROUNDS):
        small, large = seconds(prepare(size)), seconds(prepare(4 * size))
        if large < MAX_FACTOR * max(small, _FLOOR_S):
            return
        pairs.append(f"{small * 1e3:.1f} ms, four times the input {large * 1e3:.1f} ms")
    raise AssertionError("; ".join(pairs))
