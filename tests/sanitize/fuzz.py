"""Random shapes, states and frames for some seconds: `python -m tests.sanitize.fuzz SECONDS [KIND:SEED]`.

It runs with the instrumented kernel, whose sanitizers end the process at a fault. A wrong number ends it too. The last
case is written to the file C2L_SANITIZE_CASE, from which it can be run again alone.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tests.sanitize.instrumented  # first, before the kernel is imported  # noqa: F401
from tests.sanitize import frames, shapes, states

KINDS: dict[str, Callable[[random.Random], Any]] = {
    "product": shapes.product,
    "layers": shapes.layers,
    "rows": shapes.rows,
    "memory": states.memory,
    "saved": states.saved,
    "frame": frames.frame,
    "message": frames.message,
}


TURN_S = 0.25


def main(seconds: float, only: str) -> int:
    """Run cases of all kinds in turn, with seeds that count up."""
    note = Path(os.environ["C2L_SANITIZE_CASE"])
    if only:
        kind, _, seed = only.partition(":")
        KINDS[kind](random.Random(seed))
        return 0
    counts = dict.fromkeys(KINDS, 0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for kind, case in KINDS.items():  # equal times, not equal counts: a kind that is slow takes nothing from others
            until = min(end, time.monotonic() + TURN_S)
            while time.monotonic() < until:
                note.write_text(f"{kind}:{counts[kind]}", encoding="ascii")
                case(random.Random(str(counts[kind])))
                counts[kind] += 1
    print(", ".join(f"{count} × {kind}" for kind, count in counts.items()), f"({states.refused} refused)")
    used = all(counts[kind] > states.refused.get(kind, 0) for kind in KINDS)
    if not used:
        print("a kind was not run, or always refused: nothing was tested")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""))
