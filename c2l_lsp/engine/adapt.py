"""One workspace folder's living adapter: from hints about files to a new generation that is live.

`FolderLife` never computes unasked: the scheduler drives `step()`, one slice at a time, and folds the changes of all
folders that are ready in one batched update (`ready` → `folded`). It owns the watcher, the generation counter, the
adapter that is live and what is kept on disk; `learn.Learner` owns the state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path

from c2l_lsp.config import Settings
from c2l_lsp.engine import deep, device, fold, kinds, wire
from c2l_lsp.engine.deep import Deepening, Outcome
from c2l_lsp.engine.gate import Trial, Verdict, held_out, refuse
from c2l_lsp.engine.learn import Learner, Ready
from c2l_lsp.engine.store import SCHEMA, FolderStore, InUse, Saved
from c2l_lsp.errors import (
    AdapterError,
    C2LError,
    EngineError,
    FolderError,
    NothingToLearn,
    Severity,
    StorageError,
)
from c2l_lsp.model.base import BaseModel
from c2l_lsp.model.hypernet import RepoState
from c2l_lsp.model.lora import Adapter, AdapterSlot, Pair
from c2l_lsp.repo.coalesce import Coalescer
from c2l_lsp.repo.files import FileFilter
from c2l_lsp.repo.gitdir import git_busy
from c2l_lsp.repo.watch import Watcher

RECONCILE_S = 300.0
"""A full comparison with the disk happens at least this often, whatever the watcher says."""

KEEP_AGAIN_S = 60.0
"""After a state could not be kept, it is tried again no sooner."""

RETRY_S = 30.0
"""After a fault of the device the folder is looked at again."""

NORM_LIMIT = 100.0
_GIT_PAUSE_S = 0.5
_TOLD_PATHS = 8
"""Files that a new generation names, of those that changed."""
_GATE_SHARE = 0.05  # an update of less of the state than this keeps the strength the gate found last

Emit = Callable[[wire.Progress | wire.AdapterChanged | wire.Trouble], None]
Work = Generator[None, None, None]


@dataclass(frozen=True)
class Live:
    """What a completion runs under: swapped as one reference. `kv_key` names what the KV depends on besides ids."""

    generation: int
    adapter: Adapter | None
    kv_key: str = ""


BARE = Live(0, None)
OPEN = Verdict(1.0, 0.0, 0)


class FolderLife:
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
        self.live = BARE
        self.enabled = settings.adapter.enable
        self.state_name = "opening"
        self.message = ""
        self.ready: Ready | None = None
        self._model, self._store, self._emit = model, store, emit
        self._learner: Learner | None = None
        self._watcher: Watcher | None = None
        self._hints = Coalescer(settings.adapter.update_delay_ms / 1e3, settings.adapter.max_delay_ms / 1e3)
        self._work: Work | None = None
        self._next_reconcile = 0.0
        self._trigger = "index"
        self._adapter: Adapter | None = None
        self._trial, self._verdict, self._since_gate = Trial(model, slot), OPEN, 0
        self._slot = slot
        self.rest_until = 0.0
        self._deepening: Deepening | None = None
        self._deep_work: Work | None = None
        self._deep = Outcome()
        self._generation, self._updated_at = 0, 0.0
        self._keep, self._keep_again = trusted, 0.0
        self._shown_filter: FileFilter | None = None
        self._hopeless = False
        self._told: set[str] = set()

    # --- life --------------------------------------------------------------------------------------------------------

    @property
    def learns(self) -> bool:
        """Whether this folder has an adapter at all."""
        return self.trusted and self.settings.adapter.enable and self.settings.adapter.hypernetwork != "none"

    @property
    def _recalled(self) -> float:
        """The strength of what is recalled: 0 without anything to recall."""
        return self._verdict.recall if self._adapter is not None and self._adapter.recall is not None else 0.0

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
        try:
            if not self._store.own():
                self._cannot_keep(
                    InUse(f"Another server keeps what is learned of {self.folder.name}; this one does not.")
                )
        except StorageError as error:
            self._cannot_keep(error)
        try:
            self._restore()
        except C2LError as error:
            self._tell(error)
        assert self._learner is not None  # noqa: S101 - just made
        self._watcher = Watcher(self.folder, self._learner.filter, self._hints.add, on_trouble=self._tell)
        self._watch()
        self.state_name = "indexing" if self._learner.state is None else "ready"
        self._next_reconcile = time.monotonic()

    def stop(self) -> None:
        """End watching and training, and let go of files."""
        self.cancel_deep()
        if self._watcher is not None:
            self._watcher.stop()
        self._store.close()

    def buffer(self, path: str, text: str | None) -> None:
        """An open document's text (None: closed); counts instead of the file if the settings say so."""
        if self._learner is not None and self.settings.adapter.include_unsaved and self._learner.buffer(path, text):
            self._hints.add(frozenset([path]))

    def texts(self) -> dict[str, bytes]:
        """The files that were learned, by path with a digest of their text; see `text`."""
        records = self._learner.records if self._learner is not None else {}
        return {path: record.entry.digest for path, record in records.items()}

    def text(self, path: str) -> str:
        """The text of a learned file as it counts now, an unsaved buffer's included."""
        return self._learner.text(path) if self._learner is not None else ""

    def permits(self, path: str) -> bool:
        """Whether a file may be seen at all; what the rules leave out is in no prompt either. Fails closed."""
        if self._watcher is not None:
            return self._watcher.filter.permits(path)
        try:
            self._shown_filter = self._shown_filter or FileFilter(self.folder, self.settings.files)
        except C2LError:
            return not self.folder.is_dir()  # a folder that is not there hides nothing
        return self._shown_filter.permits(path)

    def distrust(self) -> None:
        """The adapter that is live made the model compute no numbers: go on without it until the next one."""
        self._adapter, self._deep = None, Outcome()
        self._go_live()
        self.message = "The adapter is kept back: with it the model computed no numbers."
        self._tell(EngineError(f"{self.folder.name}: {self.message}"))

    @property
    def buffers(self) -> dict[str, str]:
        """The unsaved texts that count instead of files."""
        return self._learner.overlay if self._learner is not None else {}

    def regenerate(self) -> None:
        """Compare everything with the disk now."""
        self._trigger, self._next_reconcile = "regenerate", time.monotonic()

    def reset(self) -> None:
        """Forget what was learned, on disk too, and learn it again."""
        self.cancel_deep()
        self._deep = Outcome()
        try:
            self._store.clear()
        except StorageError as error:
            self._tell(error)
        if self._learner is not None:
            self._begin_learning()
            self._adapter, self._verdict, self.ready, self._work = None, OPEN, None, None
            self._go_live()
        self._trigger, self._next_reconcile = "reset", time.monotonic()

    def deepen(self, steps: int = 0) -> None:
        """Train a LoRA of the folder by gradient descent behind everything else. AdapterError if it cannot begin."""
        if self._learner is None or self._learner.state is None:
            raise AdapterError(f"Nothing is learned of {self.folder.name} yet; a deep adapter needs that first.")
        self.cancel_deep()
        self._deepening = Deepening(self._model, self._slot, self._learner, self._verdict, NORM_LIMIT, steps)
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
            chunks=learner.pieces if learner else 0,
            pending_files=self._hints.pending + (self.ready.plan.changed_files if self.ready else 0),
            norm=self._adapter.norm if self._adapter else 0.0,
            scale=max(self._verdict.strength, self._recalled) * self.settings.adapter.scale,
            recalled=len(self._adapter.recall.keys) if self._adapter and self._adapter.recall else 0,
            updated_at=self._updated_at,
            state=self.state_name,
            message=self.message,
            rank=self._adapter.rank if self._adapter else 0,
            learned_bytes=sum(record.entry.size for record in records.values()),
            sampled=learner.sample.partial if learner else False,
            deep=self._deepening.note if self._deepening else self._deep.note,
        )

    # --- the scheduler's side ----------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether something was hinted or begun that is not live yet."""
        begun = self._work is not None or self.ready is not None or self._deep_work is not None
        return begun or self._hints.due() is not None

    def due_in(self, now: float) -> float | None:
        """Seconds until there is work; 0 or less: now; None: nothing is planned."""
        if self._learner is None or self._hopeless:
            return None
        if self._work is not None or self.ready is not None:
            return 0.0
        trained = max(0.0, self.rest_until - now) if self._deep_work is not None else float("inf")
        return min(self._planned_in(now), trained)

    def _planned_in(self, now: float) -> float:
        """Seconds until the folder is looked at."""
        hinted = self._hints.due()
        return min(self._next_reconcile - now, hinted if hinted is not None else float("inf"))

    def step(self, now: float) -> None:
        """One slice of work, about `fold.SLICE_S` long. A fault of the folder becomes a trouble, never more."""
        if self._work is None and self._deep_work is not None and self._planned_in(now) > 0:
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
        except C2LError as error:
            self._work = None
            self._failed(error)
        except (RuntimeError, MemoryError) as error:  # torch's own: out of memory, a device error
            self.not_folded(error)

    def not_folded(self, error: Exception) -> None:
        """The device failed at the folder's work: the last adapter stays, and the folder is looked at again.

        The error goes on if the device is lost: only a new process helps then.
        """
        self._work = self.ready = None
        if device.lost(error):
            raise error
        first = (str(error) or type(error).__name__).splitlines()[0]
        self._failed(EngineError(f"{self.folder.name} could not be learned just now ({first}); it is tried again."))
        self._next_reconcile = min(self._next_reconcile, time.monotonic() + RETRY_S)

    def _deep_slice(self, work: Work) -> None:
        try:
            next(work)
        except StopIteration:
            self._deepening = self._deep_work = None
        except (C2LError, RuntimeError, MemoryError) as error:
            self._deepening = self._deep_work = None
            if device.lost(error):
                raise
            self._deep = replace(self._deep, note=f"failed: {(str(error) or type(error).__name__).splitlines()[0]}")
            self._tell(error if isinstance(error, C2LError) else EngineError(f"{self.folder.name}: {self._deep.note}."))

    def _deepen(self, deepening: Deepening) -> Work:
        self._deep = yield from deepening.run(
            lambda done, total, finished: self._progress(wire.DEEP, done, total, "steps", finished)
        )
        self._generation += 1
        self._updated_at = time.time()
        self._go_live()
        self._emit(wire.AdapterChanged(info=self.info(), trigger=wire.DEEP, changed_files=0, ms={}))
        if self._learner is not None and self._learner.state is not None:
            self._save(self._learner, self._learner.state)

    def update_input(self) -> tuple[RepoState, Ready]:
        """The state and the change that wait for the batched update."""
        assert self._learner is not None  # noqa: S101 - only asked when ready
        assert self._learner.network is not None  # noqa: S101
        assert self.ready is not None  # noqa: S101
        begun = self.ready.replayed.start if self.ready.replayed is not None else None
        return begun or self._learner.state or self._learner.network.empty(), self.ready

    def update(self, states: list[RepoState], changes: list[Ready]) -> list[RepoState]:
        """Run the batched update with this folder's hypernetwork (that of all folders in the batch)."""
        assert self._learner is not None  # noqa: S101
        assert self._learner.network is not None  # noqa: S101
        return self._learner.network.update(states, [ready.change for ready in changes])

    def folded(self, state: RepoState, update_ms: float) -> None:
        """The batched update is done: make the adapter, pass the gate, go live, keep it."""
        assert self.ready is not None  # noqa: S101
        assert self._learner is not None  # noqa: S101
        ready, self.ready = self.ready, None
        ready.ms["update"] = update_ms
        self._learner.fold(ready, state)
        if ready.replayed is not None:  # the state stands for HEAD: what differs on disk is the next change
            self._next_reconcile = time.monotonic()
        self._work = self._finish(ready, self._learner, state)

    def _begin(self, now: float) -> Work:
        """The next piece of work: everything if that is due, else what was hinted."""
        assert self._learner is not None  # noqa: S101
        due = self._hints.due()
        hints = self._hints.take() if due is not None and due <= 0 else frozenset()
        everything = hints is None or now >= self._next_reconcile
        trigger, self._trigger = self._trigger, "diff"
        if git_busy(self.folder) and self._learner.state is not None:  # look again when git is done
            self._hints.add(hints)
            self._next_reconcile = max(self._next_reconcile, now + _GIT_PAUSE_S)
            return
        if everything:
            self._next_reconcile = now + RECONCILE_S
            self._watch()
        self.state_name = "indexing" if self._learner.state is None else "updating"
        self.ready = yield from self._learner.reconcile(None if everything else hints, trigger)
        if self.ready is None:
            self._settle()
            if not self._keep and self._learner.state is not None:
                self._save(self._learner, self._learner.state)

    def _finish(self, ready: Ready, learner: Learner, state: RepoState) -> Work:
        assert learner.network is not None  # noqa: S101
        started = time.perf_counter()
        adapter = learner.network.adapter(state)
        made = time.perf_counter()
        yield
        self._since_gate += sum(ready.plan.added.values()) + sum(ready.plan.removed.values())
        if ready.plan.first or self._since_gate > _GATE_SHARE * learner.pieces:
            yield from self._judge(learner)
            self._since_gate = 0
        reason = refuse(adapter, NORM_LIMIT) or self._verdict.closed
        self.message = f"The adapter is kept back: {reason}." if reason else ""
        moved = adapter.moved(self._adapter) if self._adapter is not None else 0.0
        self._adapter = None if reason else adapter
        self._generation += 1
        self._updated_at = time.time()
        self._go_live()
        self._settle()
        ready.ms |= {"adapter": (made - started) * 1e3, "gate": (time.perf_counter() - made) * 1e3}
        self._emit(
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

    def _judge(self, learner: Learner) -> Work:
        """Let the gate choose the strength on files held out of the state for this purpose."""
        assert learner.network is not None  # noqa: S101
        chosen = held_out(learner.records)
        rest = learner.without(chosen) if chosen else None
        if rest is None:
            self._verdict = OPEN
            return
        for path in chosen:
            self._trial.see(learner.records[path].entry.digest, learner.text(path))
            yield
        adapter = learner.network.adapter(rest)
        yield
        digests = [learner.records[path].entry.digest for path in chosen]
        self._verdict = yield from self._trial.judging(adapter, digests)
        if self._deep.pairs:  # the files have changed since it was trained: does it still win?
            plain = adapter.scaled(self._verdict.strength, self._verdict.recall)
            without = yield from self._trial.loss(plain, digests)
            deeper = yield from self._trial.loss(self._with_pairs(adapter, 1.0), digests)
            if not deeper < without:
                self._deep = Outcome(note=f"dropped: by now it is {deeper - without:+.3f} nat/token against without it")

    # --- small steps -------------------------------------------------------------------------------------------------

    def _begin_learning(self) -> None:
        store = self._store if self.trusted else None
        self._learner = Learner(
            self.folder, self.settings, self._model, store, self._progress, self._cannot_keep, self._tell
        )

    def _watch(self) -> None:
        """Begin to watch, again too if events stopped coming (the folder was moved away and is back)."""
        if self._watcher is not None and not self._watcher.alive:
            try:
                self._watcher.start()
            except C2LError as error:
                self._tell(error)

    def _go_live(self) -> None:
        scale = self.settings.adapter.scale
        matrices, recall = self._verdict.strength * scale, self._recalled * scale
        alive = self._adapter is not None and max(matrices, recall) > 0.0
        adapter = self._adapter.scaled(matrices, recall) if self._adapter is not None and alive else None
        if self._deep.pairs and scale > 0.0 and not self._hopeless:
            adapter = self._with_pairs(self._adapter, scale)
        if not self.enabled:
            self.live = BARE
        elif adapter is None:
            self.live = Live(self._generation, None)
        else:
            adapter.check(self._model)
            kv_key = f"{self.folder}#{self._generation}" if adapter.pairs else ""
            self.live = Live(self._generation, adapter, kv_key)

    def _with_pairs(self, adapter: Adapter | None, scale: float) -> Adapter:
        """The hypernetwork's adapter, as it made it, with the trained pairs: they stand on its final map and in place
        of its own pairs, and what it recalls gets the strength that was found beside them."""
        pairs = {name: Pair(pair.A, pair.B, pair.scale * scale) for name, pair in self._deep.pairs.items()}
        if adapter is None:
            return Adapter(self._model.digest, "sgd", pairs=pairs)
        return replace(adapter.scaled(self._verdict.strength * scale, self._deep.recall * scale), pairs=pairs)

    def _settle(self) -> None:
        self.state_name = "ready"
        self._told.clear()  # what goes wrong again is told again

    def _failed(self, error: C2LError) -> None:
        """Go on with the bare model (or the last adapter); the folder is looked at again unless that is no use."""
        self.state_name = "failed" if isinstance(error, FolderError | AdapterError) else "ready"
        self._hopeless = isinstance(error, AdapterError)
        self.message = str(error)
        if isinstance(error, NothingToLearn | FolderError):
            self._adapter = None
            self._go_live()
        self._tell(error)

    def _tell(self, error: C2LError) -> None:
        if str(error) not in self._told:
            self._told.add(str(error))
            severity = error.severity.value
            self._emit(wire.Trouble(folder=str(self.folder), code=error.code, severity=severity, message=str(error)))

    def _cannot_keep(self, error: StorageError) -> None:
        self._keep_again = time.monotonic() + KEEP_AGAIN_S
        if self._keep:  # told once, not at every try
            self._keep = False
            self._tell(error)

    def _kept_again(self, learner: Learner) -> None:
        self._keep = True
        learner.resume_keeping()
        said = f"What is learned of {self.folder.name} is kept again."
        info = Severity.INFO.value
        self._emit(wire.Trouble(folder=str(self.folder), code=StorageError.code, severity=info, message=said))

    def _progress(self, task: str, done: int, total: int, unit: str, finished: bool) -> None:
        folder = str(self.folder)
        self._emit(wire.Progress(folder=folder, task=task, done=done, total=total, unit=unit, finished=finished))

    # --- keeping -----------------------------------------------------------------------------------------------------

    def _save(self, learner: Learner, state: RepoState) -> None:
        if not self.trusted or learner.network is None or (not self._keep and time.monotonic() < self._keep_again):
            return
        saved = Saved(
            schema=SCHEMA,
            folder=str(self.folder),
            hypernetwork=learner.network.digest,
            filter_digest=learner.rules,
            generation=self._generation,
            gate=self._verdict.strength,
            gate_recall=self._verdict.recall,
            files=fold.to_rows(learner.records),
            seen=learner.seen,
            touched=learner.sample.touched,
            first=learner.sample.rows,
        )
        try:
            self._store.save(saved, state, learner.extra | deep.to_tensors(self._deep))
        except StorageError as error:
            self._cannot_keep(error)
            return
        if not self._keep:
            self._kept_again(learner)
        if learner.readings is not None and (learner.purge or self._generation % 16 == 0):
            learner.purge = False
            alive = {key for record in learner.records.values() for key in record.keys}
            learner.readings.prune(alive | learner.lasting)

    def _restore(self) -> None:
        assert self._learner is not None  # noqa: S101
        loaded = self._store.load()
        if loaded is None:
            return
        saved, state, extra = loaded
        self._generation = saved.generation
        extra, deeper = deep.split(extra)
        self._learner.extra = extra
        network = kinds.build(self.settings, self._model, extra)
        if network is None or network.digest != saved.hypernetwork:
            return  # another model or hypernetwork: built anew, the counter goes on
        self._learner.restore(network, state, saved)
        self._verdict = Verdict(saved.gate, 0.0, 0, recall=saved.gate_recall)
        if deeper.pairs:
            self._deep = deeper
        self._adapter = network.adapter(state)
        self._go_live()
        self._trigger = "diff"
        self._updated_at = time.time()
        self._emit(wire.AdapterChanged(info=self.info(), trigger="restore", changed_files=0, ms={}))
