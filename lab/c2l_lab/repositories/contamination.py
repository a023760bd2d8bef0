"""Contamination: finds state files that contain text of the files that are scored.

Texts are compared by their shingles of 8 tokens. A state file is contaminated if it contains half of the shingles of a
scored file (a copy, perhaps within a longer file), or if the scored files contain three quarters of its own shingles
(an excerpt).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

SHINGLE = 8
OF_TARGET = 0.5
OF_SOURCE = 0.75
MIN_SHINGLES = 24
"""Texts with fewer shingles are too short to be called copies."""

_WORD = re.compile(r"\w+|[^\w\s]")


def shingles(text: str) -> frozenset[int]:
    """The hashes of the shingles of a text; white space is ignored."""
    words = _WORD.findall(text)
    return frozenset(zlib.crc32(" ".join(words[i : i + SHINGLE]).encode()) for i in range(len(words) - SHINGLE + 1))


def overlap(source: frozenset[int], target: frozenset[int]) -> tuple[float, float]:
    """The share of the target's shingles in the source, and the share of the source's shingles in the target."""
    if len(source) < MIN_SHINGLES or len(target) < MIN_SHINGLES:
        return 0.0, 0.0
    common = len(source & target)
    return common / len(target), common / len(source)


def contaminated(sources: Mapping[str, str], targets: Mapping[str, str]) -> dict[str, float]:
    """The contaminated paths of `sources`, with the larger of the two shares."""
    scored = [shingles(text) for text in targets.values()]
    combined = frozenset().union(*scored)
    found = {}
    for path, text in sources.items():
        mine = shingles(text)
        copied = max((overlap(mine, one)[0] for one in scored), default=0.0)
        _, own = overlap(mine, combined)
        if copied >= OF_TARGET or own >= OF_SOURCE:
            found[path] = max(copied, own)
    return found
