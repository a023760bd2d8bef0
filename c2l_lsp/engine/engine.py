"""The engine: one base model and any number of workspace folders.

No process, threads or frames here (see `worker`): methods take and return wire records. Completions have priority;
`idle_step` runs one slice of adapter work (see `scheduler`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from c2l_lsp.config import Settings, state_root
from c2l_lsp.engine import wire
from c2l_lsp.engine.adaptation.adapter_state import UNADAPTED, LiveAdapter
from c2l_lsp.engine.adaptation.workspace_adapter import Environment, WorkspaceAdapter
from c2l_lsp.engine.completion.complete import Completer
from c2l_lsp.engine.completion.decode import Decoder
from c2l_lsp.engine.draft_indexing import DraftIndexing
from c2l_lsp.engine.events import Emit
from c2l_lsp.engine.scheduler import Scheduler
from c2l_lsp.engine.storage.inventory import prune
from c2l_lsp.engine.storage.store import FolderStore, folder_key
from c2l_lsp.engine.workspaces import MissingWorkspace, Workspace, open_workspace
from c2l_lsp.errors import AdapterError, FolderError, RequestError, Severity
from c2l_lsp.model.adapter.lora import AdapterSlot, export_peft
from c2l_lsp.model.lm import fast_loader

_LATENCIES = 200  # completions that the latency percentiles are computed from

FINETUNING_PAUSE_S = 2.0
"""Finetuning rests for this many seconds after a completion request."""

MISSING_CHECK_S = 2.0
"""Seconds between two looks for a folder that was not there when it was opened."""

MAX_FOLLOWED = 16
"""Workspaces that are followed at a time. Each costs watches, threads, descriptors and memory, so that an editor with a
thousand folders would exhaust them; the least recently used ones sleep until they are used again."""


@dataclass(frozen=True)
class _Sleeping:
    """An open workspace that is not followed, and what it needs to continue."""

    request: wire.OpenFolder
    info: wire.AdapterInfo
    enabled: bool
    buffers: dict[str, str]


class Engine:
    """Everything that the frames can ask for."""

    def __init__(self, settings: Settings, emit: Emit) -> None:
        """Load the base model. ModelError if that is not possible. `emit` receives the events of all workspaces."""
        self.model = fast_loader.load(settings.model)
        self._slot = AdapterSlot(self.model)
        self._environment = Environment(self.model, self._slot, emit)
        self._decoder = Decoder(self.model, self._slot, clock=time.perf_counter)
        self._completer = Completer(self.model, self._decoder)
        self._drafts = DraftIndexing(self.model.encode)
        self._scheduler = Scheduler(self._slot, self._decoder, self._drafts)
        self._requests: dict[str, wire.OpenFolder] = {}
        self._followed: dict[str, Workspace] = {}  # least recently used first
        self._sleeping: dict[str, _Sleeping] = {}
        self._pruned = False
        self._next_look = 0.0
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)

    # --- completions -------------------------------------------------------------------------------------------------

    def complete(self, request: wire.Complete, cancelled: Callable[[], bool]) -> wire.Completion:
        """Answer under the folder's live generation, or on the base model. The generation cannot change meanwhile.

        An adapter with which the model produces NaN is withdrawn, and the answer comes from the base model.
        FloatingPointError if the base model itself produces NaN.
        """
        until = time.monotonic() + FINETUNING_PAUSE_S
        for followed in self._followed.values():
            if isinstance(followed, WorkspaceAdapter):
                followed.pause_finetuning(until)
        workspace = self.workspace(request.folder) if request.folder in self._requests else None
        if workspace is not None and not workspace.permits(request.path):
            return wire.Completion(
                texts=[], generation=0, prompt_tokens=0, new_tokens=0, ms=wire.Timing(), reason=wire.LEFT_OUT
            )
        live = self._use_adapter(request.folder, request.adapter)
        try:
            answer = self._complete_under(request, live, cancelled)
        except FloatingPointError:
            self._decoder.clear_cache()
            if not isinstance(workspace, WorkspaceAdapter) or live.adapter is None:
                raise
            workspace.withdraw_adapter()
            answer = self._complete_under(request, self._use_adapter(request.folder, request.adapter), cancelled)
        if not request.read_only:
            self._latencies.append(answer.ms.total)
        return answer

    def _complete_under(
        self, request: wire.Complete, live: LiveAdapter, cancelled: Callable[[], bool]
    ) -> wire.Completion:
        return self._completer.complete(
            request,
            generation=live.generation,
            kv_key=live.kv_key,
            cancelled=cancelled,
            draft_source=self._drafts.of(request.folder),
        )

    def score(self, request: wire.Score) -> wire.Scored:
        """Return the log-probability of a text at a cursor, under the folder's live generation or the base model."""
        live = self._use_adapter(request.folder, request.adapter)
        return self._completer.score(request, generation=live.generation, adapters=self._slot)

    def _use_adapter(self, folder: str, adapter: bool) -> LiveAdapter:
        """Plug in the adapter that a request runs under, and return it."""
        workspace = self._followed.get(folder)
        live = workspace.live if workspace is not None and adapter else UNADAPTED
        self._slot.activate(live.adapter)
        return live

    # --- workspaces --------------------------------------------------------------------------------------------------

    def open_folder(self, request: wire.OpenFolder) -> None:
        """Follow a folder; an open one takes the new settings. RequestError if its path is not absolute."""
        self.close_folder(request.folder)
        if not Path(request.folder).is_absolute():
            raise RequestError(f"A folder must be an absolute path, not {request.folder}.")
        if not self._pruned:
            self._pruned = True
            prune(state_root())
        self._requests[request.folder] = request
        self._follow(request)
        self._limit_followed()

    def close_folder(self, folder: str) -> None:
        """Stop following a folder. Its saved state stays on disk."""
        self._requests.pop(folder, None)
        self._sleeping.pop(folder, None)
        self._unfollow(folder)

    def close(self) -> None:
        """Close all folders."""
        for folder in list(self._requests):
            self.close_folder(folder)

    def workspace(self, folder: str) -> Workspace:
        """Return an open folder, and follow it if it sleeps. RequestError if it is not open."""
        if folder not in self._requests:
            raise RequestError(f"The folder {folder} is not open.")
        asleep = self._sleeping.pop(folder, None)
        if asleep is not None:
            woken = self._follow(asleep.request)
            woken.set_enabled(asleep.enabled)
            for path, text in asleep.buffers.items():
                woken.set_buffer(path, text)
            self._limit_followed()
        self._followed[folder] = found = self._followed.pop(folder)
        return found

    def _follow(self, request: wire.OpenFolder) -> Workspace:
        folder = Path(request.folder)
        store = FolderStore(state_root() / folder_key(folder))
        workspace = open_workspace(folder, request.settings, store, self._environment, trusted=request.trusted)
        self._followed[request.folder] = workspace
        self._drafts.open(request.folder)
        self._scheduler.add(request.folder, workspace)
        return workspace

    def _open_again(self, folder: str, missing: MissingWorkspace) -> None:
        """Open a folder that was not there before and is by now."""
        self._unfollow(folder)
        opened = self._follow(self._requests[folder])
        opened.set_enabled(missing.enabled)
        for path, text in missing.buffers.items():
            opened.set_buffer(path, text)

    def _missing(self) -> dict[str, MissingWorkspace]:
        """The followed folders that were not there when they were opened."""
        return {name: found for name, found in self._followed.items() if isinstance(found, MissingWorkspace)}

    def _unfollow(self, folder: str) -> None:
        workspace = self._followed.pop(folder, None)
        if workspace is not None:
            self._scheduler.remove(folder)
            self._drafts.close(folder)
            workspace.stop()

    def _limit_followed(self) -> None:
        """Let the least recently used workspaces sleep; their state is on disk."""
        while len(self._followed) > MAX_FOLLOWED:
            folder, workspace = next(iter(self._followed.items()))
            request, info = self._requests[folder], workspace.info()
            self._sleeping[folder] = _Sleeping(request, info, workspace.enabled, workspace.buffers)
            self._unfollow(folder)
            message = (
                f"{workspace.folder.name} is followed again when it is used: at most {MAX_FOLLOWED} folders are "
                "followed at a time."
            )
            severity = Severity.INFO.value
            self._environment.emit(
                wire.Trouble(folder=folder, code=FolderError.code, severity=severity, message=message)
            )

    def export(self, request: wire.Export) -> wire.Exported:
        """Write the live adapter, its strength included, as a PEFT directory. AdapterError if there is none."""
        workspace = self.workspace(request.folder)
        if workspace.live.adapter is None:
            generated = workspace.info().generation > 0
            reason = workspace.message or ("its strength is set to 0." if generated else "it is not generated yet.")
            raise AdapterError(f"There is no adapter for {request.folder} to export: {reason}")
        rank, error = export_peft(workspace.live.adapter, self.model, Path(request.out), request.rank)
        return wire.Exported(out=request.out, rank=rank, error=error, generation=workspace.live.generation)

    # --- status ------------------------------------------------------------------------------------------------------

    def status(self) -> wire.Status:
        """Return the state of the engine and of every open folder."""
        followed = [workspace.info() for workspace in self._followed.values()]
        return wire.Status(
            model=self.model_info(),
            folders=followed + [sleeping.info for sleeping in self._sleeping.values()],
            queued=0,
            p50_ms=self._latency(0.5),
            p95_ms=self._latency(0.95),
            memory_mb=psutil.Process().memory_info().rss / 2**20,
        )

    def _latency(self, share: float) -> float:
        """A percentile of the last completions' durations in ms, 0 before the first."""
        ordered = sorted(self._latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    def model_info(self) -> wire.ModelInfo:
        """Return what the status shows of the base model."""
        model = self.model
        return wire.ModelInfo(
            id=model.id,
            parameters=model.parameters,
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            fim=model.fim is not None,
            max_context=model.max_context,
            digest=model.digest,
            load_ms=model.load_ms,
        )

    # --- adapter work ------------------------------------------------------------------------------------------------

    def due_in(self) -> float | None:
        """Return the seconds until there is adapter work, None if there never is; 0 or less: now."""
        due = self._scheduler.due_in()
        if not self._missing():
            return due
        look = self._next_look - time.monotonic()
        return look if due is None else min(look, due)

    def idle_step(self) -> None:
        """Run one slice of adapter work."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + MISSING_CHECK_S
            for folder, missing in self._missing().items():
                if missing.appeared:
                    self._open_again(folder, missing)
        self._scheduler.step()
