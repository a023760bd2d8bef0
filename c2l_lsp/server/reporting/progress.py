"""Standard `$/progress` bars for long work, only for editors that can show them. Knows the two messages, no pygls."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger("c2l.progress")
_EVERY = 0.1


@dataclass
class _Bar:
    token: str
    title: str
    message: str = ""
    percentage: int | None = None
    begun: bool = False
    over: bool = False
    cancellable: bool = False
    sent_at: float = 0.0


@dataclass
class Bars:
    """The running bars by key. `create` asks the editor for a bar and returns when it agreed."""

    create: Callable[[str], Awaitable[object]]
    notify: Callable[[str, dict[str, Any]], None]
    supported: bool = False
    _bars: dict[object, _Bar] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def update(self, key: object, title: str, message: str, share: float | None, *, cancellable: bool = False) -> None:
        """Begin a bar, or move it. `share` 0..1, None unknown."""
        if not self.supported:
            return
        bar = self._bars.get(key)
        if bar is None:
            bar = self._bars[key] = _Bar(f"c2l-{next(self._numbers)}", title, cancellable=cancellable)
            task = asyncio.ensure_future(self._begin(bar))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        bar.message = message
        bar.percentage = None if share is None else max(0, min(100, round(100 * share)))
        now = asyncio.get_running_loop().time()
        if bar.begun and now - bar.sent_at >= _EVERY:
            bar.sent_at = now
            self._send(bar, "report")

    def end(self, key: object, message: str = "") -> None:
        """Remove a bar."""
        bar = self._bars.pop(key, None)
        if bar is not None:
            bar.over, bar.message = True, message
            if bar.begun:
                self._send(bar, "end")

    def key_of(self, token: object) -> object:
        """The key of a running bar by its token; None if there is none."""
        return next((key for key, bar in self._bars.items() if bar.token == token), None)

    def end_all(self) -> None:
        """Remove every bar: whoever worked is gone."""
        for key in list(self._bars):
            self.end(key)

    async def _begin(self, bar: _Bar) -> None:
        try:
            await self.create(bar.token)
        except Exception as error:
            log.info("The editor refused a progress bar (%s).", type(error).__name__)
            return
        if not bar.over:  # else it was over before the editor answered, and nothing is shown
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
