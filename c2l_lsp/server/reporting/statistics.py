"""Local statistics: counts of shown and accepted completions, and latencies. Saved as one JSON file, never sent."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections import deque
from pathlib import Path
from typing import Any

from msgspec import Struct, convert, field, to_builtins
from msgspec import ValidationError as _Invalid

from c2l_lsp.errors import StorageError

_WEEKS = 8
_RECENT = 200
"""Number of latencies kept for the percentiles."""


class Counts(Struct, rename="camel"):
    """Counts of completions with, or without, an adapter.

    `accepted`: accepted in full, at once or in parts. `partly_accepted`: accepted in part only. The remaining `shown`
    ones were rejected.
    """

    shown: int = 0
    accepted: int = 0
    partly_accepted: int = 0
    accepted_chars: int = 0
    shown_chars: int = 0


class Week(Struct, rename="camel"):
    """Accepted characters in one week, which are keystrokes saved."""

    with_adapter: int = 0
    without_adapter: int = 0


class Totals(Struct, rename="camel"):
    """All counts, as saved.

    `reasons`: number of requests without completion by reason. `weeks`: the last eight, by ISO week such as 2026-W47.
    """

    with_adapter: Counts = field(default_factory=Counts)
    without_adapter: Counts = field(default_factory=Counts)
    requests: int = 0
    from_cache: int = 0
    typed_through: int = 0
    superseded: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    weeks: dict[str, Week] = field(default_factory=dict)


class Statistics:
    """The counters of one user. `enabled` False stops the counting; latencies are still recorded."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.enabled = True
        self.totals = _load(path)
        self._latencies: deque[tuple[float, bool]] = deque(maxlen=_RECENT)
        self._dirty = False

    def record_latency(self, ms: float, *, adapted: bool = False) -> None:
        """Record the time of a completion by the engine, with an adapter or by the base model."""
        self._latencies.append((ms, adapted))

    def percentile(self, q: float, adapted: bool | None = None) -> float:
        """The `q` quantile (0..1) of recent latencies in ms; 0 without any. `adapted` None: of all completions."""
        ordered = self._ordered(adapted)
        return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 1) if ordered else 0.0

    def record_completion(self, source: str) -> None:
        """Count a request answered with text from `source`: engine, cache or typed."""
        self._count("requests")
        if source in ("cache", "typed"):
            self._count("from_cache" if source == "cache" else "typed_through")

    def record_no_completion(self, reason: str) -> None:
        """Count a request answered without text."""
        if self.enabled:
            self.totals.reasons[reason] = self.totals.reasons.get(reason, 0) + 1
        self._count("requests")

    def record_superseded(self) -> None:
        """Count a request superseded by a newer one."""
        self._count("superseded")

    def record_shown(self, adapted: bool, chars: int) -> None:
        """Count a completion sent to the editor."""
        if self.enabled:
            counts = self._of(adapted)
            counts.shown += 1
            counts.shown_chars += chars
            self._dirty = True

    def record_accepted(self, adapted: bool, chars: int, *, partly: bool, first: bool, rest: bool = False) -> None:
        """Count `chars` accepted characters of a completion.

        `first`: the first partial acceptance of this completion, or its full acceptance. `rest`: a full acceptance of a
        completion that was counted as partly accepted.
        """
        if self.enabled:
            counts = self._of(adapted)
            counts.accepted_chars += chars
            self._add_to_week(adapted, chars)
            if first and partly:
                counts.partly_accepted += 1
            elif first:
                counts.accepted += 1
                counts.partly_accepted = max(0, counts.partly_accepted - rest)
            self._dirty = True

    def report(self) -> dict[str, Any]:
        """All counts and latencies as plain JSON values with camelCase keys."""
        suffixes: dict[str, bool | None] = {"": None, "WithAdapter": True, "WithoutAdapter": False}
        latencies = {f"latencyMs{suffix}": self._latency(adapted) for suffix, adapted in suffixes.items()}
        return {"enabled": self.enabled, **latencies, **to_builtins(self.totals)}

    def reset(self) -> None:
        """Set all counts to zero."""
        self.totals = Totals()
        self._dirty = True

    def save(self) -> None:
        """Write the file if a count changed. StorageError if it cannot be written."""
        if not self._dirty:
            return
        import tempfile  # slow to import, and not needed at start-up

        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=".statistics-")  # created with mode 0600
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(to_builtins(self.totals), file)
            try:
                Path(name).replace(self._path)
            except OSError:
                with contextlib.suppress(OSError):
                    Path(name).unlink()
                raise
        except OSError as error:
            raise StorageError(f"The statistics cannot be saved in {self._path}: {error.strerror}.") from error
        self._dirty = False

    def _latency(self, adapted: bool | None) -> dict[str, float]:
        p50, p95 = (self.percentile(q, adapted) for q in (0.5, 0.95))
        return {"p50": p50, "p95": p95, "count": len(self._ordered(adapted))}

    def _ordered(self, adapted: bool | None) -> list[float]:
        return sorted(ms for ms, kind in self._latencies if adapted is None or kind is adapted)

    def _add_to_week(self, adapted: bool, chars: int) -> None:
        weeks = self.totals.weeks
        week = weeks.setdefault(datetime.date.today().strftime("%G-W%V"), Week())
        if adapted:
            week.with_adapter += chars
        else:
            week.without_adapter += chars
        for name in sorted(weeks)[:-_WEEKS]:
            del weeks[name]

    def _of(self, adapted: bool) -> Counts:
        return self.totals.with_adapter if adapted else self.totals.without_adapter

    def _count(self, name: str) -> None:
        if self.enabled:
            setattr(self.totals, name, getattr(self.totals, name) + 1)
            self._dirty = True


def _load(path: Path) -> Totals:
    try:
        return convert(json.loads(path.read_text(encoding="utf-8")), Totals)
    except (OSError, ValueError, RecursionError, _Invalid):  # lost counts are not worth a message to the user
        return Totals()
