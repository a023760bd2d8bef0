"""Adaptive debounce: the pause between a keystroke and the computation of a completion.

A request that the next keystroke supersedes wastes engine time and delays the next request. The pause therefore grows
while requests are superseded (typing in bursts) and shrinks while they are answered.
"""

from __future__ import annotations

from dataclasses import dataclass

MIN_FACTOR, MAX_FACTOR = 0.5, 2.0
"""Factors of the setting `completion.debounceMs` when no recent request, and when every recent request, was superseded.
The factor starts at 1. Their benefit with real typing has not been measured."""

_DECAY = 0.85  # weight of the past at each request
_INITIAL = (1 - MIN_FACTOR) / (MAX_FACTOR - MIN_FACTOR)  # gives the factor 1


@dataclass
class AdaptiveDebounce:
    """`superseded` is an exponential moving average: the share of a document's recent requests that were superseded."""

    superseded: float = _INITIAL

    def record(self, superseded: bool) -> None:
        """Record that a request was superseded, or answered."""
        self.superseded = _DECAY * self.superseded + (1 - _DECAY) * superseded

    def delay(self, debounce_ms: int) -> float:
        """The pause in seconds for a value of the setting in milliseconds."""
        return debounce_ms / 1000 * (MIN_FACTOR + (MAX_FACTOR - MIN_FACTOR) * self.superseded)
