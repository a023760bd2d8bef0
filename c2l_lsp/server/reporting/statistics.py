"""Local counts of what was shown and accepted, and how fast. Kept in memory, saved as one JSON file, never sent."""

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
"""Latencies that are remembered; older ones say little about now."""


class Counts(Struct, rename="camel"):
    """Counts of one kind of completion (with or without an adapter).

    `accepted` were taken wholly, at once or piece by piece; `partly_accepted` in part and no further. What was shown
    and is neither was rejected.
    """

    shown: int = 0
    accepted: int = 0
    partly_accepted: int = 0
    accepted_chars: int = 0
    shown_chars: int = 0


class Week(Struct, rename="camel"):
    """Characters of completions that were accepted in one week: keystrokes saved."""

    with_adapter: int = 0
    without_adapter: int = 0


class Totals(Struct, rename="camel"):
    """Everything that is counted.

    `reasons`: how often which reason gave no completion; `weeks`: the last ones by ISO week, such as 2026-W47.
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
    """The counters of this machine's user. `enabled` False counts nothing but keeps latencies for the status."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.enabled = True
        self.totals = _load(path)
        self._latencies: deque[tuple[float, bool]] = deque(maxlen=_RECENT)
        self._dirty = False

    def latency(self, ms: float, *, adapted: bool = False) -> None:
        """A completion was computed in this time, under an adapter or by the bare model."""
        self._latencies.append((ms, adapted))

    def percentile(self, share: float, adapted: bool | None = None) -> float:
        """Latency that this share of recent completions stayed within, in ms; 0 without any. None: of both kinds."""
        ordered = self._ordered(adapted)
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else 0.0

    def requested(self, source: str) -> None:
        """A request was answered with text from `source`: engine, cache or typed."""
        self._count("requests")
        if source in ("cache", "typed"):
            self._count("from_cache" if source == "cache" else "typed_through")

    def withheld(self, reason: str) -> None:
        """A request was answered without text."""
        if self.enabled:
            self.totals.reasons[reason] = self.totals.reasons.get(reason, 0) + 1
        self._count("requests")

    def superseded(self) -> None:
        """A request was overtaken by a newer one."""
        self._count("superseded")

    def shown(self, adapted: bool, chars: int) -> None:
        """A new completion was given to the editor."""
        if self.enabled:
            counts = self._of(adapted)
            counts.shown += 1
            counts.shown_chars += chars
            self._dirty = True

    def accepted(self, adapted: bool, chars: int, *, partly: bool, first: bool, rest: bool = False) -> None:
        """`chars` more of a completion were taken over.

        `first` for the first such event of its kind; `rest`: it was counted as partly accepted before, and now wholly.
        """
        if self.enabled:
            counts = self._of(adapted)
            counts.accepted_chars += chars
            self._saved(adapted, chars)
            if first and partly:
                counts.partly_accepted += 1
            elif first:
                counts.accepted += 1
                counts.partly_accepted = max(0, counts.partly_accepted - rest)
            self._dirty = True

    def report(self) -> dict[str, Any]:
        """Everything, for an editor to show."""
        kinds: dict[str, bool | None] = {"": None, "WithAdapter": True, "WithoutAdapter": False}
        latencies = {f"latencyMs{kind}": self._latency(adapted) for kind, adapted in kinds.items()}
        return {"enabled": self.enabled, **latencies, **to_builtins(self.totals)}

    def reset(self) -> None:
        """Start counting anew."""
        self.totals = Totals()
        self._dirty = True

    def save(self) -> None:
        """Write the file if something changed. StorageError if it cannot be written."""
        if not self._dirty:
            return
        import tempfile  # slow to import, and start-up does not need it

        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=".statistics-")  # 0600 from the start
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
        p50, p95 = (self.percentile(share, adapted) for share in (0.5, 0.95))
        return {"p50": p50, "p95": p95, "count": len(self._ordered(adapted))}

    def _ordered(self, adapted: bool | None) -> list[float]:
        return sorted(ms for ms, kind in self._latencies if adapted is None or kind is adapted)

    def _saved(self, adapted: bool, chars: int) -> None:
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
    except (OSError, ValueError, RecursionError, _Invalid):  # counts are worth no complaint; they start anew
        return Totals()
