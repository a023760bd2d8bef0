"""The status of server and engine: one state, computed from the engine's state and events and from the user's switches.

`notify` is the only output, so the board is tested without pygls and without an engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from msgspec import UNSET, Struct, structs

from c2l_lsp.engine import wire
from c2l_lsp.errors import Severity
from c2l_lsp.server.reporting.statistics import Statistics
from c2l_lsp.server.transport.engine_client import EngineState
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

_STATE_OF_ENGINE = {
    EngineState.OFF: State.DISABLED,
    EngineState.STARTING: State.STARTING,
    EngineState.RESTARTING: State.STARTING,
    EngineState.LOADING: State.LOADING,
    EngineState.FAILED: State.FAILED,
    EngineState.UNLOADED: State.UNLOADED,
}
_MESSAGES = {
    State.STARTING: "Starting the engine.",
    State.LOADING: "Loading the model.",
    State.INDEXING: "Indexing the repository.",
    State.UPDATING: "Updating the adapter with the latest changes.",
    State.READY: "Ready.",
    State.FAILED: SENTENCES[Reason.FAILED],
    State.DISABLED: "Completions are turned off.",
    State.UNLOADED: "The model is unloaded to free memory. The next completion loads it again.",
}
_TASKS = {
    "scan": "Scanning files",
    "tokens": "Indexing",
    "index": "Computing neural keys",
    "update": "Updating",
    "history": "Replaying git history",
    "prior": "Preparing the hypernetwork",
    "waiting for git": "Waiting for git to finish",
}
"""How the tasks of a wire.Progress are shown."""
_MIN_INTERVAL = 0.25
_QUEUED, _VALIDATING = "waiting", "validating"
"""Notes on fine-tuning before its first step and after its last one. Editors compare them."""


class StatusBoard:
    """Computes the status and sends it to the editor when it changes.

    `active_folder` is the folder in which the user works. `disabled` holds the folders whose adapter is switched off; a
    newly started engine may not know them yet. `disabled_reason` is why there are no completions at all.
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
        self._engine_state, self._engine_message = EngineState.STARTING, ""
        self._model: str | None = None
        self._device = ""
        self._progress: dict[str, wire.Progress] = {}
        self._indexing: set[str] = set()
        self._warnings: dict[tuple[str, str], str] = {}
        self._sent: Status | None = None
        self._sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.adapters: dict[str, wire.AdapterInfo] = {}
        self.disabled_reason: Reason | None = None
        self.active_folder = ""

    def set_engine_state(self, state: EngineState, message: str, model: str | None, device: str = "") -> None:
        """Set the state of the engine process, its message, and the name and device of its model."""
        self._engine_state, self._engine_message, self._model, self._device = state, message, model, device
        if state is not EngineState.READY:
            self._progress.clear()
            self._indexing.clear()
            self._warnings.clear()
        self.publish()

    def indexing_started(self, folder: str) -> None:
        """Show a folder as being indexed, until its adapter or an error arrives."""
        self._indexing.add(folder)
        self.publish()

    def progress_of(self, folder: str) -> wire.Progress | None:
        """The latest progress of the engine's work on a folder; None if it is idle."""
        return self._progress.get(folder)

    def handle_event(self, event: Struct) -> None:
        """Update the status from an event of the engine."""
        if isinstance(event, wire.Progress) and event.task == wire.DEEP:
            self._finetune_progress(event)
        elif isinstance(event, wire.Progress):
            if not event.finished:
                self._progress[event.folder] = event
            elif event.folder not in self._indexing:
                self._progress.pop(event.folder, None)
        elif isinstance(event, wire.AdapterChanged):
            self._adapter_changed(event)
        elif isinstance(event, wire.Trouble):
            self._work_finished(event.folder)
            info = self.adapters.get(event.folder)
            if info is not None and info.deep in (_QUEUED, _VALIDATING):
                self.adapters[event.folder] = structs.replace(info, deep=f"failed: {event.message}")
            if event.severity != Severity.INFO.value:
                self._warnings[event.folder, event.code] = event.message
            else:  # INFO with the same code withdraws a warning
                self._warnings.pop((event.folder, event.code), None)
        self.publish()

    def set_disabled(self, reason: Reason | None) -> None:
        """Set why there are no completions at all. Always sends the status: one document may have changed."""
        self.disabled_reason = reason
        self._send(self.snapshot())

    def set_active_folder(self, folder: str) -> None:
        """Set the folder in which the user works. "" (outside every folder) changes nothing."""
        if folder and folder != self.active_folder:
            self.active_folder = folder
            self.publish()

    def set_adapter(self, info: wire.AdapterInfo) -> None:
        """Set an adapter's state from the reply to a request."""
        self.adapters[info.folder] = info
        self.publish()

    def remove_folder(self, folder: str) -> None:
        """Remove everything about a closed folder."""
        self.adapters.pop(folder, None)
        self.active_folder = "" if self.active_folder == folder else self.active_folder
        self._work_finished(folder)
        self._warnings = {key: value for key, value in self._warnings.items() if key[0] != folder}
        self.publish()

    def state(self) -> State:
        """The current state of server and engine as a whole."""
        if self.disabled_reason is not None and self._engine_state is not EngineState.FAILED:
            return State.DISABLED
        if self._engine_state is not EngineState.READY:
            return _STATE_OF_ENGINE[self._engine_state]
        if self._indexing:
            return State.INDEXING
        if self._progress:
            return State.UPDATING
        return State.DEGRADED if self._warnings else State.READY

    def snapshot(self, folder: str | None = None, reason: Reason | None = None) -> Status:
        """The current status with the adapter of `folder` (default: the active one).

        `reason` is why a document gets no completions; the default is the reason that holds everywhere.
        """
        state = self.state()
        reason = reason or self.disabled_reason or (Reason.FAILED if state is State.FAILED else None)
        info = self.adapters.get((self.active_folder or next(iter(self.adapters), "")) if folder is None else folder)
        latency = Latency(p50=self._statistics.percentile(0.5), p95=self._statistics.percentile(0.95))
        return Status(
            kind=KIND.get(state, "Normal"),
            busy=state in BUSY,
            message=self._message(state),
            state=state,
            model=self._model,
            device=self._device,
            adapter=self.adapter_status(info) if info is not None else None,
            latency_ms=latency,
            disabled_reason=UNSET if reason is None else reason.value,
        )

    def publish(self) -> None:
        """Send the status if it changed. A change of progress or adapter alone is sent at most four times a second."""
        status = self.snapshot()
        last = self._sent
        if last is not None:
            status.latency_ms = last.latency_ms
            if status == last:
                return
            delay = _MIN_INTERVAL + self._sent_at - _now()
            if status.state == last.state and status.disabled_reason == last.disabled_reason and delay > 0:
                if self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(delay, self._publish_delayed)
                return
        self._send(self.snapshot())

    def adapter_status(self, info: wire.AdapterInfo) -> AdapterStatus:
        """The part of an adapter's state that editors show."""
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
        """Cancel the delayed publication."""
        if self._timer is not None:
            self._timer.cancel()

    def _send(self, status: Status) -> None:
        self._sent, self._sent_at = status, _now()
        self._notify(DID_CHANGE_STATUS, plain(status))

    def _publish_delayed(self) -> None:
        self._timer = None
        self.publish()

    def _adapter_changed(self, event: wire.AdapterChanged) -> None:
        folder = event.info.folder
        self.adapters[folder] = event.info
        self._work_finished(folder)
        self._warnings = {key: text for key, text in self._warnings.items() if key[0] != folder or key[1] == "storage"}
        change = AdapterChange(
            folder=folder,
            generation=event.info.generation,
            trigger=event.trigger,
            changed_files=event.changed_files,
            ms=event.ms,
            adapter=self.adapter_status(event.info),
            paths=event.paths,
            moved=event.moved,
        )
        self._notify(ADAPTER_DID_CHANGE, plain(change))

    def _finetune_progress(self, event: wire.Progress) -> None:
        """Note the progress in the adapter. It is no state of its own: completions continue during fine-tuning."""
        info = self.adapters.get(event.folder)
        if info is not None:
            note = _VALIDATING if event.finished else describe(event)
            self.adapters[event.folder] = structs.replace(info, deep=note)

    def _work_finished(self, folder: str) -> None:
        self._indexing.discard(folder)
        self._progress.pop(folder, None)

    def _message(self, state: State) -> str:
        if self.disabled_reason is not None and state is State.DISABLED:
            return SENTENCES[self.disabled_reason]
        if state in (State.STARTING, State.FAILED) and self._engine_message:
            return self._engine_message
        if state is State.DEGRADED:
            return next(iter(self._warnings.values()))
        if state in (State.INDEXING, State.UPDATING) and self._progress:
            return describe(next(iter(self._progress.values())))
        return _MESSAGES[state]


def describe(progress: wire.Progress) -> str:
    """Progress as a short line, such as "Indexing: 120 of 400 chunks"."""
    if progress.task == wire.DEEP:
        return f"training, {progress.done} of {progress.total} {progress.unit}"  # editors compare the first word
    task = _TASKS.get(progress.task, progress.task)
    if progress.total:
        return f"{task}: {progress.done} of {progress.total} {progress.unit}".rstrip()
    return f"{task}: {progress.done} {progress.unit}".rstrip() if progress.done else task


def _now() -> float:
    return asyncio.get_running_loop().time()
