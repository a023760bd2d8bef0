"""The engine: one base model, any number of folders, and the rule who may use the device next.

No process, no threads, no frames here (see `worker`): methods take and return wire records. Completions come first;
adapter work is done one slice at a time by `idle_step`, round robin over the folders that have some.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from c2l_lsp.config import Settings, state_root
from c2l_lsp.engine import batch_update, wire
from c2l_lsp.engine.adaptation.adapter_state import UNADAPTED, LiveAdapter
from c2l_lsp.engine.adaptation.workspace_adapter import WorkspaceAdapter
from c2l_lsp.engine.completion.complete import Completer
from c2l_lsp.engine.completion.decode import Decoder
from c2l_lsp.engine.completion.draft_index import DraftIndex
from c2l_lsp.engine.events import Emit
from c2l_lsp.engine.storage.inventory import prune
from c2l_lsp.engine.storage.store import FolderStore, folder_key
from c2l_lsp.errors import AdapterError, FolderError, RequestError, Severity
from c2l_lsp.model.adapter.lora import AdapterSlot, export_peft
from c2l_lsp.model.lm import fast_loader
from c2l_lsp.model.runtime.cooperative import Slices

_LATENCIES = 200
REST_S = 2.0
"""Training on request stands still for so long after a completion was asked for."""


AWAKE = 16
"""Folders that are followed at a time. One beyond that is looked at again when it is used: each costs watches, threads,
descriptors and memory, and an editor with a thousand folders must not use them up."""


@dataclass(frozen=True)
class _Asleep:
    """A folder that is open but not followed just now, and what must not be forgotten of it."""

    request: wire.OpenFolder
    info: wire.AdapterInfo
    enabled: bool
    buffers: dict[str, str]


class Engine:
    """Everything the frames can ask for."""

    def __init__(self, settings: Settings, emit: Emit) -> None:
        self._emit = emit
        self.model = fast_loader.load(settings.model)
        self._slot = AdapterSlot(self.model)
        self._decoder = Decoder(self.model, self._slot, clock=time.perf_counter)
        self._completer = Completer(self.model, self._decoder)
        self._folders: dict[str, WorkspaceAdapter] = {}  # the least recently used first
        self._requests: dict[str, wire.OpenFolder] = {}
        self._asleep: dict[str, _Asleep] = {}
        self._pruned = False
        self._hoards: dict[str, DraftIndex] = {}
        self._hoarded: dict[str, int] = {}  # folder → generation its hoard is up to date with
        self._prepared: dict[str, LiveAdapter] = {}
        self._turn: deque[str] = deque()
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._folding: Slices[None] | None = None

    # --- completions -------------------------------------------------------------------------------------------------

    def complete(self, request: wire.Complete, cancelled: Callable[[], bool]) -> wire.Completion:
        """Answer under the folder's current generation (or the bare model); the generation cannot change meanwhile."""
        for life in self._folders.values():
            life.rest_until = time.monotonic() + REST_S
        found = self.life(request.folder) if request.folder in self._requests else None
        if found is not None and not found.permits(request.path):
            return wire.Completion(
                texts=[], generation=0, prompt_tokens=0, new_tokens=0, ms=wire.Timing(), reason=wire.LEFT_OUT
            )
        live = self._live(request.folder, request.adapter)
        try:
            answer = self._under(request, live, cancelled)
        except FloatingPointError:
            self._decoder.clear_cache()
            if found is None or live.adapter is None:
                raise
            found.distrust()
            answer = self._under(request, self._live(request.folder, request.adapter), cancelled)
        self._latencies.append(answer.ms.total)
        return answer

    def _under(self, request: wire.Complete, live: LiveAdapter, cancelled: Callable[[], bool]) -> wire.Completion:
        return self._completer.complete(
            request,
            generation=live.generation,
            kv_key=live.kv_key,
            cancelled=cancelled,
            draft_source=self._hoards.get(request.folder),
        )

    def score(self, request: wire.Score) -> wire.Scored:
        """How likely a text is at a cursor, under the folder's current generation or the bare model."""
        live = self._live(request.folder, request.adapter)
        return self._completer.score(request, generation=live.generation, adapters=self._slot)

    def _live(self, folder: str, adapter: bool) -> LiveAdapter:
        """Put the adapter a request runs under into place."""
        life = self._folders.get(folder)
        live = life.live if life is not None and adapter else UNADAPTED
        self._slot.activate(live.adapter)
        return live

    # --- folders -----------------------------------------------------------------------------------------------------

    def open_folder(self, request: wire.OpenFolder) -> None:
        """Begin to follow a folder; opened again it takes the new settings."""
        self.close_folder(request.folder)
        if not Path(request.folder).is_absolute():
            raise RequestError(f"A folder must be an absolute path, not {request.folder}.")
        if not self._pruned:
            self._pruned = True
            prune(state_root())
        self._requests[request.folder] = request
        self._begin(request)
        self._rest()

    def close_folder(self, folder: str) -> None:
        """Stop following a folder; what was learned stays on disk."""
        self._requests.pop(folder, None)
        self._asleep.pop(folder, None)
        self._end(folder)

    def close(self) -> None:
        """Stop everything."""
        for folder in list(self._requests):
            self.close_folder(folder)

    def life(self, folder: str) -> WorkspaceAdapter:
        """The folder's life, followed from now on. RequestError if it is not open."""
        if folder not in self._requests:
            raise RequestError(f"The folder {folder} is not open.")
        asleep = self._asleep.pop(folder, None)
        if asleep is not None:
            life = self._begin(asleep.request)
            life.set_enabled(asleep.enabled)
            for path, text in asleep.buffers.items():
                life.buffer(path, text)
            self._rest()
        self._folders[folder] = found = self._folders.pop(folder)
        return found

    def _begin(self, request: wire.OpenFolder) -> WorkspaceAdapter:
        path = Path(request.folder)
        store = FolderStore(state_root() / folder_key(path))
        life = WorkspaceAdapter(path, request.settings, request.trusted, self.model, store, self._emit, self._slot)
        self._folders[request.folder] = life
        self._hoards[request.folder] = DraftIndex(self.model.encode)
        self._turn.append(request.folder)
        try:
            life.start()
        except Exception as error:  # of this folder alone; it says so, and the others go on
            life.not_folded(error)
        return life

    def _end(self, folder: str) -> None:
        life = self._folders.pop(folder, None)
        if life is not None:
            self._turn.remove(folder)
            self._hoards.pop(folder, None)
            self._hoarded.pop(folder, None)
            self._prepared.pop(folder, None)
            life.stop()

    def _rest(self) -> None:
        """Let the least recently used folders sleep; what was learned of them is on disk."""
        while len(self._folders) > AWAKE:
            folder, life = next(iter(self._folders.items()))
            self._asleep[folder] = _Asleep(self._requests[folder], life.info(), life.enabled, life.buffers)
            self._end(folder)
            said = f"{life.folder.name} is followed again when it is used: {AWAKE} folders are at a time."
            info = Severity.INFO.value
            self._emit(wire.Trouble(folder=folder, code=FolderError.code, severity=info, message=said))

    def export(self, request: wire.Export) -> wire.Exported:
        """The adapter that is live, strength included, as a PEFT directory."""
        life = self.life(request.folder)
        if life.live.adapter is None:
            made = life.info().generation > 0
            why = life.message or ("its strength is set to 0." if made else "it has not been made yet.")
            raise AdapterError(f"There is no adapter for {request.folder} to export: {why}")
        rank, error = export_peft(life.live.adapter, self.model, Path(request.out), request.rank)
        return wire.Exported(out=request.out, rank=rank, error=error, generation=life.live.generation)

    def status(self) -> wire.Status:
        """The engine as a whole."""
        ordered = sorted(self._latencies)

        def at(share: float) -> float:
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

        return wire.Status(
            model=self.model_info(),
            folders=[life.info() for life in self._folders.values()] + [one.info for one in self._asleep.values()],
            queued=0,
            p50_ms=at(0.5),
            p95_ms=at(0.95),
            memory_mb=psutil.Process().memory_info().rss / 2**20,
        )

    def model_info(self) -> wire.ModelInfo:
        """The base model in use."""
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
        """Seconds until a folder has work; None: none is planned."""
        now = time.monotonic()
        planned = [due for life in self._folders.values() if (due := life.due_in(now)) is not None]
        if self._folding is not None or self._unhoarded() is not None:
            planned.append(0.0)
        return min(planned, default=None)

    def idle_step(self) -> None:
        """One slice of adapter work: a folder's next step, or the batched update of all folders that are ready."""
        now = time.monotonic()
        self._slot.activate(None)  # what is read is read by the bare model, whatever the last completion ran under
        for _ in range(len(self._turn)):
            self._turn.rotate(-1)
            life = self._folders[self._turn[-1]]
            due = life.due_in(now)
            if life.ready is None and due is not None and due <= 0:
                life.step(now)
                return
        if self._prepare():
            return
        if self._folding is not None or any(life.ready is not None for life in self._folders.values()):
            self._fold()
        elif (folder := self._unhoarded()) is not None:
            self._hoard(folder)

    def _prepare(self) -> bool:
        """Merge what a folder's new generation needs merged, before a completion has to wait for it."""
        for name, life in self._folders.items():
            if life.live is not self._prepared.get(name, UNADAPTED):
                self._prepared[name] = life.live
                if life.live.adapter is not None and life.live.adapter.pairs:
                    try:
                        self._slot.activate(life.live.adapter)
                        self._decoder.prepare()
                    except Exception as error:
                        life.not_folded(error)
                    finally:
                        self._slot.activate(None)
                    return True
        return False

    def _unhoarded(self) -> str | None:
        """A folder whose texts have changed since drafts were looked up in them."""
        lives = self._folders.items()
        return next((name for name, life in lives if self._hoarded.get(name, 0) != life.live.generation), None)

    def _hoard(self, folder: str) -> None:
        """Make one more of a folder's texts known to its drafts."""
        life, hoard = self._folders[folder], self._hoards[folder]
        versions = life.texts()
        try:
            path = hoard.next_stale(versions.items())
            if path is not None:
                hoard.put(path, versions[path], life.text(path))
                return
        except Exception as error:
            life.not_folded(error)
        self._hoarded[folder] = life.live.generation

    def _fold(self) -> None:
        """One slice of folding what waits; what comes meanwhile waits for the next time."""
        work = self._folding = self._folding or batch_update.fold(list(self._folders.values()))
        try:
            next(work)
        except StopIteration:
            self._folding = None
        except Exception:
            self._folding = None
            raise
