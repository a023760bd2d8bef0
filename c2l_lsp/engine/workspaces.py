"""A workspace folder is one of two types: it adapts, or it is inactive. `open_workspace` decides which.

`WorkspaceAdapter` has an adapter and work to do. `InactiveWorkspace` is a folder that is not trusted, whose adapter is
off, or that cannot be read: it never has work, and nothing of it is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from c2l_lsp.config import Settings
from c2l_lsp.engine import device, wire
from c2l_lsp.engine.adaptation.adapter_state import UNADAPTED
from c2l_lsp.engine.adaptation.workspace_adapter import Environment, WorkspaceAdapter, nothing_learned
from c2l_lsp.engine.events import FolderEvents
from c2l_lsp.engine.storage.store import FolderStore
from c2l_lsp.errors import AdapterError, C2LError, EngineError, FolderError
from c2l_lsp.repo.filter.files import FileFilter


class InactiveWorkspace:
    """A folder without an adapter: nothing of it is read, learned or saved. Completions run on the base model."""

    def __init__(self, folder: Path, settings: Settings, store: FolderStore, state: str, message: str) -> None:
        """`state` and `message` are what the status shows: "off" or "failed", and why."""
        self.folder, self.settings = folder, settings
        self.live = UNADAPTED
        self.enabled = settings.adapter.enable
        self.message = message
        self._state, self._store = state, store
        self._filter: FileFilter | None = None

    @property
    def pending(self) -> bool:
        """Whether adapter work is in progress: never."""
        return False

    @property
    def buffers(self) -> dict[str, str]:
        """The texts of unsaved buffers: none are kept."""
        return {}

    def due_in(self, now: float) -> float | None:
        """Seconds until there is work; None: there never is."""
        del now
        return None

    def stop(self) -> None:
        """Release the state directory."""
        self._store.close()

    def set_buffer(self, path: str, text: str | None) -> None:
        """Ignore an open document's text."""

    def regenerate(self) -> None:
        """Do nothing: there is no adapter to generate."""

    def reset(self) -> None:
        """Delete what was saved of the folder earlier. StorageError if some of it is still on disk."""
        self._store.clear()

    def finetune(self, steps: int = 0) -> None:
        """Raise AdapterError: there is nothing to train on."""
        del steps
        raise AdapterError(nothing_learned(self.folder))

    def cancel_finetuning(self) -> None:
        """Do nothing: no training runs."""

    def set_enabled(self, enabled: bool) -> None:
        """Remember the switch."""
        self.enabled = enabled

    def permits(self, path: str) -> bool:
        """Whether the filter admits a file to a prompt. Fails closed; a folder that does not exist hides nothing."""
        try:
            self._filter = self._filter or FileFilter(self.folder, self.settings.files)
        except C2LError:
            return not self.folder.is_dir()
        return not self._filter.is_ignored(path)

    def info(self) -> wire.AdapterInfo:
        """Return what the status shows of the folder."""
        return wire.AdapterInfo(
            folder=str(self.folder),
            generation=0,
            kind=self.settings.adapter.hypernetwork,
            enabled=self.enabled and self._state != "off",
            files=0,
            chunks=0,
            pending_files=0,
            norm=0.0,
            scale=self.settings.adapter.scale,
            updated_at=0.0,
            state=self._state,
            message=self.message,
        )


class MissingWorkspace(InactiveWorkspace):
    """A folder that is not there, for example on a network drive that is not mounted yet. It keeps what it is told."""

    def __init__(self, folder: Path, settings: Settings, store: FolderStore, message: str) -> None:
        super().__init__(folder, settings, store, "failed", message)
        self._buffers: dict[str, str] = {}

    @property
    def buffers(self) -> dict[str, str]:
        """The texts of unsaved buffers, for the time when the folder is there."""
        return dict(self._buffers)

    def set_buffer(self, path: str, text: str | None) -> None:
        """Keep an open document's text; None: it is closed."""
        self._buffers.pop(path, None)
        if text is not None:
            self._buffers[path] = text

    @property
    def appeared(self) -> bool:
        """Whether the folder is there by now, so that it must be opened again."""
        return self.folder.is_dir()


Workspace: TypeAlias = WorkspaceAdapter | InactiveWorkspace


def open_workspace(
    folder: Path, settings: Settings, store: FolderStore, environment: Environment, *, trusted: bool
) -> Workspace:
    """Return the folder as one that adapts, or as an inactive one if it must not or cannot adapt. Does not raise.

    What keeps a folder from being opened is reported as a warning of that folder.
    """
    events = FolderEvents(folder, environment.emit)
    if not trusted:
        return InactiveWorkspace(folder, settings, store, "off", "The folder is not trusted: nothing is learned.")
    if not folder.is_dir():
        missing = FolderError(f"{folder} is not a folder that can be read; completions use the base model.")
        events.warn_once(missing)
        return MissingWorkspace(folder, settings, store, str(missing))
    if not settings.adapter.enable or settings.adapter.hypernetwork == "none":
        return InactiveWorkspace(folder, settings, store, "off", "The adapter is off.")
    try:
        workspace = WorkspaceAdapter(folder, settings, store, environment)
    except Exception as unforeseen:  # of this folder alone: it is reported, and other folders go on
        reason = f"{folder.name} could not be opened ({device.describe(unforeseen)}); completions use the base model."
        error = unforeseen if isinstance(unforeseen, C2LError) else EngineError(reason)
        events.warn_once(error)
        return InactiveWorkspace(folder, settings, store, "failed", str(error))
    try:
        workspace.start()
    except Exception as unforeseen:  # of this folder alone: it is reported, and other folders go on
        workspace.fail(unforeseen)
    return workspace
