"""One workspace folder's living adapter: from hints about files to a new generation that is live.

`WorkspaceAdapter` never computes unasked: the scheduler drives `step()`, one slice at a time, and folds the changes of
all folders that are ready in one batched update (`ready` → `folded`). It owns the generation counter, the adapter that
is live and what is kept on disk; `learn.Learner` owns the state, `ReconcileScheduler` says when to look.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

from c2l_lsp.config import Settings
from c2l_lsp.engine import device, wire
from c2l_lsp.engine.adaptation import finetune, registry, update_plan
from c2l_lsp.engine.adaptation.adapter_state import NORM_LIMIT, UNADAPTED, AdapterState
from c2l_lsp.engine.adaptation.finetune import FinetuneJob, FinetuneResult
from c2l_lsp.engine.adaptation.learner import Learner
from c2l_lsp.engine.adaptation.pending_update import PendingUpdate
from c2l_lsp.engine.adaptation.persistence import Persistence
from c2l_lsp.engine.adaptation.reconcile_scheduler import ReconcileScheduler
from c2l_lsp.engine.adaptation.validation import ValidationResult
from c2l_lsp.engine.events import Emit, FolderEvents
from c2l_lsp.engine.storage.store import SCHEMA, FolderStore, SavedState
from c2l_lsp.errors import (
    AdapterError,
    C2LError,
    EngineError,
    FolderError,
    NothingToLearn,
    StateError,
    StorageError,
)
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.hypernet.protocol import RepoState
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime.cooperative import Slices
from c2l_lsp.repo.filter.files import FileFilter

RETRY_S = 30.0
"""After a fault of the device the folder is looked at again."""

_LOOK_S = 0.02  # while something is written, it is looked this often whether it is done

_GIT_TASK = "waiting for git"
_KEPT_BACK = "The adapter is kept back: {}."
_TOLD_PATHS = 8
"""Files that a new generation names, of those that changed."""

Work = Generator[None, None, None]


class WorkspaceAdapter:
    """One folder. An untrusted one, or one whose adapter is off, is not even read."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        trusted: bool,
        model: BaseModel,
        store: FolderStore,
        emit: Emit,
        slot: AdapterSlot,
    ) -> None:
        self.folder, self.settings, self.trusted = folder, settings, trusted
        self.live = UNADAPTED
        self.enabled = settings.adapter.enable
        self.state_name = "opening"
        self.message = ""
        self.ready: PendingUpdate | None = None
        self._model = model
        self._telling = FolderEvents(folder, emit)
        self._learner: Learner | None = None
        self._attention = ReconcileScheduler(folder, settings, self._telling.warn_once)
        self._work: Work | None = None
        self._trigger = "index"
        self.made = AdapterState(model, slot, settings.adapter.scale)
        self._slot = slot
        self.rest_until = 0.0
        self._deepening: FinetuneJob | None = None
        self._deep_work: Work | None = None
        self._generation, self._updated_at = 0, 0.0
        self._unfinished: PendingUpdate | None = None  # folded, and no adapter made of it yet
        self._keeping = Persistence(folder.name, store, trusted, self._telling)
        self._shown_filter: FileFilter | None = None
        self._hopeless = False

    # --- life --------------------------------------------------------------------------------------------------------

    @property
    def learns(self) -> bool:
        """Whether this folder has an adapter at all."""
        return self.trusted and self.settings.adapter.enable and self.settings.adapter.hypernetwork != "none"

    @property
    def network_digest(self) -> str:
        """Names the hypernetwork, so that folders of the same one are updated together."""
        network = self._learner.network if self._learner else None
        return network.digest if network else ""

    def start(self) -> None:
        """Restore what was learned, begin to watch, and plan the first comparison with the disk."""
        if not self.folder.is_dir():
            self._failed(
                FolderError(f"{self.folder} is not a folder that can be read; completions use the bare model.")
            )
            return
        if not self.learns:
            self.state_name = "off"
            self.message = "The adapter is off." if self.trusted else "The folder is not trusted: nothing is learned."
            return
        self._begin_learning()
        self._keeping.begin()
        assert self._learner is not None  # noqa: S101 - just made
        self._learner.purge = self._keeping.store.purge_pending
        try:
            self._restore(self._learner)
        except C2LError as error:
            self._telling.warn_once(error)
        self._attention.start(self._learner.filter)
        self.state_name = "indexing" if self._learner.state is None else "ready"

    def stop(self) -> None:
        """End watching and training, and let go of files."""
        self.cancel_deep()
        self.ready = None
        self._attention.stop()
        self._keeping.end()

    def buffer(self, path: str, text: str | None) -> None:
        """An open document's text (None: closed); counts instead of the file if the settings say so."""
        if self._learner is not None and self.settings.adapter.include_unsaved and self._learner.buffer(path, text):
            self._attention.hint(path)

    def texts(self) -> dict[str, bytes]:
        """The files that were learned, by path with a digest of their text; see `text`."""
        records = self._learner.records if self._learner is not None else {}
        return {path: record.entry.digest for path, record in records.items()}

    def text(self, path: str) -> str:
        """The text of a learned file as it counts now, an unsaved buffer's included."""
        return self._learner.text(path) if self._learner is not None else ""

    def permits(self, path: str) -> bool:
        """Whether a file may be seen at all; what the rules leave out is in no prompt either. Fails closed."""
        if self._attention.filter is not None:
            return not self._attention.filter.is_ignored(path)
        try:
            self._shown_filter = self._shown_filter or FileFilter(self.folder, self.settings.files)
        except C2LError:
            return not self.folder.is_dir()  # a folder that is not there hides nothing
        return not self._shown_filter.is_ignored(path)

    def distrust(self) -> None:
        """The adapter that is live made the model compute no numbers: go on without it until the next one."""
        self.made.adapter, self.made.deep = None, FinetuneResult()
        self._go_live()
        self.message = "The adapter is kept back: with it the model computed no numbers."
        self._telling.warn_once(EngineError(f"{self.folder.name}: {self.message}"))

    @property
    def buffers(self) -> dict[str, str]:
        """The unsaved texts that count instead of files."""
        return self._learner.overlay if self._learner is not None else {}

    def regenerate(self) -> None:
        """Compare everything with the disk now."""
        self._trigger = "regenerate"
        self._attention.soon()

    def reset(self) -> None:
        """Forget what was learned, on disk too, and learn it again. StorageError if some of it is still on disk."""
        self.cancel_deep()
        self.made.deep = FinetuneResult()
        failed: StorageError | None = None
        try:
            self._keeping.clear()
        except StorageError as error:
            failed = error
        if self._learner is not None:
            self._begin_learning()
            self.ready, self._work, self._unfinished = None, None, None
            self.made.drop()
            self._go_live()
        self._trigger = "reset"
        self._attention.soon()
        if failed is not None:
            self._telling.warn_once(failed)
            raise failed

    def deepen(self, steps: int = 0) -> None:
        """Train a LoRA of the folder by gradient descent behind everything else. AdapterError if it cannot begin."""
        if self._learner is None or self._learner.state is None:
            raise AdapterError(f"Nothing is learned of {self.folder.name} yet; a deep adapter needs that first.")
        self.cancel_deep()
        self._deepening = FinetuneJob(self._model, self._slot, self._learner, self.made.verdict, NORM_LIMIT, steps)
        self._deep_work = self._deepen(self._deepening)

    def cancel_deep(self) -> None:
        """Stop the training that was asked for, if there is one; one that is live stays."""
        if self._deepening is not None:
            self._deepening.cancel()
            self._deepening = self._deep_work = None

    def set_enabled(self, enabled: bool) -> None:
        """Use the adapter or not; the state goes on following the folder either way."""
        self.enabled = enabled
        self._go_live()

    def info(self) -> wire.AdapterInfo:
        """The adapter as it stands."""
        learner = self._learner
        records = learner.records if learner else {}
        return wire.AdapterInfo(
            folder=str(self.folder),
            generation=self._generation,
            kind=learner.network.kind if learner and learner.network else self.settings.adapter.hypernetwork,
            enabled=self.enabled and self.learns,
            files=len(records),
            chunks=learner.chunks if learner else 0,
            pending_files=self._attention.hinted + (self.ready.plan.changed_files if self.ready else 0),
            norm=self.made.adapter.norm if self.made.adapter else 0.0,
            scale=self.made.strength,
            recalled=len(self.made.adapter.knn.keys) if self.made.adapter and self.made.adapter.knn else 0,
            updated_at=self._updated_at,
            state=self.state_name,
            message=self.message,
            rank=self.made.adapter.rank if self.made.adapter else 0,
            learned_bytes=sum(record.entry.size for record in records.values()),
            sampled=learner.sample.partial if learner else False,
            deep=self._deepening.note if self._deepening else self.made.deep.note,
        )

    # --- the scheduler's side ----------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether something was hinted or begun that is not live yet."""
        begun = self._work is not None or self.ready is not None or self._deep_work is not None
        begun = begun or self._keeping.busy or self._keeping.done
        return begun or self._attention.hinted > 0

    def due_in(self, now: float) -> float | None:
        """Seconds until there is work; 0 or less: now; None: nothing is planned."""
        if self._learner is None or self._hopeless:
            return None
        if self._work is not None or self.ready is not None or self._keeping.done:
            return 0.0
        if self._keeping.busy:
            return min(self._attention.due_in(now), _LOOK_S)
        trained = max(0.0, self.rest_until - now) if self._deep_work is not None else float("inf")
        return min(self._attention.due_in(now), trained)

    def step(self, now: float) -> None:
        """One slice of work, about `fold.SLICE_S` long. A fault of the folder becomes a trouble, never more."""
        if self._keeping.done and self._learner is not None:
            self._keeping.settle(self._learner)
            return
        if self._work is None and self._deep_work is not None and self._attention.due_in(now) > 0:
            self._deep_slice(self._deep_work)
            return
        if self._work is None:
            self._work = self._begin(now)
        work = self._work
        try:
            next(work)
        except StopIteration:
            if self._work is work:
                self._work = None
        except Exception as error:  # a reason to learn nothing, torch's own (memory, device), and what nobody foresaw
            self.not_folded(error)

    def not_folded(self, error: Exception) -> None:
        """The folder's work failed: the last adapter stays, and the folder is looked at again.

        The error goes on if the device is lost: only a new process helps then.
        """
        self._work = self.ready = None
        if device.is_lost(error):
            raise error
        if isinstance(error, StateError) and self._learner is not None:
            self._learner.forget()  # it does not fit what is to be folded: built anew
        elif isinstance(error, C2LError):
            self._failed(error)
            return
        what = device.describe(error)
        self._failed(EngineError(f"{self.folder.name} could not be learned just now ({what}); it is tried again."))
        self._attention.soon(RETRY_S)

    def _deep_slice(self, work: Work) -> None:
        try:
            next(work)
        except StopIteration:
            self._deepening = self._deep_work = None
        except Exception as error:
            self._deepening = self._deep_work = None
            if device.is_lost(error):
                raise
            note = f"failed: {device.describe(error)}"
            self.made.deep = replace(self.made.deep, note=note)
            self._telling.warn_once(
                error if isinstance(error, C2LError) else EngineError(f"{self.folder.name}: {note}.")
            )

    def _deepen(self, deepening: FinetuneJob) -> Work:
        self.made.deep = yield from deepening.run(
            lambda done, total, finished: self._telling.progress(wire.DEEP, done, total, "steps", finished)
        )
        self._generation += 1
        self._updated_at = time.time()
        self._go_live()
        self._telling.emit(wire.AdapterChanged(info=self.info(), trigger=wire.DEEP, changed_files=0, ms={}))
        if self._learner is not None and self._learner.state is not None:
            self._save(self._learner, self._learner.state)

    def update_input(self) -> tuple[RepoState, PendingUpdate]:
        """The state and the change that wait for the batched update."""
        assert self._learner is not None  # noqa: S101 - only asked when ready
        assert self._learner.network is not None  # noqa: S101
        assert self.ready is not None  # noqa: S101
        begun = self.ready.replayed.start if self.ready.replayed is not None else None
        return begun or self._learner.state or self._learner.network.empty_state(), self.ready

    def update_in_slices(self, states: list[RepoState], changes: list[PendingUpdate]) -> Slices[list[RepoState]]:
        """The batched update with this folder's hypernetwork (that of all folders in the batch)."""
        assert self._learner is not None  # noqa: S101
        assert self._learner.network is not None  # noqa: S101
        return self._learner.network.update_in_slices(states, [ready.change for ready in changes])

    def folded(self, state: RepoState, update_ms: float) -> None:
        """The batched update is done: make the adapter, pass the gate, go live, keep it."""
        assert self.ready is not None  # noqa: S101
        assert self._learner is not None  # noqa: S101
        ready, self.ready = self.ready, None
        ready.ms["update"] = update_ms
        self._learner.fold(ready, state)
        if ready.replayed is not None:  # the state stands for HEAD: what differs on disk is the next change
            self._attention.soon()
        self._unfinished = ready
        self._work = self._finish(ready, self._learner, state)

    def _begin(self, now: float) -> Work:
        """The next piece of work: everything if that is due, else what was hinted."""
        assert self._learner is not None  # noqa: S101
        waited = self._attention.waits
        look = self._attention.look(now, first=self._learner.state is None)
        if self._attention.waits != waited:
            self._say_of_git(self._attention.waits)
        if look is None:
            return
        trigger, self._trigger = self._trigger, "diff"
        self.state_name = "indexing" if self._learner.state is None else "updating"
        try:
            self.ready = yield from self._learner.reconcile(None if look.everything else look.hints, trigger)
        except NothingToLearn:
            self._keeping.nothing(self._learner)
            raise
        if self.ready is None and self._unfinished is not None and self._learner.state is not None:
            yield from self._finish(self._unfinished, self._learner, self._learner.state)
        elif self.ready is None:
            self._settle()
            if (not self._keeping.works or self._learner.purge) and self._learner.state is not None:
                self._save(self._learner, self._learner.state)

    def _say_of_git(self, waits: bool) -> None:
        self.message = "git is at work in the folder; it is learned when git is done." if waits else ""
        self._telling.progress(_GIT_TASK, 0, 0, "", not waits)

    def _finish(self, ready: PendingUpdate, learner: Learner, state: RepoState) -> Work:
        assert learner.network is not None  # noqa: S101
        started = time.perf_counter()
        adapter = learner.network.generate(state)
        made = time.perf_counter()
        yield
        moved = adapter.relative_change(self.made.adapter) if self.made.adapter is not None else 0.0
        reason = yield from self.made.take(adapter, ready, learner)
        self.message = _KEPT_BACK.format(reason) if reason else ""
        self._unfinished = None
        self._generation += 1
        self._updated_at = time.time()
        self._go_live()
        self._settle()
        ready.ms |= {"adapter": (made - started) * 1e3, "gate": (time.perf_counter() - made) * 1e3}
        self._telling.emit(
            wire.AdapterChanged(
                info=self.info(),
                trigger=ready.trigger,
                changed_files=ready.plan.changed_files,
                ms=ready.ms,
                paths=ready.plan.largest(_TOLD_PATHS),
                moved=moved,
            )
        )
        yield
        self._save(learner, state)
        reason_now = yield from self.made.judge_again(adapter, learner, self._urgent)
        if reason_now is not None:
            self._judged(reason_now)
            self._save(learner, state)

    def _urgent(self) -> bool:
        return self._attention.due_in(time.monotonic()) <= 0

    def _judged(self, reason: str) -> None:
        """The gate found another strength after the adapter had gone live."""
        self.message = _KEPT_BACK.format(reason) if reason else ""
        self._generation += 1
        self._updated_at = time.time()
        self._go_live()
        self._telling.emit(wire.AdapterChanged(info=self.info(), trigger="gate", changed_files=0, ms={}))

    # --- small steps -------------------------------------------------------------------------------------------------

    def _begin_learning(self) -> None:
        telling, keeping = self._telling, self._keeping
        self._learner = Learner(
            self.folder,
            self.settings,
            self._model,
            keeping.cache,
            telling.progress,
            keeping.failed,
            telling.warn_once,
            self._purge,
        )

    def _go_live(self) -> None:
        bare = not self.enabled
        self.live = UNADAPTED if bare else self.made.live(self._generation, str(self.folder), hopeless=self._hopeless)

    def _settle(self) -> None:
        self.state_name = "ready"
        self._telling.clear_warnings()  # what goes wrong again is told again

    def _failed(self, error: C2LError) -> None:
        """Go on with the bare model (or the last adapter); the folder is looked at again unless that is no use."""
        self.state_name = "failed" if isinstance(error, FolderError | AdapterError) else "ready"
        self._hopeless = isinstance(error, AdapterError)
        self.message = str(error)
        if isinstance(error, NothingToLearn | FolderError):
            self.made.adapter = None
            self._go_live()
        self._telling.warn_once(error)

    # --- keeping -----------------------------------------------------------------------------------------------------

    def _save(self, learner: Learner, state: RepoState) -> None:
        if learner.network is None or not self._keeping.may:
            return
        saved = SavedState(
            schema=SCHEMA,
            folder=str(self.folder),
            hypernetwork=learner.network.digest,
            filter_digest=learner.rules,
            generation=self._generation,
            gate=self.made.verdict.strength,
            gate_recall=self.made.verdict.knn_strength,
            files=update_plan.to_rows(learner.records),
            seen=learner.seen,
            touched=learner.sample.touched,
            first=learner.sample.rows,
        )
        self._keeping.keep(learner, saved, state, learner.extra | finetune.to_tensors(self.made.deep))

    def _purge(self) -> None:
        """The rules are other ones than what was learned was made under: from now on it is used nowhere, and what is
        kept of it goes at once, so that it does not come back with the next start."""
        if self._deepening is not None or self.made.deep.pairs:
            self.made.deep = FinetuneResult(note="dropped: other ignore rules hold than when it was trained")
        self.cancel_deep()
        self.made.drop()
        self._unfinished = None
        if self.live is not UNADAPTED:
            self._generation += 1  # what was remembered of the last one (texts for drafts) is looked through again
            self._go_live()
        self._keeping.purge()

    def _restore(self, learner: Learner) -> None:
        store = self._keeping.store
        loaded = store.load()
        if loaded is None:
            return
        saved, state, extra = loaded
        self._generation, learner.rules = saved.generation, saved.filter_digest
        try:
            extra, deeper = finetune.split(extra)
        except StateError as error:
            raise store.reject(error) from error
        learner.extra = extra
        network = registry.build(self.settings, self._model, extra)
        if network is None or network.digest != saved.hypernetwork:
            return  # another model or hypernetwork: built anew, the counter goes on
        try:
            network.check(state)
            finetune.check(deeper, self._model)
            adapter = network.generate(state)
            adapter.check(self._model)
        except Exception as error:
            learner.extra = {}
            raise store.reject(StateError(device.describe(error))) from error
        learner.restore(network, state, saved)
        self.made.verdict = ValidationResult(saved.gate, 0.0, 0, knn_strength=saved.gate_recall)
        if deeper.pairs:
            self.made.deep = deeper
        self.made.adapter = adapter
        self._go_live()
        self._trigger = "diff"
        self._updated_at = time.time()
        self._telling.emit(wire.AdapterChanged(info=self.info(), trigger="restore", changed_files=0, ms={}))
