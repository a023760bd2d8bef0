"""The adapter of one workspace folder, generation by generation.

The loop is one function, `WorkspaceAdapter._generate`, in eight stages:

    reconcile → index → embed → update → generate → validate → publish → persist

`index` needs no forward pass. If it changed much, its result is published before anything is embedded.
It is a generator that never runs by itself: the scheduler calls `step()`, one slice at a time. At the stage `update` it
yields a `PendingUpdate`; the scheduler updates the states of all waiting folders in one batched call and passes the new
state to `resume()`. A folder that must not or cannot adapt is an `InactiveWorkspace`, see `engine.workspaces`.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from c2l_lsp.config import Settings
from c2l_lsp.cooperative import Slices, drain
from c2l_lsp.engine import device, wire
from c2l_lsp.engine.adaptation import finetune, registry, update_plan
from c2l_lsp.engine.adaptation.adapter_state import NORM_LIMIT, UNADAPTED, AdapterState
from c2l_lsp.engine.adaptation.finetune import FinetuneJob, FinetuneResult
from c2l_lsp.engine.adaptation.learner import Callbacks, Learner
from c2l_lsp.engine.adaptation.persistence import Persistence
from c2l_lsp.engine.adaptation.reconcile_scheduler import ReconcileRequest, ReconcileScheduler
from c2l_lsp.engine.adaptation.update_plan import PendingUpdate
from c2l_lsp.engine.adaptation.validation import ValidationResult
from c2l_lsp.engine.events import Emit, FolderEvents
from c2l_lsp.engine.indexing.token_indexer import without_index
from c2l_lsp.engine.storage.decoding import SCHEMA, SavedState
from c2l_lsp.engine.storage.store import FolderStore
from c2l_lsp.errors import AdapterError, C2LError, EngineError, FolderError, NothingToLearn, StateError, StorageError
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.adapter.token_index import TokenIndex
from c2l_lsp.model.hypernet.protocol import Hypernetwork, RepoState, StateChange
from c2l_lsp.model.lm.base import BaseModel

RETRY_S = 30.0
"""Pause in seconds before a folder is reconciled again after a failure of the device."""

_WRITE_POLL_S = 0.02  # while a write is in progress, its end is looked for this often

_CHUNKS_PUBLISHED_FIRST = 16
"""Chunks that come and go: with more, their token index goes live before they are embedded."""

_CHUNKS_LOADED_AT_ONCE = 256
"""Restored chunks: the neural keys of more are read after the adapter is live without them."""

_GIT_TASK = "waiting for git"
_REJECTED = "The adapter is not used: {}."
_PATHS_REPORTED = 8
"""The number of changed files that the event of a new generation names."""

Stages = Generator[PendingUpdate | None, RepoState, None]
"""The stages of a generation: yields None after a slice, or an update to apply; the new state is sent back."""


@dataclass(frozen=True)
class Environment:
    """What the engine gives to every folder: the base model, the slot adapters are plugged into, and the event sink."""

    model: BaseModel
    slot: AdapterSlot
    emit: Emit


class WorkspaceAdapter:
    """A folder that adapts. It owns the generation counter, the live adapter and the stages in progress."""

    def __init__(self, folder: Path, settings: Settings, store: FolderStore, environment: Environment) -> None:
        """Raises C2LError if the ignore rules of the folder cannot be read."""
        self.folder, self.settings = folder, settings
        self.live = UNADAPTED
        self.enabled = settings.adapter.enable
        self.message = ""
        self.pending_update: PendingUpdate | None = None
        self.adapters = AdapterState(environment.model, environment.slot, settings.adapter.scale)
        self._state = "opening"
        self._rejection, self._interrupted, self._surveyed = "", False, False
        self._environment = environment
        self._events = FolderEvents(folder, environment.emit)
        self._persistence = Persistence(folder.name, store, self._events)
        self._reconciling = ReconcileScheduler(folder, settings, self._events.warn_once)
        self._learner = self._new_learner()
        self._stages: Stages | None = None
        self._unpublished: PendingUpdate | None = None  # applied to the state, and no adapter generated from it yet
        self._live_tokens: TokenIndex | None = None
        self._trigger = "index"
        self._generation, self._updated_at = 0, 0.0
        self._finetuning: FinetuneJob | None = None
        self._finetune_stages: Slices[None] | None = None
        self._finetuning_paused_until = 0.0
        self._extra_saved: tuple[object, object] = (None, None)  # prior and pairs that were saved last
        self._unusable = False  # no hypernetwork fits the model: nothing is tried again

    # --- opening and closing -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Restore the saved state, start watching, and schedule the first comparison with the disk.

        Whatever is wrong with the saved state is reported, and the folder is watched and learned from its files.
        """
        try:
            self._persistence.open()
            self._restore()
        except C2LError as error:
            self._events.warn_once(error)
        except Exception as unforeseen:  # of a foreign state: it is set aside
            self._events.warn_once(self._persistence.store.reject(StateError(device.describe(unforeseen))))
            self._learner = self._new_learner()
            self.adapters.reset()
        self._reconciling.start(self._learner.filter)
        self._state = "indexing" if self._learner.state is None else "ready"

    def stop(self) -> None:
        """End watching and finetuning, and release the state directory."""
        self.cancel_finetuning()
        self._drop_stages()
        self._reconciling.stop()
        self._persistence.close()

    # --- requests ----------------------------------------------------------------------------------------------------

    def set_buffer(self, path: str, text: str | None) -> None:
        """Let an open document's text (None: closed) count instead of its file, if the settings say so."""
        if self.settings.adapter.include_unsaved and self._learner.set_buffer(path, text):
            self._reconciling.hint(path)

    @property
    def buffers(self) -> dict[str, str]:
        """The texts of unsaved buffers that count instead of files."""
        return self._learner.buffers

    def text_digests(self) -> dict[str, bytes]:
        """Return the files that the state contains: path → digest of the text."""
        return {path: record.entry.digest for path, record in self._learner.records.items()}

    def text_in_slices(self, path: str) -> Slices[str]:
        """Return the redacted text of a file as it counts now, from its buffer or the disk."""
        return self._learner.text_in_slices(path)

    def permits(self, path: str) -> bool:
        """Whether the filter admits a file to a prompt."""
        return not (self._reconciling.filter or self._learner.filter).is_ignored(path)

    def regenerate(self) -> None:
        """Compare all files with the disk now."""
        self._trigger = "regenerate"
        self._reconciling.soon()

    def reset(self) -> None:
        """Discard the state, on disk too, and build it again. StorageError if some of it is still on disk."""
        self.cancel_finetuning()
        self.adapters.set_finetuned(FinetuneResult())
        failed: StorageError | None = None
        try:
            self._persistence.clear()
        except StorageError as error:
            failed = error
        self._learner = self._new_learner()
        self._drop_stages()
        self._unpublished = self._live_tokens = None
        self._extra_saved = (None, None)
        self.adapters.reset()
        self._make_live()
        self._trigger = "reset"
        self._reconciling.soon()
        if failed is not None:
            self._events.warn_once(failed)
            raise failed

    def set_enabled(self, enabled: bool) -> None:
        """Use the adapter or not. The state follows the folder in both cases."""
        self.enabled = enabled
        self._make_live()

    def withdraw_adapter(self) -> None:
        """Continue on the base model until the next generation: the model produced NaN with this adapter."""
        self.adapters.withdraw()
        self.adapters.set_finetuned(FinetuneResult())
        self._make_live()
        self.message = "The adapter is not used: the model produced NaN with it."
        self._events.warn_once(EngineError(f"{self.folder.name}: {self.message}"))

    def finetune(self, steps: int = 0) -> None:
        """Train LoRA pairs by gradient descent in the background. AdapterError if nothing is learned yet."""
        if self._learner.state is None:
            raise AdapterError(nothing_learned(self.folder))
        self.cancel_finetuning()
        model, slot = self._environment.model, self._environment.slot
        job = FinetuneJob(model, slot, self._learner, self.adapters.validation, NORM_LIMIT, steps)
        self._finetuning, self._finetune_stages = job, self._finetune(job)

    def cancel_finetuning(self) -> None:
        """Stop training. Pairs that are live already stay."""
        if self._finetuning is not None:
            self._finetuning.cancel()
            self._finetuning = self._finetune_stages = None

    def pause_finetuning(self, until: float) -> None:
        """Let training rest until `until` (time.monotonic): a completion was requested."""
        self._finetuning_paused_until = until

    def info(self) -> wire.AdapterInfo:
        """Return what the status shows of the folder."""
        learner, adapter = self._learner, self.adapters.adapter
        changed = self.pending_update.plan.changed_files if self.pending_update else 0
        return wire.AdapterInfo(
            folder=str(self.folder),
            generation=self._generation,
            kind=learner.network.kind if learner.network else self.settings.adapter.hypernetwork,
            enabled=self.enabled,
            files=max(len(learner.records), len(learner.tokens.files)),
            chunks=learner.chunk_count,
            pending_files=self._reconciling.hinted + changed,
            norm=adapter.norm if adapter else 0.0,
            scale=self.adapters.strength,
            recalled=len(adapter.knn) if adapter and adapter.knn else 0,
            keyed=len(adapter.knn.positions) if adapter and adapter.knn else 0,
            complete=learner.complete and learner.state is not None,
            updated_at=self._updated_at,
            state=self._state,
            message=self.message,
            rank=adapter.rank if adapter else 0,
            learned_bytes=sum(record.entry.size for record in learner.records.values()),
            sampled=learner.sample.partial or learner.deferred,
            deep=self._finetuning.note if self._finetuning else self.adapters.finetuned.note,
        )

    # --- the scheduler's side ----------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether a change is known, or work in progress, that is not live or saved yet."""
        in_progress = self._stages is not None or self._finetune_stages is not None or not self._learner.loaded
        return in_progress or self._persistence.busy or self._persistence.done or self._reconciling.hinted > 0

    def due_in(self, now: float) -> float | None:
        """Seconds until there is work; 0 or less: now; None: there never is."""
        if self._unusable:
            return None
        if self._stages is not None or self._persistence.done or not self._learner.loaded:
            return 0.0
        if not self._learner.complete:
            return self._reconciling.due_in(now) if self._reconciling.waits else 0.0
        if self._persistence.busy:
            return min(self._reconciling.due_in(now), _WRITE_POLL_S)
        paused = max(0.0, self._finetuning_paused_until - now) if self._finetune_stages is not None else float("inf")
        return min(self._reconciling.due_in(now), paused)

    def step(self, now: float) -> None:
        """Run one slice of whatever comes first: a finished write, a generation, or finetuning.

        A failure becomes a warning and leaves the last adapter live; only a lost device is raised.
        """
        if self._persistence.done:
            self._persistence.finish(self._learner)
        elif self._stages is None and self._finetune_stages is not None and self._reconciling.due_in(now) > 0:
            self._finetune_step(self._finetune_stages)
        else:
            self._stages = self._stages or self._generation_stages(now)
            self._advance(self._stages)

    def resume(self, state: RepoState, update_ms: float) -> None:
        """Continue the generation after the batched update with the new `state`."""
        update, self.pending_update = self.pending_update, None
        if update is not None and self._stages is not None:
            update.ms["update"] = update_ms
            self._advance(self._stages, state)

    def fail(self, error: Exception) -> None:
        """End the stages in progress: the last adapter stays live, and the folder is reconciled again later.

        Raises the error again if the device is lost: only a new process can help then.
        """
        self._drop_stages()
        self._learner.complete = True  # what is missing waits for the next comparison
        if device.is_lost(error):
            raise error
        singular = isinstance(error, torch.linalg.LinAlgError)  # type: ignore[attr-defined]
        if isinstance(error, StateError) or singular:  # it is built from the files again
            self._learner.discard_state()
            self._learner.distrust_cache(StateError(device.describe(error)))
        elif isinstance(error, C2LError):
            self._report_failure(error)
            return
        reason = device.describe(error)
        self._report_failure(EngineError(f"{self.folder.name} could not be learned ({reason}); it is tried again."))
        self._reconciling.soon(RETRY_S)

    def _advance(self, stages: Stages, state: RepoState | None = None) -> None:
        try:
            self.pending_update = next(stages) if state is None else stages.send(state)
        except StopIteration:
            if self._stages is stages:
                self._stages = None
        except Exception as error:  # nothing to learn, torch's own errors, and anything unforeseen
            self.fail(error)

    def _drop_stages(self) -> None:
        self._stages = self.pending_update = None

    # --- the loop ----------------------------------------------------------------------------------------------------

    def _generation_stages(self, now: float) -> Stages:
        """The next generation, if a comparison with the disk is due and git is not writing the working tree."""
        if not self._learner.loaded:
            yield from self._load_positions()
        if not self._surveyed:  # before watching starts, which registers all directories at once
            for _ in self._learner.survey():
                yield None
            self._surveyed, now = True, time.monotonic()
        request = self._due_request(now)
        if request is not None:
            yield from self._generate(request)

    def _generate(self, request: ReconcileRequest) -> Stages:
        """One generation, from changed files to a saved state. `yield None` ends a slice."""
        learner, (trigger, self._trigger) = self._learner, (self._trigger, "diff")
        self._state = "indexing" if learner.state is None else "updating"
        try:
            files = yield from learner.reconcile(request.paths)
            chunks = yield from learner.index(files)
            behind = (
                self._live_tokens is not None and not learner.complete
            )  # embedding takes long: an edit must not wait
            if chunks > (0 if behind else _CHUNKS_PUBLISHED_FIRST):
                yield from self._publish_tokens()
            update = yield from learner.embed(files, trigger, self._reconcile_is_due)
        except NothingToLearn:
            self._persistence.purge_all()
            raise
        if update is not None:
            updated = yield update  # the scheduler updates all waiting folders in one call
            self._commit(update, updated)
            yield None
        update, network, state = self._unpublished, learner.network, learner.state
        if update is None or network is None or state is None:
            if self._live_tokens is not learner.tokens.index:
                yield from self._publish_tokens()
            self._up_to_date()
            return
        started = time.perf_counter()
        adapter = learner.generate()
        generated = time.perf_counter()
        yield None
        distance = adapter.relative_change(self.adapters.adapter) if self.adapters.adapter is not None else 0.0
        rejection = yield from self.adapters.validate(adapter, update.plan, learner, self._reconcile_is_due)
        if rejection is None:  # the edit comes first; its generation contains this update
            return
        update.ms |= {"adapter": (generated - started) * 1e3, "gate": (time.perf_counter() - generated) * 1e3}
        self._publish(rejection, update, distance)
        yield None
        self._persist(network, state)
        rejection_now = yield from self.adapters.revalidate(adapter, learner, self._reconcile_is_due)
        if rejection_now is not None:
            self._publish_revalidated(rejection_now)
            self._persist(network, state)

    def _load_positions(self) -> Slices[None]:
        """Add the neural keys of a restored state to the live adapter. StateError if the state is damaged."""
        learner = self._learner
        try:
            yield from learner.load_positions()
        except StateError as error:
            learner.discard_state()
            self.adapters.reset()
            self._make_live()
            raise self._persistence.store.reject(error) from error
        if learner.network is not None and learner.state is not None and self.adapters.adapter is not None:
            self.adapters.set_adapter(learner.generate())
            self._make_live()

    def _due_request(self, now: float) -> ReconcileRequest | None:
        waited = self._reconciling.waits
        request = self._reconciling.next_request(now, first=self._learner.state is None)
        if self._reconciling.waits != waited:
            self._report_git(self._reconciling.waits)
        return request

    def _report_git(self, waits: bool) -> None:
        self.message = "git is at work in the folder; it is learned when git is done." if waits else ""
        self._events.progress(_GIT_TASK, 0, 0, "", not waits)

    def _reconcile_is_due(self) -> bool:
        return self._reconciling.due_in(time.monotonic()) <= 0

    def _commit(self, update: PendingUpdate, state: RepoState) -> None:
        """Take the updated state; an adapter is generated from it next, now or after a failure."""
        self._learner.commit(update, state)
        update.state, update.change = state, StateChange()  # the keys before it are not held any longer
        if update.history_key:  # the state stands for HEAD: the working tree is compared next
            self._reconciling.soon()
        self._unpublished = update

    def _publish(self, rejection: str, update: PendingUpdate, distance: float) -> None:
        """Make the accepted adapter (or, after a rejection, the base model) live as a new generation."""
        self._unpublished, self._live_tokens = None, self._learner.tokens.index
        self.message = self._rejection = _REJECTED.format(rejection) if rejection else ""
        self._interrupted = False
        self._count_generation()
        self._state = "ready"
        self._events.clear_warnings()  # the same problem is reported again from now on
        self._events.emit(
            wire.AdapterChanged(
                info=self.info(),
                trigger=update.trigger,
                changed_files=update.plan.changed_files,
                ms=update.ms,
                paths=update.plan.largest(_PATHS_REPORTED),
                moved=distance,
            )
        )

    def _publish_tokens(self) -> Slices[None]:
        """Make the token index live as a generation of its own, beside what is live already.

        The first one is validated right after: until then the mixture has the strength that suits most repositories.
        """
        learner, first = self._learner, self._live_tokens is None
        self._live_tokens = learner.tokens.index
        self.adapters.set_tokens(learner.tokens.index)
        self._count_generation()
        changed = learner.tokens.changed
        self._events.emit(
            wire.AdapterChanged(
                info=self.info(),
                trigger=wire.TOKENS,
                changed_files=len(changed),
                ms={},
                paths=changed[:_PATHS_REPORTED],
            )
        )
        yield None
        if first and learner.state is None:
            rejection = yield from self.adapters.validate_tokens(learner, self._reconcile_is_due)
            if rejection is not None:
                self._publish_revalidated(rejection)

    def _publish_revalidated(self, rejection: str) -> None:
        """Make the live adapter's new strengths live as a generation of their own."""
        self.message = self._rejection = _REJECTED.format(rejection) if rejection else ""
        self._count_generation()
        self._events.emit(wire.AdapterChanged(info=self.info(), trigger="gate", changed_files=0, ms={}))

    def _count_generation(self) -> None:
        self._generation += 1
        self._updated_at = time.time()
        self._make_live()

    def _make_live(self) -> None:
        """Swap what completions run under."""
        live = self.adapters.live(self._generation, str(self.folder), unusable=self._unusable)
        self.live = live if self.enabled else UNADAPTED

    def _up_to_date(self) -> None:
        """Nothing changed: the state is current. Save it if the disk lacks it."""
        self._state = "ready"
        self._events.clear_warnings()
        if self._interrupted:
            self._continue()
        network, state = self._learner.network, self._learner.state
        if self._persistence.outdated and network is not None and state is not None:
            self._persist(network, state)

    def _continue(self) -> None:
        """The folder was gone and is back as it was: use the adapter again, and take back the warning."""
        self._interrupted = False
        self.message = self._rejection
        self._make_live()
        self._events.emit(wire.AdapterChanged(info=self.info(), trigger="restore", changed_files=0, ms={}))

    def _report_failure(self, error: C2LError) -> None:
        """Continue with the last adapter, or with the base model if there is nothing to learn from."""
        self._state = "failed" if isinstance(error, FolderError | AdapterError) else "ready"
        self._unusable = isinstance(error, AdapterError)
        self.message = str(error)
        self._interrupted = isinstance(error, FolderError)
        if isinstance(error, FolderError):  # the folder may come back: the state and its adapter stay
            self.live = UNADAPTED
        elif isinstance(error, NothingToLearn):
            self.adapters.withdraw()
            self._make_live()
        self._events.warn_once(error)

    # --- finetuning --------------------------------------------------------------------------------------------------

    def _finetune(self, job: FinetuneJob) -> Slices[None]:
        """Train, publish the result as a generation, and save it."""
        result = yield from job.run(
            lambda done, total, finished: self._events.progress(wire.DEEP, done, total, "steps", finished)
        )
        self.adapters.set_finetuned(result)
        self._count_generation()
        self._events.emit(wire.AdapterChanged(info=self.info(), trigger=wire.DEEP, changed_files=0, ms={}))
        network, state = self._learner.network, self._learner.state
        if network is not None and state is not None:
            self._persist(network, state)

    def _finetune_step(self, stages: Slices[None]) -> None:
        try:
            next(stages)
        except StopIteration:
            self._finetuning = self._finetune_stages = None
        except Exception as error:
            self._finetuning = self._finetune_stages = None
            if device.is_lost(error):
                raise
            note = f"failed: {device.describe(error)}"
            self.adapters.set_finetuned(replace(self.adapters.finetuned, note=note))
            warning = error if isinstance(error, C2LError) else EngineError(f"{self.folder.name}: {note}.")
            self._events.warn_once(warning)

    # --- persistence -------------------------------------------------------------------------------------------------

    def _persist(self, network: Hypernetwork, state: RepoState) -> None:
        """Save the generation in the background, unless the disk refused a moment ago."""
        if not self._persistence.allowed:
            return
        learner = self._learner
        saved = SavedState(
            schema=SCHEMA,
            folder=str(self.folder),
            hypernetwork=network.digest,
            filter_digest=learner.rules,
            generation=self._generation,
            gate=self.adapters.validation.strength,
            gate_recall=self.adapters.validation.knn_strength,
            files=update_plan.to_rows(learner.records),
            seen=learner.snapshot_rows,
            touched=learner.sample.edited,
            first=learner.sample.first_chunks,
            indexed=learner.tokens.rows(),
            index_key=learner.tokens.key,
        )
        self._persistence.save(saved, state, self._changed_extra(), learner)

    def _changed_extra(self) -> dict[str, torch.Tensor] | None:
        """The tensors to save besides the state; None if those saved last are good enough."""
        learner, finetuned = self._learner, self.adapters.finetuned
        prior, pairs = self._extra_saved
        same = prior is learner.prior_tensors and pairs is finetuned and self._persistence.works
        if same and learner.tokens.saved_well_enough:
            return None
        self._extra_saved = (learner.prior_tensors, finetuned)
        return learner.prior_tensors | finetune.to_tensors(finetuned) | learner.tokens.to_tensors()

    def _restore(self) -> None:
        """Take up the saved generation, if its hypernetwork is still the one of the settings. StateError if damaged."""
        store = self._persistence.store
        loaded = store.load()
        if loaded is None:
            return
        saved, state, tensors = loaded
        self._generation = saved.generation  # the counter continues even if the state is not used
        self._learner.restore_rules(saved, {})
        try:
            prior, finetuned = finetune.split(without_index(tensors))
            network = self._saved_network(saved, prior)
        except AdapterError:  # there are no weights for the hypernetwork of the settings
            raise
        except Exception as error:
            raise store.reject(StateError(device.describe(error))) from error
        if network is None:
            return
        self._learner.restore_rules(saved, prior)
        if network.digest != saved.hypernetwork:
            return
        try:
            self._learner.tokens.restore(tensors, saved.indexed, saved.index_key)
            adapter = self._checked_adapter(network, state, finetuned)
        except Exception as error:
            self._learner.restore_rules(saved, {})
            self._learner.tokens.discard()
            raise store.reject(StateError(device.describe(error))) from error
        self._learner.restore_state(network, state, saved)
        self._live_tokens = self._learner.tokens.index
        validation = ValidationResult(saved.gate, 0.0, 0, knn_strength=saved.gate_recall)
        self.adapters.restore(adapter, validation, finetuned)
        if self._learner.chunk_count <= _CHUNKS_LOADED_AT_ONCE:
            drain(self._load_positions())
        self._make_live()
        self._trigger = "diff"
        self._updated_at = time.time()
        self._events.emit(wire.AdapterChanged(info=self.info(), trigger="restore", changed_files=0, ms={}))

    def _saved_network(self, saved: SavedState, prior: dict[str, torch.Tensor]) -> Hypernetwork | None:
        """The hypernetwork of the settings with the prior saved with a state; None if that is of another version.

        StateError if the prior is damaged.
        """
        model = self._environment.model
        network = registry.build(self.settings, model, prior)
        if network is None and saved.hypernetwork.startswith(registry.memory_digest(model)):
            raise StateError("the prior saved with it does not fit the model")
        return network

    def _checked_adapter(self, network: Hypernetwork, state: RepoState, finetuned: FinetuneResult) -> Adapter:
        """The adapter of a saved state. Raises if the state, the adapter or the pairs do not fit the model."""
        network.check(state)
        finetune.check(finetuned, self._environment.model)
        adapter = self._learner.with_tokens(network.generate(state))
        adapter.check(self._environment.model)
        return adapter

    def _rules_changed(self) -> None:
        """Discard everything made under other ignore rules: what is live at once, and what is saved."""
        if self._finetuning is not None or self.adapters.finetuned.pairs:
            self.adapters.set_finetuned(FinetuneResult(note="dropped: the ignore rules changed after it was trained"))
        self.cancel_finetuning()
        self.adapters.reset()
        self._unpublished = self._live_tokens = None
        self._extra_saved = (None, None)
        if self.live is not UNADAPTED:
            self._generation += 1  # so that drafts from the old generation's texts are indexed again
            self._make_live()
        self._persistence.purge()

    def _new_learner(self) -> Learner:
        events, persistence = self._events, self._persistence
        callbacks = Callbacks(events.progress, persistence.failed, events.warn_once, self._rules_changed)
        return Learner(self.folder, self.settings, self._environment.model, persistence.cache, callbacks)


def nothing_learned(folder: Path) -> str:
    """Return the message for a request that needs a state before there is one."""
    return f"Nothing is learned of {folder.name} yet; a finetuned adapter needs that first."
