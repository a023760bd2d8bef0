"""Whether a function takes a time proportional to its input."""

import time
from collections.abc import Callable

TRIES = 5
MAX_FACTOR = 8.0
"""For four times the input. A linear function takes four times as long, a quadratic one sixteen times."""
_FLOOR_S = 0.002  # below this the clock and constant costs decide


def seconds(run: Callable[[], object]) -> float:
    """Return the least CPU time of this thread that one of TRIES runs takes."""
    taken = []
    for _ in range(TRIES):
        began = time.thread_time()
        run()
        taken.append(time.thread_time() - began)
    return min(taken)


def assert_linear(prepare: Callable[[int], Callable[[], object]], size: int) -> None:
    """Compare `prepare(size)()` with `prepare(4 * size)()`. The preparation is not timed."""
    small, large = seconds(prepare(size)), seconds(prepare(4 * size))
    assert large < MAX_FACTOR * max(small, _FLOOR_S), f"{small * 1e3:.1f} ms, four times the input {large * 1e3:.1f} ms"
