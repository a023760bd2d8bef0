"""What the server tells about itself: one state out of the engine's life, its events and the user's switches.

Computes and sends; decides nothing. `notify` is the only way out, so the board is tested without pygls or an engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from msgspec import UNSET, Struct, structs

from c2l_lsp.engine import wire
from c2l_lsp.errors import Severity
from c2l_lsp.server.reporting.statistics import Statistics
from c2l_lsp.server.transport.engine_client import Life
from c2l_lsp.server.transport.protocol import (
    ADAPTER_DID_CHANGE,
    BUSY,
    DID_CHANGE_STATUS,
    KIND,
    SENTENCES,
    AdapterChange,
    AdapterStatus,
    Latency,
    Reason,
    State,
    Status,
    plain,
)

_OF_LIFE = {
    Life.OFF: State.DISABLED,
    Life.STARTING: State.STARTING,
    Life.RESTARTING: State.STARTING,
    Life.LOADING: State.LOADING,
    Life.FAILED: State.FAILED,
    Life.UNLOADED: State.UNLOADED,
}
_SENTENCE = {
    State.STARTING: "The engine is starting.",
    State.LOADING: "The model is loading.",
    State.INDEXING: "Reading the repository.",
    State.UPDATING: "Learning the latest changes.",
    State.READY: "Ready.",
    State.FAILED: SENTENCES[Reason.FAILED],
    State.DISABLED: "Completions are off.",
    State.UNLOADED: "The model is unloaded; the next completion loads it.",
}
_QUIET = 0.25
_BEGUN, _JUDGED = "waiting", "being judged"
"""Notes of training on request before its first step and after its last."""


class StatusBoard:
    """The status as last computed and sent. `focus` is the folder the editor works in.

    `disabled`: folders whose adapter is switched off; an engine that has just started may not know it yet.
    """

    def __init__(
        self,
        notify: Callable[[str, dict[str, Any]], None],
        statistics: Statistics,
        disabled: Collection[str] = frozenset(),
    ) -> None:
        self._notify = notify
        self._disabled = disabled
        self._statistics = statistics
        self._life, self._life_message = Life.STARTING, ""
        self._model: str | None = None
        self._device = ""
        self._running: dict[str, wire.Progress] = {}
        self._opening: set[str] = set()
        self._troubles: dict[tuple[str, str], str] = {}
        self._sent: Status | None = None
        self._sent_at = 0.0
        self._later: asyncio.TimerHandle | None = None
        self.adapters: dict[str, wire.AdapterInfo] = {}
        self.off: Reason | None = None
        self.focus = ""

    def life(self, life: Life, message: str, model: str | None, device: str = "") -> None:
        """The engine process has come to another point of its life."""
        self._life, self._life_message, self._model, self._device = life, message, model, device
        if life is not Life.READY:
            self._running.clear()
            self._opening.clear()
            self._troubles.clear()
        self.publish()

    def opening(self, folder: str) -> None:
        """A folder is to be learned; that is over with its adapter, or with the reason why there is none."""
        self._opening.add(folder)
        self.publish()

    def work(self, folder: str) -> wire.Progress | None:
        """What the engine is doing for a folder that takes long, as last heard."""
        return self._running.get(folder)

    def event(self, event: Struct) -> None:
        """The engine said something."""
        if isinstance(event, wire.Progress) and event.task == wire.DEEP:
            self._deepens(event)
        elif isinstance(event, wire.Progress):
            if not event.finished:
                self._running[event.folder] = event
            elif event.folder not in self._opening:
                self._running.pop(event.folder, None)
        elif isinstance(event, wire.AdapterChanged):
            self._adapter_changed(event)
        elif isinstance(event, wire.Trouble):
            self._settled(event.folder)
            info = self.adapters.get(event.folder)
            if info is not None and info.deep in (_BEGUN, _JUDGED):
                self.adapters[event.folder] = structs.replace(info, deep=f"failed: {event.message}")
            if event.severity != Severity.INFO.value:
                self._troubles[event.folder, event.code] = event.message
            else:  # the same thing is well again, or was never wrong
                self._troubles.pop((event.folder, event.code), None)
        self.publish()

    def switch(self, off: Reason | None) -> None:
        """A switch or setting has changed: told in any case, since it may concern one document alone."""
        self.off = off
        self._send(self.snapshot())

    def focus_on(self, folder: str) -> None:
        """The user works in this folder ("": in none, which changes nothing)."""
        if folder and folder != self.focus:
            self.focus = folder
            self.publish()

    def adapter(self, info: wire.AdapterInfo) -> None:
        """An adapter's state was asked for."""
        self.adapters[info.folder] = info
        self.publish()

    def forget(self, folder: str) -> None:
        """A folder was closed."""
        self.adapters.pop(folder, None)
        self.focus = "" if self.focus == folder else self.focus
        self._settled(folder)
        self._troubles = {key: value for key, value in self._troubles.items() if key[0] != folder}
        self.publish()

    def state(self) -> State:
        """The state of the whole."""
        if self.off is not None and self._life is not Life.FAILED:
            return State.DISABLED
        if self._life is not Life.READY:
            return _OF_LIFE[self._life]
        if self._opening:
            return State.INDEXING
        if self._running:
            return State.UPDATING
        return State.DEGRADED if self._troubles else State.READY

    def snapshot(self, folder: str | None = None, reason: Reason | None = None) -> Status:
        """The status now, for a folder and with the reason why a document gets nothing."""
        state = self.state()
        reason = reason or self.off or (Reason.FAILED if state is State.FAILED else None)
        info = self.adapters.get((self.focus or next(iter(self.adapters), "")) if folder is None else folder)
        latency = Latency(p50=self._statistics.percentile(0.5), p95=self._statistics.percentile(0.95))
        return Status(
            kind=KIND.get(state, "Normal"),
            busy=state in BUSY,
            message=self._message(state),
            state=state,
            model=self._model,
            device=self._device,
            adapter=self.told(info) if info is not None else None,
            latency_ms=latency,
            disabled_reason=UNSET if reason is None else reason.value,
        )

    def publish(self) -> None:
        """Send the status if it changed; counts that run up are sent at most four times a second."""
        status = self.snapshot()
        before = self._sent
        if before is not None:
            status.latency_ms = before.latency_ms
            if status == before:
                return
            quiet = _QUIET + self._sent_at - _now()
            if status.state == before.state and status.disabled_reason == before.disabled_reason and quiet > 0:
                if self._later is None:
                    self._later = asyncio.get_running_loop().call_later(quiet, self._publish_late)
                return
        self._send(self.snapshot())

    def told(self, info: wire.AdapterInfo) -> AdapterStatus:
        """An adapter as editors are told of it."""
        return AdapterStatus(
            folder=info.folder,
            generation=info.generation,
            pending_files=info.pending_files,
            updated_at=info.updated_at,
            enabled=info.enabled and info.folder not in self._disabled,
            kind=info.kind,
            state=info.state,
            files=info.files,
            scale=info.scale,
            message=info.message,
            deep=info.deep,
        )

    def close(self) -> None:
        """Send nothing more."""
        if self._later is not None:
            self._later.cancel()

    def _send(self, status: Status) -> None:
        self._sent, self._sent_at = status, _now()
        self._notify(DID_CHANGE_STATUS, plain(status))

    def _publish_late(self) -> None:
        self._later = None
        self.publish()

    def _adapter_changed(self, event: wire.AdapterChanged) -> None:
        folder = event.info.folder
        self.adapters[folder] = event.info
        self._settled(folder)
        self._troubles = {key: text for key, text in self._troubles.items() if key[0] != folder or key[1] == "storage"}
        change = AdapterChange(
            folder=folder,
            generation=event.info.generation,
            trigger=event.trigger,
            changed_files=event.changed_files,
            ms=event.ms,
            adapter=self.told(event.info),
            paths=event.paths,
            moved=event.moved,
        )
        self._notify(ADAPTER_DID_CHANGE, plain(change))

    def _deepens(self, event: wire.Progress) -> None:
        """Training on request: it may take minutes and holds nothing up, so it is no state of its own."""
        info = self.adapters.get(event.folder)
        if info is not None:
            note = _JUDGED if event.finished else describe(event)
            self.adapters[event.folder] = structs.replace(info, deep=note)

    def _settled(self, folder: str) -> None:
        self._opening.discard(folder)
        self._running.pop(folder, None)

    def _message(self, state: State) -> str:
        if self.off is not None and state is State.DISABLED:
            return SENTENCES[self.off]
        if state in (State.STARTING, State.FAILED) and self._life_message:
            return self._life_message
        if state is State.DEGRADED:
            return next(iter(self._troubles.values()))
        if state in (State.INDEXING, State.UPDATING) and self._running:
            return describe(next(iter(self._running.values())))
        return _SENTENCE[state]


def describe(progress: wire.Progress) -> str:
    """A progress as a short line: what, how much of how much."""
    if progress.task == wire.DEEP:
        return f"training, {progress.done} of {progress.total} {progress.unit}"
    if progress.total:
        return f"{progress.task}: {progress.done} of {progress.total} {progress.unit}".rstrip()
    return f"{progress.task}: {progress.done} {progress.unit}".rstrip() if progress.done else progress.task


def _now() -> float:
    return asyncio.get_running_loop().time()
