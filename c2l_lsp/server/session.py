"""One editor session: creates and connects the parts, and reacts to the editor and to the engine.

The interface uses plain values; LSP types end in `features`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from c2l_lsp.config import Settings, state_root
from c2l_lsp.engine import wire
from c2l_lsp.errors import C2LError, FolderError, RequestError, Severity, from_code
from c2l_lsp.server.completion import eligibility
from c2l_lsp.server.completion.acceptance import AcceptanceTracker
from c2l_lsp.server.completion.completions import Completions, Insertion
from c2l_lsp.server.completion.items import Selected
from c2l_lsp.server.completion.suggest import Suggester
from c2l_lsp.server.followup.follow_ups import Change, FollowUps, Offered
from c2l_lsp.server.reporting.progress import ProgressBars
from c2l_lsp.server.reporting.statistics import Statistics
from c2l_lsp.server.reporting.status import StatusBoard, describe
from c2l_lsp.server.transport.engine_client import ENGINE_COMMAND, EngineClient, EngineState, Policy, process_settings
from c2l_lsp.server.transport.messages import Messages, severity
from c2l_lsp.server.transport.protocol import SENTENCES, Reason
from c2l_lsp.server.workspace.buffers import BufferFeed
from c2l_lsp.server.workspace.documents import Document, Documents, Edit
from c2l_lsp.server.workspace.folders import Folders
from c2l_lsp.server.workspace.notebooks import Notebooks, notebook_uri
from c2l_lsp.server.workspace.settings import NO_FOLDER, SettingsLayers

log = logging.getLogger("c2l.session")
Notify = Callable[[str, dict[str, Any]], None]
_SAVE_INTERVAL = 60.0
_LOADING_BAR = "load"


class Session:
    """Everything between one editor and one engine.

    `notify` sends a notification to the editor; `create_progress` asks it for a progress bar.
    """

    def __init__(
        self,
        notify: Notify,
        create_progress: Callable[[str], Awaitable[object]],
        command: Sequence[str] = ENGINE_COMMAND,
        policy: Policy | None = None,
    ) -> None:
        self.documents = Documents()
        self.notebooks = Notebooks(self.documents)
        self.folders = Folders()
        self.switches = eligibility.Switches()
        self.messages = Messages(notify, lambda: self.settings(NO_FOLDER).show_notifications)
        self.layers = SettingsLayers(self.messages.error)
        self.statistics = Statistics(state_root() / "statistics.json")
        self.engine = EngineClient(self._on_state, self._on_event, command, policy or Policy())
        self.board = StatusBoard(notify, self.statistics, self.engine.disabled)
        self.progress_bars = ProgressBars(create_progress, notify)
        self.acceptance = AcceptanceTracker(self.statistics)
        self.suggester = Suggester(self.engine, self.acceptance, self.statistics)
        self.completions = Completions(
            self.documents,
            self.notebooks,
            self.folders,
            self.switches,
            self.settings,
            self.engine,
            self.suggester,
            self.statistics,
        )
        self.follow_ups = FollowUps(self.documents, self.folders, self.settings, self._follows_up)
        self.buffer_feed = BufferFeed(self.engine.set_buffer, self.folders.resolve, self.settings)
        self.first_pull: asyncio.Task[None] | None = None
        """The first request for the editor's settings, which start the engine."""
        self._closing: asyncio.Task[None] | None = None
        self._engine_change: asyncio.Task[None] | None = None
        self._save_timer: asyncio.TimerHandle | None = None
        self._snooze_timer: asyncio.TimerHandle | None = None

    def settings(self, folder: str) -> Settings:
        """The effective settings of a folder (NO_FOLDER: of documents outside every folder)."""
        return self.layers.effective(folder)

    # --- start, settings, end ---

    def apply_settings(self, values: dict[str, object]) -> None:
        """Apply the editor's settings by folder: start, restart or stop the engine and update everything else."""
        self.layers.set_pulled(values)
        settings = self.settings(NO_FOLDER)
        self.statistics.enabled = settings.statistics.enable
        self.engine.idle_minutes = settings.model.idle_unload_minutes
        self._open_folders()
        self._start_engine(self._hello())
        for document in self.documents:
            self.buffer_feed.schedule(document)
        self._update_disabled_reason()
        if self._save_timer is None:
            self._save_timer = asyncio.get_running_loop().call_later(_SAVE_INTERVAL, self._save_periodically)

    async def restart(self) -> None:
        """Restart the engine with the current user file, also after it failed."""
        self.layers.read_user()
        await self.engine.restart(self._hello())

    def _hello(self) -> wire.Hello:
        return wire.Hello(schema=wire.SCHEMA, settings=self.settings(NO_FOLDER), trusted=self.layers.trusted)

    def _start_engine(self, hello: wire.Hello) -> None:
        old, self.engine.hello = self.engine.hello, hello
        if not self._engine_needed():
            self.board.set_engine_state(EngineState.OFF, "", None)
            self._engine_change = asyncio.ensure_future(self.engine.stop())
        elif self.engine.state is EngineState.OFF:
            self.engine.start(hello)
        elif old is not None and process_settings(old) != process_settings(hello):
            self._engine_change = asyncio.ensure_future(self.engine.restart(hello))

    def _engine_needed(self) -> bool:
        """Whether completions are on for any language in any folder. Otherwise no memory is used for a model."""
        places = [NO_FOLDER, *self.folders]
        return any(any(self.settings(p).enable.values()) for p in places) or any(self.switches.languages.values())

    def begin_close(self) -> asyncio.Task[None]:
        """Start to stop the engine and save the statistics; returns the same task for every call."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        return self._closing

    async def close(self) -> None:
        """Stop the engine and save the statistics."""
        await self.begin_close()

    async def _close(self) -> None:
        for timer in (self._save_timer, self._snooze_timer):
            if timer is not None:
                timer.cancel()
        self.board.close()
        self.buffer_feed.stop()
        self.suggester.stop()
        self.follow_ups.stop()
        await self.engine.stop()
        self._save()

    # --- folders and documents ---

    def add_folder(self, uri: str) -> None:
        """Add a workspace folder. It is opened in the engine when the settings are applied."""
        if self.folders.add(uri) is None:
            error = FolderError(f"{uri} is not a local folder, so it is not indexed.")
            self.messages.error(error, Severity.INFO)

    def remove_folder(self, uri: str) -> None:
        """Remove a workspace folder and close it in the engine."""
        path = self.folders.remove(uri)
        if path is not None:
            self.engine.close_folder(path)
            self.progress_bars.end(path)
            self.board.remove_folder(path)

    def document_opened(self, uri: str, language: str, version: int, text: str, notebook: str = "") -> None:
        """Handle didOpen. `notebook`: the notebook of a cell; a client without notebooks names it in the cell's URI."""
        document = self.documents.open(uri, language, version, text)
        document.notebook = notebook or notebook_uri(uri)
        if document.notebook:
            self.folders.attach(uri, document.notebook)
        else:
            self.folders.forget(uri)
            self.follow_ups.opened(document)
        self.buffer_feed.schedule(document)
        self.board.set_active_folder(self.folders.resolve(uri).folder)

    def document_edited(self, uri: str, version: int | None, edits: Sequence[Edit]) -> None:
        """Handle didChange."""
        document = self.documents.change(uri, version, edits)
        if document is None:
            log.warning("An edit of a document that is not open was dropped.")
            return
        replaced = any(edit.start is None for edit in edits)
        self.acceptance.document_changed(uri, document.text, () if replaced else [len(edit.text) for edit in edits])
        self.buffer_feed.schedule(document)
        if not document.notebook:
            self.follow_ups.edited(document)

    def change_unreadable(self, uri: str | None) -> None:
        """Handle a didOpen or didChange that cannot be read exactly. None: it does not even name its document."""
        self._report_lost(self.documents.lose(uri))

    def notebook_unreadable(self, uri: str | None) -> None:
        """Handle a change of a notebook that cannot be read exactly. None: it does not even name its notebook."""
        cells = self.notebooks.lose(uri)
        self._report_lost([document for cell in cells for document in self.documents.lose(cell)])

    def _report_lost(self, lost: Sequence[Document]) -> None:
        for document in lost:
            self.suggester.forget(document.uri)
            self.buffer_feed.schedule(document)
        error = RequestError(f"A change of {len(lost)} open documents cannot be read. {SENTENCES[Reason.OUT_OF_STEP]}")
        self.messages.error(error, Severity.INFO)
        self._update_disabled_reason()

    def document_closed(self, uri: str) -> None:
        """Handle didClose."""
        document = self.documents.close(uri)
        if document is not None:
            self.completions.forget(uri)
            self.follow_ups.closed(uri)
            self.buffer_feed.remove(document)
            self.folders.detach(uri)
            self.switches.documents.pop(uri, None)

    def document_saved(self, uri: str) -> None:
        """Handle didSave: send the buffer, which now equals the file. The engine's watcher sees the file itself."""
        document = self.documents.get(uri)
        if document is not None:
            self.buffer_feed.schedule(document)

    async def complete(
        self, uri: str, position: tuple[int, int], invoked: bool, selected: Selected | None = None
    ) -> list[Insertion] | None:
        """The completions at a position; None if a newer request superseded this one."""
        self.board.set_active_folder(self.folders.resolve(uri).folder)
        return await self.completions.at(uri, position, invoked, selected)

    def follow_up(self, uri: str, position: tuple[int, int], invoked: bool) -> Change | None:
        """The follow-up edit that an inline completion at a position offers; None leaves it to the model."""
        document = self.documents.get(uri)
        if document is None or not self._is_eligible(document, invoked=invoked):
            return None
        return self.follow_ups.inline(document, position)

    async def follow_up_action(self, uri: str, first: int, last: int) -> Offered | None:
        """All places of the follow-up edit that concerns lines first..last of a document; None if there is none."""
        document = self.documents.get(uri)
        if document is None or not self._is_eligible(document, invoked=True):
            return None
        return await self.follow_ups.action(uri, first, last)

    def _is_eligible(self, document: Document, *, invoked: bool) -> bool:
        settings = self.settings(self.folders.resolve(document.uri).folder)
        cursor = eligibility.CursorContext(document.uri, document.language, "", "", invoked)
        return eligibility.ineligibility(settings, self.switches, cursor, time.time()) in (None, Reason.MIN_CHARS)

    def _follows_up(self, folder: str) -> bool:
        """Whether follow-up edits are offered in a folder. Of an untrusted one, no file is read for them."""
        return self.layers.trusted and self.settings(folder).follow_up.enable

    async def finetune(self, folder: str, *, cancel: bool = False, steps: int = 0) -> wire.AdapterInfo:
        """Start or cancel fine-tuning a LoRA on a folder; returns the adapter's state.

        Raises EngineError, or the engine's own error if it refuses.
        """
        request = wire.Deepen(folder=folder, steps=steps, cancel=cancel)
        info = await self.engine.call("deepen", request, wire.AdapterInfo)
        self.board.set_adapter(info)
        return info

    async def cancel_progress(self, token: object) -> None:
        """Handle the cancel button of a progress bar. Only fine-tuning can be cancelled."""
        key = self.progress_bars.key_of(token)
        if isinstance(key, tuple) and key[0] == wire.DEEP:
            await self.finetune(key[1], cancel=True)

    # --- switches ---

    def set_trusted(self, trusted: bool) -> None:
        """Apply the editor's workspace trust to all folders."""
        if trusted != self.layers.trusted:
            self.layers.trusted = trusted
            self._open_folders()

    def switches_changed(self) -> None:
        """Apply `switches` after the user changed one."""
        if self.engine.hello is not None and self.engine.state is EngineState.OFF and self._engine_needed():
            self.engine.start(self.engine.hello)
        self._update_disabled_reason()

    def _update_disabled_reason(self) -> None:
        self.board.set_disabled(self.disabled_reason())
        if self._snooze_timer is not None:
            self._snooze_timer.cancel()
            self._snooze_timer = None
        left = self.switches.snoozed_until - time.time()
        if left > 0:
            loop = asyncio.get_running_loop()
            self._snooze_timer = loop.call_later(left + 0.01, self._update_disabled_reason)

    def disabled_reason(self) -> Reason | None:
        """Why there are no automatic completions in any document; None if there are some."""
        if not self.switches.enabled:
            return Reason.OFF
        return Reason.SNOOZED if time.time() < self.switches.snoozed_until else None

    # --- states and events of the engine ---

    def _on_state(self, state: EngineState, message: str) -> None:
        model = self.engine.model
        if state is EngineState.LOADING:
            self.progress_bars.update(_LOADING_BAR, "C2L: Loading the model", "", None)
        elif state is not EngineState.READY:
            self.progress_bars.end_all()
        else:
            self.progress_bars.end(_LOADING_BAR)
            for folder, record in self.engine.folders.items():
                self._expect_indexing(folder, record)
            self.completions.engine_ready()
        if state is EngineState.FAILED:
            self.messages.error(from_code(self.engine.code, message), Severity.ERROR)
        elif state is EngineState.RESTARTING:
            self.messages.error(from_code(self.engine.code, message), Severity.WARNING)
        self.board.set_engine_state(state, message, model.id if model else None, model.device if model else "")

    def _on_event(self, event: Struct) -> None:
        self.board.handle_event(event)
        folder = ""
        if isinstance(event, wire.Progress) and event.task == wire.DEEP:
            self._update_finetune_bar(event)
            return
        if isinstance(event, wire.Progress):
            folder = event.folder
        elif isinstance(event, wire.AdapterChanged):
            folder = event.info.folder
            self.suggester.adapter_changed(folder)
        elif isinstance(event, wire.Trouble):
            folder = event.folder
            self.messages.error(from_code(event.code, event.message), severity(event.severity))
        progress = self.board.progress_of(folder)
        if progress is None:
            self.progress_bars.end(folder)
        else:
            title = f"C2L: {Path(folder).name}"
            self.progress_bars.update(folder, title, describe(progress), _fraction(progress))

    def _update_finetune_bar(self, event: wire.Progress) -> None:
        key = (wire.DEEP, event.folder)
        if event.finished:
            self.progress_bars.end(key)
        else:
            title = f"C2L: Fine-tuning on {Path(event.folder).name}"
            self.progress_bars.update(key, title, describe(event), _fraction(event), cancellable=True)

    # --- helpers ---

    def _open_folders(self) -> None:
        for folder in self.folders:
            record = wire.OpenFolder(folder=folder, settings=self.settings(folder), trusted=self.layers.trusted)
            if self.engine.open_folder(record) and self.engine.state is EngineState.READY:
                self._expect_indexing(folder, record)

    def _expect_indexing(self, folder: str, record: wire.OpenFolder) -> None:
        self.suggester.adapter_changed(folder)
        adapter = record.settings.adapter
        if record.trusted and adapter.enable and adapter.hypernetwork != "none":
            self.board.indexing_started(folder)

    def _save_periodically(self) -> None:
        self._save()
        self._save_timer = asyncio.get_running_loop().call_later(_SAVE_INTERVAL, self._save_periodically)

    def _save(self) -> None:
        try:
            self.statistics.save()
        except C2LError as error:
            self.messages.error(error)


def _fraction(progress: wire.Progress) -> float | None:
    return progress.done / progress.total if progress.total else None
