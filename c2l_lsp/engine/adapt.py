"""One workspace folder's living adapter: from hints about files to a new generation that is live.

`FolderLife` owns the folder's records, state, adapter and generation counter. It never computes unasked: the scheduler
drives `work()` step by step, and folds the changes of all folders that are ready in one batched update.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from c2l_lsp.config import Settings
from c2l_lsp.engine import fold, kinds, wire
from c2l_lsp.engine.fold import Plan, Readings, Record
from c2l_lsp.engine.gate import Trial, Verdict, held_out, refuse
from c2l_lsp.engine.store import SCHEMA, FolderStore, Saved
from c2l_lsp.errors import AdapterError, C2LError, FolderError, NothingToLearn, StorageError
from c2l_lsp.model.base import BaseModel
from c2l_lsp.model.hypernet import Change, Hypernetwork, RepoState
from c2l_lsp.model.lora import Adapter
from c2l_lsp.model.memory import Memory, errors
from c2l_lsp.model.prior import Curvature, estimate, to_tensors
from c2l_lsp.repo.files import FileFilter
from c2l_lsp.repo.snapshot import Entry, Scan, Snapshot
from c2l_lsp.repo.watch import Coalescer, Watcher, git_busy

RECONCILE_S = 300.0
"""A full comparison with the disk happens at least this often, whatever the watcher says."""

NORM_LIMIT = 100.0
_PRIOR_TOKENS = 20000
_GATE_SHARE = 0.05  # an update of less of the state than this keeps the strength the gate found last
_GIT_WAIT_S = 30.0

Emit = Callable[[wire.Progress | wire.AdapterChanged | wire.Trouble], None]
Work = Generator[None, None, None]


@dataclass(frozen=True)
class Live:
    """What a completion runs under: swapped as one reference."""

    generation: int
    adapter: Adapter | None
    kv_key: str = ""


BARE = Live(0, None)


@dataclass
class Ready:
    """A change that waits for the batched update, and what belongs to it."""

    plan: Plan
    change: Change
    trigger: str
    ms: dict[str, float]


class FolderLife:
    """One folder. `emit` takes events for the server; `store` None means nothing is kept (untrusted folder)."""

    def __init__(
        self, folder: Path, settings: Settings, trusted: bool, model: BaseModel, store: FolderStore, emit: Emit
    ) -> None:
        self.folder, self.settings, self.trusted = folder, settings, trusted
        self.live = BARE
        self.enabled = settings.adapter.enable
        self.state_name = "opening"
        self.message = ""
        self.ready: Ready | None = None
        self.network: Hypernetwork | None = None
        self.state: RepoState | None = None
        self._model, self._store, self._emit = model, store, emit
        self._records: dict[str, Record] = {}
        self._snapshot: Snapshot = {}
        self._overlay: dict[str, str] = {}
        self._adapter: Adapter | None = None
        self._verdict = Verdict(1.0, 0.0, 0)
        self._since_gate = 0
        self._generation = 0
        self._updated_at = 0.0
        self._sampled = False
        self._keep = trusted
        self._extra: dict[str, Tensor] = {}
        self._trial = Trial(model)
        self._told: set[str] = set()
        self._next_reconcile = 0.0
        self._work: Work | None = None
        adapter = settings.adapter
        self._hints = Coalescer(adapter.update_delay_ms / 1e3, adapter.max_delay_ms / 1e3)
        self._filter = FileFilter(folder, settings.files)
        self._readings: Readings | None = None
        self._watcher: Watcher | None = None
        self._trigger = "index"
        self._rules = ""
        self._purge = False

    # --- what the engine asks ----------------------------------------------------------------------------------------

    @property
    def learns(self) -> bool:
        """Whether this folder has an adapter at all."""
        return self.trusted and self.settings.adapter.enable and self.settings.adapter.hypernetwork != "none"

    def start(self) -> None:
        """Restore what was learned, begin to watch, and plan the first comparison with the disk."""
        if not self.folder.is_dir():
            self._fail(FolderError(f"{self.folder} is not a folder that can be read; completions use the bare model."))
            return
        if not self.learns:
            self.state_name = "off"
            self.message = "The adapter is off." if self.trusted else "The folder is not trusted: nothing is learned."
            return
        try:
            self._restore()
        except C2LError as error:
            self._tell(error)
        try:
            self._watcher = Watcher(self.folder, self._filter, self._hints.add, on_trouble=self._tell)
            self._watcher.start()
        except C2LError as error:
            self._tell(error)
        self.state_name = "indexing" if self.network is None or self.state is None else "ready"
        self._next_reconcile = time.monotonic()

    def stop(self) -> None:
        """End watching and let go of files."""
        if self._watcher is not None:
            self._watcher.stop()
        self._store.close()

    @property
    def pending(self) -> bool:
        """Whether something was hinted or begun that is not live yet."""
        return self._work is not None or self.ready is not None or self._hints.due() is not None

    def due_in(self, now: float) -> float | None:
        """Seconds until there is work; 0 or less: now; None: nothing is planned."""
        if not self.learns or self.state_name == "failed":
            return None
        if self._work is not None or self.ready is not None:
            return 0.0
        hinted = self._hints.due()
        return min(self._next_reconcile - now, hinted if hinted is not None else float("inf"))

    def step(self, now: float) -> None:
        """One slice of work, at most about `fold.SLICE_S` long. Faults of the folder become a trouble, never more."""
        if self._work is None:
            self._work = self._begin(now)
        try:
            next(self._work)
        except StopIteration:
            self._work = None
        except C2LError as error:
            self._work = None
            self._fail(error)

    def buffer(self, path: str, text: str | None) -> None:
        """An open document's text (None: closed); counts instead of the file if the settings say so."""
        if not self.settings.adapter.include_unsaved or not self.learns:
            return
        if text is None:
            self._overlay.pop(path, None)
        elif self._filter.admits(path):
            self._overlay[path] = text
        else:
            return
        self._hints.add(frozenset([path]))

    def regenerate(self) -> None:
        """Compare everything with the disk now."""
        self._trigger = "regenerate"
        self._next_reconcile = time.monotonic()

    def reset(self) -> None:
        """Forget what was learned and learn it again."""
        self._drop_state()
        self._store.clear()
        self._readings = None
        self._trigger = "reset"
        self._next_reconcile = time.monotonic()

    def set_enabled(self, enabled: bool) -> None:
        """Use the adapter or not; the state goes on following the folder either way."""
        self.enabled = enabled
        self._go_live()

    def info(self) -> wire.AdapterInfo:
        """The adapter as it stands."""
        return wire.AdapterInfo(
            folder=str(self.folder),
            generation=self._generation,
            kind=self.network.kind if self.network else self.settings.adapter.hypernetwork,
            enabled=self.enabled and self.learns,
            files=len(self._records),
            chunks=sum(len(record.keys) for record in self._records.values()),
            pending_files=self._hints.pending + (self.ready.plan.changed_files if self.ready else 0),
            norm=self._adapter.norm if self._adapter else 0.0,
            scale=self._verdict.strength * self.settings.adapter.scale,
            updated_at=self._updated_at,
            state=self.state_name,
            message=self.message,
            rank=_rank(self._adapter),
            learned_bytes=sum(record.entry.size for record in self._records.values()),
            sampled=self._sampled,
        )

    # --- work, in slices ---------------------------------------------------------------------------------------------

    def _begin(self, now: float) -> Work:
        hints = self._hints.take() if self._hints.due() is not None else frozenset()
        everything = hints is None or now >= self._next_reconcile
        trigger, self._trigger = self._trigger, "diff"
        if everything:
            self._next_reconcile = now + RECONCILE_S
        return self._reconcile(None if everything else hints, trigger)

    def _reconcile(self, paths: frozenset[str] | None, trigger: str) -> Work:
        started = time.perf_counter()
        waited = time.monotonic() + _GIT_WAIT_S
        while git_busy(self.folder) and time.monotonic() < waited:
            self._hints.add(paths)  # look again when git is done
            return
        if self.state is None:
            self._progress("scan", 0, 0, "files")
        if paths is None:
            self._filter = FileFilter(self.folder, self.settings.files)
        scan = Scan(self._filter, self._snapshot, only=paths)
        while not scan.step(fold.SLICE_S):
            yield
        self._snapshot = scan.snapshot
        if paths is None:
            self._obey_rules()
        scanned = time.perf_counter()
        snapshot = self._with_overlay()
        if not snapshot:
            self._nothing_to_learn()
            return
        if self.network is None:
            yield from self._prepare(snapshot)
        assert self.network is not None  # noqa: S101 - _prepare makes it or raises
        budget = self.settings.adapter.max_index_kb * 1024
        planned = yield from fold.plan(self._filter, self._records, snapshot, self._overlay, self.network, budget)
        self._sampled = len(fold.select(snapshot, budget)) < len(snapshot)
        if self.state is None:
            planned.first = True
        if planned.empty and self.state is not None:
            self._records = planned.records
            self._settle()
            return
        yield from self._read_and_ready(planned, trigger, started, scanned)

    def _read_and_ready(self, planned: Plan, trigger: str, started: float, scanned: float) -> Work:
        assert self.network is not None  # noqa: S101
        first = self.state is None
        self.state_name = "indexing" if first else "updating"
        if self._readings is None:
            store = self._store if self._keep else None
            self._readings = Readings(store, self.network, self._storage_trouble)
        found = self._readings.get([*planned.added, *planned.removed])
        missing = [piece for key, piece in planned.unread.items() if key in planned.added and key not in found]
        task = "index" if first else "update"
        yield from self._readings.make(missing, lambda done, total: self._progress(task, done, total, "chunks"))
        found |= self._readings.get([piece.key for piece in missing])
        if first or len(missing) > 0:
            self._progress(task, len(missing), len(missing), "chunks", finished=True)
        read = time.perf_counter()
        change = fold.to_change(planned, found)
        if change is None:  # a reading that must be subtracted is lost: start over from the files
            self._drop_state()
            self._next_reconcile = time.monotonic()
            return
        ms = {"scan": (scanned - started) * 1e3, "read": (read - scanned) * 1e3}
        self.ready = Ready(planned, change, trigger, ms)

    def folded(self, state: RepoState, update_ms: float) -> None:
        """The batched update is done: make the adapter, pass the gate, go live, keep it."""
        assert self.ready is not None  # noqa: S101
        ready, self.ready = self.ready, None
        ready.ms["update"] = update_ms
        self.state, self._records = state, ready.plan.records
        self._work = self._finish(ready)

    def _finish(self, ready: Ready) -> Work:
        assert self.network is not None  # noqa: S101
        assert self.state is not None  # noqa: S101
        started = time.perf_counter()
        adapter = self.network.adapter(self.state)
        made = time.perf_counter()
        yield
        moved = sum(ready.plan.added.values()) + sum(ready.plan.removed.values())
        self._since_gate += moved
        pieces = sum(len(record.keys) for record in self._records.values())
        if ready.plan.first or self._since_gate > _GATE_SHARE * pieces:
            yield from self._judge()
            self._since_gate = 0
        judged = time.perf_counter()
        reason = refuse(adapter, NORM_LIMIT) or self._verdict.reason
        self.message = f"The adapter is kept back: {reason}." if reason else ""
        self._adapter = None if reason else adapter
        self._generation += 1
        self._updated_at = time.time()
        self._go_live()
        ready.ms |= {"adapter": (made - started) * 1e3, "gate": (judged - made) * 1e3}
        self._settle()
        self._emit(
            wire.AdapterChanged(
                info=self.info(), trigger=ready.trigger, changed_files=ready.plan.changed_files, ms=ready.ms
            )
        )
        yield
        self._save()

    def _judge(self) -> Work:
        """Let the gate choose the strength on files held out of the state for this purpose."""
        assert self.network is not None  # noqa: S101
        assert self.state is not None  # noqa: S101
        assert self._readings is not None  # noqa: S101
        chosen = held_out(self._records)
        keys = [key for path in chosen for key in self._records[path].keys]
        found = self._readings.get(keys)
        if not chosen or any(key not in found for key in keys):
            self._verdict = Verdict(1.0, 0.0, 0)
            return
        for path in chosen:
            self._trial.see(self._records[path].entry.digest, self._text(path))
            yield
        change = Change(removed=[found[key] for key in keys], first=True)
        (rest,) = self.network.update([self.state], [change])
        adapter = self.network.adapter(rest)
        yield
        self._verdict = self._trial.judge(adapter, [self._records[path].entry.digest for path in chosen])

    def _text(self, path: str) -> str:
        if path in self._overlay:
            return self._overlay[path]
        read = self._filter.read(path)
        return read.text if read else ""

    def _prepare(self, snapshot: Snapshot) -> Work:
        """Build the hypernetwork; for a base without a shipped prior, estimate one from this folder's own text."""
        self.network = kinds.build(self.settings.adapter.hypernetwork, self._model, self._extra)
        if self.network is not None:
            return
        seen = Curvature.zeros(self._model.d)
        for path in sorted(snapshot, key=lambda p: (snapshot[p].digest, p)):
            read = self._filter.read(path)
            if read is None or not read.text.strip():
                continue
            found = errors(self._model, [read.text[:6000]])
            seen.add(found.e, found.h)
            self._progress("prior", min(seen.n, _PRIOR_TOKENS), _PRIOR_TOKENS, "tokens")
            yield
            if seen.n >= _PRIOR_TOKENS:
                break
        self._progress("prior", _PRIOR_TOKENS, _PRIOR_TOKENS, "tokens", finished=True)
        if seen.n == 0:
            raise NothingToLearn(f"{self.folder} has no text to learn from; completions use the bare model.")
        prior = estimate(seen)
        self._extra = to_tensors(prior)
        self.network = Memory(self._model, prior)

    # --- the snapshot ------------------------------------------------------------------------------------------------

    def _obey_rules(self) -> None:
        """Other rules than what the state was made under: build it anew, so that nothing now excluded stays in it."""
        digest = self._filter.digest
        if self._rules and digest != self._rules and self.state is not None:
            self._drop_state()
            self._purge = True
        self._rules = digest

    def _with_overlay(self) -> Snapshot:
        snapshot = dict(self._snapshot)
        for path, text in self._overlay.items():
            screened = self._filter.screen(path, text)
            if screened is None:
                snapshot.pop(path, None)
            else:
                snapshot[path] = Entry(screened.digest, screened.size, 0)
        return snapshot

    # --- life --------------------------------------------------------------------------------------------------------

    def _go_live(self) -> None:
        factor = self._verdict.strength * self.settings.adapter.scale
        if not self.enabled or self._adapter is None or factor == 0.0:
            self.live = BARE if not self.enabled else Live(self._generation, None)
            return
        adapter = self._adapter.scaled(factor)
        adapter.check(self._model)
        kv_key = f"{self.folder}#{self._generation}" if adapter.pairs else ""
        self.live = Live(self._generation, adapter, kv_key)

    def _settle(self) -> None:
        self.state_name = "ready"
        self._told.clear()

    def _nothing_to_learn(self) -> None:
        self._drop_state()
        self.state_name = "ready"
        languages = ", ".join(self.settings.files.languages)
        error = NothingToLearn(
            f"{self.folder.name} has no readable {languages} file yet; completions use the bare model."
        )
        self.message = str(error)
        self._tell(error)

    def _drop_state(self) -> None:
        self.state, self._adapter, self._records, self._verdict = None, None, {}, Verdict(1.0, 0.0, 0)
        self._go_live()

    def _fail(self, error: C2LError) -> None:
        self.state_name = "failed" if isinstance(error, FolderError | AdapterError) else "ready"
        self.message = str(error)
        self._tell(error)

    def _tell(self, error: C2LError) -> None:
        if str(error) not in self._told:
            self._told.add(str(error))
            self._emit(
                wire.Trouble(
                    folder=str(self.folder), code=error.code, severity=error.severity.value, message=str(error)
                )
            )

    def _storage_trouble(self, error: StorageError) -> None:
        self._keep = False
        self._tell(error)

    def _progress(self, task: str, done: int, total: int, unit: str, finished: bool = False) -> None:
        self._emit(
            wire.Progress(folder=str(self.folder), task=task, done=done, total=total, unit=unit, finished=finished)
        )

    # --- keeping -----------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        if not self._keep or self.network is None or self.state is None:
            return
        saved = Saved(
            schema=SCHEMA,
            folder=str(self.folder),
            hypernetwork=self.network.digest,
            filter_digest=self._rules,
            generation=self._generation,
            gate=self._verdict.strength,
            files=fold.to_rows(self._records),
        )
        try:
            self._store.save(saved, self.state, self._extra)
            if self._readings is not None and (self._purge or self._generation % 16 == 1):
                self._purge = False
                self._readings.prune({key for record in self._records.values() for key in record.keys})
        except StorageError as error:
            self._storage_trouble(error)

    def _restore(self) -> None:
        loaded = self._store.load()
        if loaded is None:
            return
        saved, state, extra = loaded
        self._generation = saved.generation
        network = kinds.build(self.settings.adapter.hypernetwork, self._model, extra)
        if network is None or network.digest != saved.hypernetwork:
            return  # another model or hypernetwork: built anew, the counter goes on
        self._rules = saved.filter_digest
        self.network, self.state, self._extra = network, state, extra
        self._records = fold.from_rows(saved.files)
        self._snapshot = {path: record.entry for path, record in self._records.items()}
        self._verdict = Verdict(saved.gate, 0.0, 0)
        self._adapter = network.adapter(state)
        self._go_live()
        self._trigger = "diff"
        self._emit(wire.AdapterChanged(info=self.info(), trigger="restore", changed_files=0, ms={}))


def _rank(adapter: Adapter | None) -> int:
    if adapter is None:
        return 0
    if adapter.final_map is not None:
        return int(adapter.final_map.shape[0])
    return max((int(pair.A.shape[0]) for pair in adapter.pairs.values()), default=0)
