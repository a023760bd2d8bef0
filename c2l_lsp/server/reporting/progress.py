"""Standard `$/progress` bars for long work, for editors that support them. Builds the messages without pygls."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger("c2l.progress")
_MIN_INTERVAL = 0.1


@dataclass
class _Bar:
    token: str
    title: str
    message: str = ""
    percentage: int | None = None
    begun: bool = False
    ended: bool = False
    cancellable: bool = False
    sent_at: float = 0.0


@dataclass
class ProgressBars:
    """The running progress bars by key.

    `create` asks the editor for a bar with this token and returns when the editor has accepted it.
    """

    create: Callable[[str], Awaitable[object]]
    notify: Callable[[str, dict[str, Any]], None]
    supported: bool = False
    _bars: dict[object, _Bar] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def update(
        self, key: object, title: str, message: str, fraction: float | None, *, cancellable: bool = False
    ) -> None:
        """Create or update a bar. `fraction` is in 0..1; None if the total is unknown."""
        if not self.supported:
            return
        bar = self._bars.get(key)
        if bar is None:
            bar = self._bars[key] = _Bar(f"c2l-{next(self._numbers)}", title, cancellable=cancellable)
            task = asyncio.ensure_future(self._begin(bar))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        bar.message = message
        bar.percentage = None if fraction is None else max(0, min(100, round(100 * fraction)))
        now = asyncio.get_running_loop().time()
        if bar.begun and now - bar.sent_at >= _MIN_INTERVAL:
            bar.sent_at = now
            self._send(bar, "report")

    def end(self, key: object) -> None:
        """Remove a bar, if there is one with this key."""
        bar = self._bars.pop(key, None)
        if bar is not None:
            bar.ended, bar.message = True, ""
            if bar.begun:
                self._send(bar, "end")

    def key_of(self, token: object) -> object:
        """The key of the bar with this token; None if there is none."""
        return next((key for key, bar in self._bars.items() if bar.token == token), None)

    def end_all(self) -> None:
        """Remove all bars: the engine process that reported progress is gone."""
        for key in list(self._bars):
            self.end(key)

    async def _begin(self, bar: _Bar) -> None:
        try:
            await self.create(bar.token)
        except Exception as error:
            log.info("The editor refused a progress bar (%s).", type(error).__name__)
            return
        if not bar.ended:  # otherwise the work was done before the editor answered
            bar.begun = True
            self._send(bar, "begin")

    def _send(self, bar: _Bar, kind: str) -> None:
        value: dict[str, Any] = {"kind": kind}
        if kind == "begin":
            value |= {"title": bar.title, "cancellable": bar.cancellable}
        if bar.message:
            value["message"] = bar.message
        if bar.percentage is not None and kind != "end":
            value["percentage"] = bar.percentage
        self.notify("$/progress", {"token": bar.token, "value": value})
