"""One editor's session: the parts wired together, and what happens when the editor says something.

Speaks plain values and our own nouns; LSP types stop in `features`. Every part below is built and tested alone.
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
from c2l_lsp.errors import C2LError, FolderError, Severity, from_code
from c2l_lsp.server.completion import eligibility
from c2l_lsp.server.completion.acceptance import AcceptanceTracker
from c2l_lsp.server.completion.completions import Completions, Insertion
from c2l_lsp.server.completion.items import Selected
from c2l_lsp.server.completion.suggest import Suggester
from c2l_lsp.server.reporting.progress import Bars
from c2l_lsp.server.reporting.statistics import Statistics
from c2l_lsp.server.reporting.status import StatusBoard, describe
from c2l_lsp.server.transport.engine_client import ENGINE_COMMAND, EngineClient, Life, Policy, machine
from c2l_lsp.server.transport.messages import Messages, severity
from c2l_lsp.server.transport.protocol import Reason
from c2l_lsp.server.workspace.buffers import BufferFeed
from c2l_lsp.server.workspace.documents import Documents, Edit
from c2l_lsp.server.workspace.folders import Folders
from c2l_lsp.server.workspace.settings import EVERYWHERE, SettingsLayers

log = logging.getLogger("c2l.session")
Notify = Callable[[str, dict[str, Any]], None]
_SAVE_EVERY = 60.0
_LOADING = "load"


class Session:
    """Everything between one editor and one engine."""

    def __init__(
        self,
        notify: Notify,
        create_bar: Callable[[str], Awaitable[object]],
        command: Sequence[str] = ENGINE_COMMAND,
        policy: Policy | None = None,
    ) -> None:
        self.documents = Documents()
        self.folders = Folders()
        self.switches = eligibility.Switches()
        self.messages = Messages(notify, lambda: self.settings(EVERYWHERE).show_notifications)
        self.layers = SettingsLayers(self.messages.error)
        self.statistics = Statistics(state_root() / "statistics.json")
        self.engine = EngineClient(self._on_life, self._on_event, command, policy or Policy())
        self.board = StatusBoard(notify, self.statistics, self.engine.disabled)
        self.bars = Bars(create_bar, notify)
        self.shown = AcceptanceTracker(self.statistics)
        self.suggester = Suggester(self.engine, self.shown, self.statistics)
        self.completions = Completions(
            self.documents, self.folders, self.switches, self.settings, self.engine, self.suggester, self.statistics
        )
        self.feed = BufferFeed(self.engine.set_buffer, self.folders.place, self.settings)
        self._closing: asyncio.Task[None] | None = None
        self._changing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waker: asyncio.TimerHandle | None = None

    def settings(self, folder: str) -> Settings:
        """The settings that hold in a folder ("": outside of all)."""
        return self.layers.of(folder)

    # --- life ---

    def configured(self, values: dict[str, object]) -> None:
        """Settings are known, or have changed: make everything follow them."""
        self.layers.set_pulled(values)
        settings = self.settings(EVERYWHERE)
        self.statistics.enabled = settings.statistics.enable
        self.engine.idle_minutes = settings.model.idle_unload_minutes
        self._open_folders()
        self._start(self._hello())
        for document in self.documents:
            self.feed.changed(document)
        self._switched()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SAVE_EVERY, self._save_regularly)

    async def restart(self) -> None:
        """Start the engine afresh, under what the user's file says now; also out of safe mode."""
        self.layers.read_user()
        await self.engine.restart(self._hello())

    def _hello(self) -> wire.Hello:
        return wire.Hello(schema=wire.SCHEMA, settings=self.settings(EVERYWHERE), trusted=self.layers.trusted)

    def _start(self, hello: wire.Hello) -> None:
        old, self.engine.hello = self.engine.hello, hello
        if not self._wanted():
            self.board.life(Life.OFF, "", None)
            self._changing = asyncio.ensure_future(self.engine.stop())
        elif self.engine.life is Life.OFF:
            self.engine.start(hello)
        elif old is not None and machine(old) != machine(hello):
            self._changing = asyncio.ensure_future(self.engine.restart(hello))

    def _wanted(self) -> bool:
        """Whether any language is on anywhere; else no memory is spent on a model."""
        places = [EVERYWHERE, *self.folders]
        return any(any(self.settings(p).enable.values()) for p in places) or any(self.switches.languages.values())

    def begin_close(self) -> asyncio.Task[None]:
        """Start to end the engine and save the counts; the same task for every call."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        return self._closing

    async def close(self) -> None:
        """End the engine and save the counts."""
        await self.begin_close()

    async def _close(self) -> None:
        for timer in (self._timer, self._waker):
            if timer is not None:
                timer.cancel()
        self.board.close()
        self.feed.stop()
        self.suggester.stop()
        await self.engine.stop()
        self._save()

    # --- folders and documents ---

    def add_folder(self, uri: str) -> None:
        """A workspace folder was opened."""
        if self.folders.add(uri) is None:
            self.messages.error(
                FolderError(f"{uri} is not a folder on this machine; it is not learned."), Severity.INFO
            )

    def remove_folder(self, uri: str) -> None:
        """A workspace folder was closed."""
        path = self.folders.remove(uri)
        if path is not None:
            self.engine.close_folder(path)
            self.bars.end(path)
            self.board.forget(path)

    def opened(self, uri: str, language: str, version: int, text: str) -> None:
        """A document was opened."""
        self.feed.changed(self.documents.open(uri, language, version, text))
        self.board.focus_on(self.folders.place(uri).folder)

    def edited(self, uri: str, version: int, edits: Sequence[Edit]) -> None:
        """A document was edited."""
        document = self.documents.change(uri, version, edits)
        if document is None:
            log.warning("An edit of a document that is not open was dropped.")
            return
        whole = any(edit.start is None for edit in edits)
        self.shown.changed(uri, document.text, () if whole else [len(edit.text) for edit in edits])
        self.feed.changed(document)

    def closed(self, uri: str) -> None:
        """A document was closed."""
        document = self.documents.close(uri)
        if document is not None:
            self.completions.forget(uri)
            self.feed.closed(document)
            self.switches.documents.pop(uri, None)

    def saved(self, uri: str) -> None:
        """A document was saved. The file watcher tells the engine; the buffer and the file are equal now."""
        document = self.documents.get(uri)
        if document is not None:
            self.feed.changed(document)

    async def complete(
        self, uri: str, position: tuple[int, int], invoked: bool, selected: Selected | None = None
    ) -> list[Insertion] | None:
        """A completion was asked for. None: a newer request overtook this one."""
        self.board.focus_on(self.folders.place(uri).folder)
        return await self.completions.at(uri, position, invoked, selected)

    async def deepen(self, folder: str, *, cancel: bool = False, steps: int = 0) -> wire.AdapterInfo:
        """Begin to train a LoRA of the folder, or stop that; the adapter as it stands then."""
        request = wire.Deepen(folder=folder, steps=steps, cancel=cancel)
        info = await self.engine.call("deepen", request, wire.AdapterInfo)
        self.board.adapter(info)
        return info

    async def bar_cancelled(self, token: object) -> None:
        """The user pressed a progress bar's button."""
        key = self.bars.key_of(token)
        if isinstance(key, tuple) and key[0] == wire.DEEP:
            await self.deepen(key[1], cancel=True)

    # --- switches ---

    def trust(self, trusted: bool) -> None:
        """The user granted or withdrew trust in the workspace."""
        if trusted != self.layers.trusted:
            self.layers.trusted = trusted
            self._open_folders()

    def switched(self) -> None:
        """A switch was set by the user."""
        if self.engine.hello is not None and self.engine.life is Life.OFF and self._wanted():
            self.engine.start(self.engine.hello)
        self._switched()

    def _switched(self) -> None:
        self.board.switch(self.off())
        if self._waker is not None:
            self._waker.cancel()
            self._waker = None
        left = self.switches.snoozed_until - time.time()
        if left > 0:
            self._waker = asyncio.get_running_loop().call_later(left + 0.01, self._switched)

    def off(self) -> Reason | None:
        """Why nothing is completed anywhere; None if something is."""
        if not self.switches.everything:
            return Reason.OFF
        return Reason.SNOOZED if time.time() < self.switches.snoozed_until else None

    # --- the engine speaks ---

    def _on_life(self, life: Life, message: str) -> None:
        model = self.engine.model
        if life is Life.LOADING:
            self.bars.update(_LOADING, "C2L: loading the model", "", None)
        elif life is not Life.READY:
            self.bars.end_all()
        else:
            self.bars.end(_LOADING)
            for folder, record in self.engine.folders.items():
                self._expect(folder, record)
        if life is Life.FAILED:
            self.messages.error(from_code(self.engine.code, message), Severity.ERROR)
        elif life is Life.RESTARTING:
            self.messages.error(from_code(self.engine.code, message), Severity.WARNING)
        self.board.life(life, message, model.id if model else None, model.device if model else "")

    def _on_event(self, event: Struct) -> None:
        self.board.event(event)
        folder = ""
        if isinstance(event, wire.Progress) and event.task == wire.DEEP:
            self._deep_bar(event)
            return
        if isinstance(event, wire.Progress):
            folder = event.folder
        elif isinstance(event, wire.AdapterChanged):
            folder = event.info.folder
            self.suggester.adapter_changed(folder)
        elif isinstance(event, wire.Trouble):
            folder = event.folder
            self.messages.error(from_code(event.code, event.message), severity(event.severity))
        work = self.board.work(folder)
        if work is None:
            self.bars.end(folder)
        else:
            share = work.done / work.total if work.total else None
            self.bars.update(folder, f"C2L: {Path(folder).name}", describe(work), share)

    def _deep_bar(self, event: wire.Progress) -> None:
        key, share = (wire.DEEP, event.folder), event.done / event.total if event.total else None
        if event.finished:
            self.bars.end(key)
        else:
            title = f"C2L: deepening what is known of {Path(event.folder).name}"
            self.bars.update(key, title, describe(event), share, cancellable=True)

    # --- helpers ---

    def _open_folders(self) -> None:
        for folder in self.folders:
            record = wire.OpenFolder(folder=folder, settings=self.settings(folder), trusted=self.layers.trusted)
            if self.engine.open_folder(record) and self.engine.life is Life.READY:
                self._expect(folder, record)

    def _expect(self, folder: str, record: wire.OpenFolder) -> None:
        self.suggester.adapter_changed(folder)
        adapter = record.settings.adapter
        if record.trusted and adapter.enable and adapter.hypernetwork != "none":
            self.board.opening(folder)

    def _save_regularly(self) -> None:
        self._save()
        self._timer = asyncio.get_running_loop().call_later(_SAVE_EVERY, self._save_regularly)

    def _save(self) -> None:
        try:
            self.statistics.save()
        except C2LError as error:
            self.messages.error(error)
