"""Is the answer in the state? Files that share too much with what is scored are taken out, and counted.

Two texts are compared by their runs of 8 tokens. A state file leaks when it holds half of the runs of a scored file (a
copy, also one inside a longer file) or when the scored files hold three quarters of its own (a piece of one).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

RUN = 8
OF_TARGET = 0.5
OF_SOURCE = 0.75
LEAST = 24
"""Runs below which a text is too short to be a copy of anything."""

_WORD = re.compile(r"\w+|[^\w\s]")


def runs(text: str) -> frozenset[int]:
    """Hashes of the runs of RUN tokens of a text; white space does not count."""
    words = _WORD.findall(text)
    return frozenset(zlib.crc32(" ".join(words[i : i + RUN]).encode()) for i in range(len(words) - RUN + 1))


def overlap(source: frozenset[int], target: frozenset[int]) -> tuple[float, float]:
    """Share of the target's runs that the source holds, and share of the source's that the target holds."""
    if len(source) < LEAST or len(target) < LEAST:
        return 0.0, 0.0
    common = len(source & target)
    return common / len(target), common / len(source)


def leaks(sources: Mapping[str, str], targets: Mapping[str, str]) -> dict[str, float]:
    """The paths of `sources` that leak a target, with the larger of the two shares."""
    scored = [runs(text) for text in targets.values()]
    together = frozenset().union(*scored)
    found = {}
    for path, text in sources.items():
        mine = runs(text)
        held = max((overlap(mine, one)[0] for one in scored), default=0.0)
        _, own = overlap(mine, together)
        if held >= OF_TARGET or own >= OF_SOURCE:
            found[path] = max(held, own)
    return found


def without_leaks(sources: Mapping[str, str], targets: Mapping[str, str]) -> tuple[dict[str, str], int]:
    """`sources` without the files that leak, and how many those were."""
    bad = leaks(sources, targets)
    return {path: text for path, text in sources.items() if path not in bad}, len(bad)
