"""How long to wait after a keystroke before work starts: shorter while answers come in time, longer while they do not.

A request that the next keystroke overtakes was work for nothing, and kept the engine from the next one. Somebody who
types in bursts is waited for; to somebody who pauses at every word the answer comes sooner.
"""

from __future__ import annotations

from dataclasses import dataclass

SHORTEST, LONGEST = 0.5, 2.0
"""Times the setting `completion.debounceMs`: when no request, and when every request, was overtaken of late. Chosen so
that the setting stays the middle; what they save with real typing is not measured."""

_MEMORY = 0.85  # of what came before, at each request
_START = (1 - SHORTEST) / (LONGEST - SHORTEST)  # the setting itself


@dataclass
class AdaptiveDebounce:
    """The share of one document's late requests that were overtaken, newest counted most."""

    overtaken: float = _START

    def note(self, overtaken: bool) -> None:
        """One request has ended: another overtook it, or it was answered."""
        self.overtaken = _MEMORY * self.overtaken + (1 - _MEMORY) * overtaken

    def wait(self, debounce_ms: int) -> float:
        """Seconds to wait at this setting."""
        return debounce_ms / 1000 * (SHORTEST + (LONGEST - SHORTEST) * self.overtaken)
