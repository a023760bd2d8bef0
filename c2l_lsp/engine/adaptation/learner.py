"""From a folder's files to its state: scan, compare, read what is new, and say what has to be folded.

`Learner` owns what stands for the files (snapshot, unsaved buffers, records) and what was made of them (hypernetwork,
readings, state). Its work comes in slices. It knows nothing of adapters that are live, of watching or of events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path

from torch import Tensor

from c2l_lsp.config import Settings
from c2l_lsp.engine.adaptation import registry, update_plan
from c2l_lsp.engine.adaptation.history_replay import HistoryReplay
from c2l_lsp.engine.adaptation.pending_update import PendingUpdate
from c2l_lsp.engine.adaptation.sample import Sample
from c2l_lsp.engine.adaptation.update_plan import ChunkEmbeddings, FileRecord, UpdatePlan
from c2l_lsp.engine.storage.cache import Cache
from c2l_lsp.engine.storage.file_texts import FileTexts
from c2l_lsp.engine.storage.store import SavedState
from c2l_lsp.errors import C2LError, GitError, NothingToLearn, StorageError
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory
from c2l_lsp.model.hypernet.prior import to_tensors
from c2l_lsp.model.hypernet.protocol import ChunkEmbedding, Hypernetwork, RepoState, StateChange
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime.cooperative import Slices
from c2l_lsp.repo.filter.files import FileFilter
from c2l_lsp.repo.history.snapshot import Entry, Scan, Snapshot

Progress = Callable[[str, int, int, str, bool], None]
"""(task, done, total, unit, finished)"""


class Learner:
    """What one folder holds and what was learned from it."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        model: BaseModel,
        cache: Cache | None,
        on_progress: Progress,
        on_trouble: Callable[[StorageError], None],
        tell: Callable[[C2LError], None] = lambda error: None,
        on_purge: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_purge` is called when other rules hold than what was learned was made under: it may not be used again."""
        self.filter = FileFilter(folder, settings.files)
        self.network: Hypernetwork | None = None
        self.state: RepoState | None = None
        self.records: dict[str, FileRecord] = {}
        self.extra: dict[str, Tensor] = {}
        self.rules = ""
        self.purge = False
        """Whether something may be kept that was learned under other rules."""
        self.readings: ChunkEmbeddings | None = None
        self._folder, self._settings, self._model, self._cache = folder, settings, model, cache
        self._on_progress, self._on_trouble, self._tell = on_progress, on_trouble, tell
        self._on_purge = on_purge
        self.lasting: set[bytes] = set()
        self.sample = Sample()
        self._budget = settings.adapter.max_index_kb * 1024
        self._snapshot: Snapshot = {}
        self._overlay: dict[str, str] = {}
        self._texts = FileTexts(cache, on_trouble)

    # --- what counts as the folder's text --------------------------------------------------------------------------

    def buffer(self, path: str, text: str | None) -> bool:
        """An unsaved buffer (None: gone) stands in for its file; whether that can change anything."""
        if text is None:
            return self._overlay.pop(path, None) is not None
        if not self.filter.includes(path):
            return False
        changed = self._overlay.get(path) != text
        self._overlay[path] = text
        return changed

    def text(self, path: str) -> str:
        """The text of a path as it counts now; "" if it may not be read."""
        if path in self._overlay:
            return self._overlay[path]
        read = self.filter.read(path)
        return read.text if read else ""

    def _with_overlay(self) -> Snapshot:
        snapshot = dict(self._snapshot)
        for path, text in self._overlay.items():
            screened = self.filter.check_text(path, text)
            if screened is None:
                snapshot.pop(path, None)
            else:
                snapshot[path] = Entry(screened.digest, screened.size, 0)
        return snapshot

    # --- work --------------------------------------------------------------------------------------------------------

    def reconcile(self, paths: frozenset[str] | None, trigger: str) -> Generator[None, None, PendingUpdate | None]:
        """Compare the folder (or just `paths`) with what is folded; what to fold, or None if nothing changed.

        NothingToLearn when there is no readable file, FolderError when the folder is gone.
        """
        started = time.perf_counter()
        if self.state is None:
            self._on_progress("scan", 0, 0, "files", False)
        if paths is None:
            self.filter = FileFilter(self._folder, self._settings.files)
        on_read = (lambda path, file: self.sample.first_seen(path, file.text)) if self.state is None else None
        scan = Scan(self.filter, self._snapshot, hints=paths, on_read=on_read)
        while not scan.step(update_plan.SLICE_S):
            yield
        before, self._snapshot = self._snapshot, scan.snapshot
        if self.state is None:
            self._on_progress("scan", len(self._snapshot), len(self._snapshot), "files", True)
        if paths is None:
            self._obey_rules()
        scanned = time.perf_counter()
        snapshot = self._with_overlay()
        if self.state is not None:
            self.sample.touch(before, snapshot)
        if not snapshot:
            self.forget()
            languages = ", ".join(self._settings.files.languages)
            raise NothingToLearn(
                f"{self._folder.name} has no readable {languages} file yet; completions use the bare model."
            )
        if self.network is None:
            yield from self._prepare(snapshot)
        if self.state is None and (ready := (yield from self._replay(trigger))) is not None:
            return ready
        planned = yield from self._plan(snapshot)
        if planned.empty and self.state is not None:
            self.records = planned.records
            return None
        ready = yield from self._read(planned, trigger)
        if ready is not None:
            ready.ms = {"scan": (scanned - started) * 1e3, "read": (time.perf_counter() - scanned) * 1e3}
        return ready

    def _plan(self, snapshot: Snapshot) -> Generator[None, None, UpdatePlan]:
        assert self.network is not None  # noqa: S101 - _prepare makes it or raises
        chosen, anew = self.sample.choose(snapshot, self._budget)
        planned = yield from update_plan.plan(
            self.filter, self.records, snapshot, self._overlay, self.network, chosen, self.sample.narrow, anew
        )
        planned.first = self.state is None
        return planned

    def _replay(self, trigger: str) -> Generator[None, None, PendingUpdate | None]:
        """The folder's git history as a first change, if the hypernetwork reads diffs and there is one to read."""
        adapter = self._settings.adapter
        if self.network is None or not (self.network.reads_diffs and adapter.use_git_history):
            return None
        self.readings = self.readings or ChunkEmbeddings(self._cache, self.network, self._on_trouble)
        replay = HistoryReplay(
            self._folder, self.filter, self.network, self.readings, commits=adapter.history_commits, budget=self._budget
        )
        started = time.perf_counter()
        try:
            done = yield from replay.run(lambda n, of: self._on_progress("history", n, of, "commits", n == of))
        except GitError as error:  # the files as they are now are learned all the same
            self._tell(error)
            return None
        if done is None:
            return None
        self._texts.put(done.plan.new_texts, done.plan.digests)
        ms = {"history": (time.perf_counter() - started) * 1e3}
        return PendingUpdate(done.plan, done.change, trigger, ms, done)

    def _read(self, planned: UpdatePlan, trigger: str) -> Generator[None, None, PendingUpdate | None]:
        assert self.network is not None  # noqa: S101
        self.readings = self.readings or ChunkEmbeddings(self._cache, self.network, self._on_trouble)
        diffs = yield from self._read_diffs(planned)
        if diffs:
            return PendingUpdate(planned, StateChange(diffs=diffs), trigger, {})
        if self.network.reads_diffs and self.state is not None and "files" not in self.state.tensors:
            self.records = planned.records  # nothing that is read changed, and files are in the state no more
            return None
        found = yield from self.readings.fetch([*planned.added, *planned.removed])
        missing = [chunk for key, chunk in planned.unread.items() if key in planned.added and key not in found]
        task = "index" if planned.first else "update"
        yield from self.readings.make(
            missing, lambda done, total: self._on_progress(task, done, total, "chunks", False)
        )
        found |= yield from self.readings.fetch(chunk.key for chunk in missing)
        if planned.first or missing:
            self._on_progress(task, len(missing), len(missing), "chunks", True)
        change = update_plan.to_change(planned, found)
        if change is None:  # a reading that must be subtracted is lost: build the state anew from the files
            self.forget()
            return (yield from self.reconcile(None, trigger))
        return PendingUpdate(planned, change, trigger, {})

    def _read_diffs(self, planned: UpdatePlan) -> Slices[list[ChunkEmbedding]]:
        """Readings of this change's diffs, where the hypernetwork reads diffs; the new texts are kept for the next."""
        network = self.network
        if network is None or not network.reads_diffs:
            return []
        old_texts = self._texts.get(record.entry.digest for record in self.records.values())
        self._texts.put(planned.new_texts, planned.digests)
        text = "" if planned.first else update_plan.diff_text(planned, self.records, old_texts)
        return (yield from network.embed_in_slices(network.diff_chunks(text))) if text else []

    def _prepare(self, snapshot: Snapshot) -> Generator[None, None, None]:
        """Build the hypernetwork; for a base without a shipped prior, estimate one from this folder's own text."""
        self.network = registry.build(self._settings, self._model, self.extra)
        if self.network is not None:
            return
        texts = (self.text(path) for path in sorted(snapshot, key=lambda p: (snapshot[p].digest, p)))
        prior = yield from registry.own_prior(
            self._model, texts, lambda n, of: self._on_progress("prior", n, of, "tokens", n >= of)
        )
        if prior is None:
            raise NothingToLearn(f"{self._folder.name} has only empty files; completions use the bare model.")
        self.extra = to_tensors(prior)
        self.network = GradientMemory(self._model, prior)

    def _obey_rules(self) -> None:
        """Other rules than what was made before: build all of it anew, so that nothing now excluded stays in it."""
        digest = self.filter.digest
        if self.rules and digest != self.rules:
            self.forget()
            self.sample.only(self._snapshot)
            self.lasting = set()
            if (
                self.extra
            ):  # a prior estimated from this folder's own text: sums over it, and what is excluded is in them
                self.extra, self.network, self.readings = {}, None, None
            self.purge = True
            self._on_purge()
        self.rules = digest

    # --- the state ---------------------------------------------------------------------------------------------------

    def fold(self, ready: PendingUpdate, state: RepoState) -> None:
        """The update is done: this is the state, and these files are what it stands for."""
        self.state, self.records = state, ready.plan.records
        if ready.replayed is not None and self.readings is not None and "h" in state.tensors:
            self.lasting = {ready.replayed.key}
            self.readings.keep({ready.replayed.key: {"h": state.tensors["h"]}})

    def prune(self) -> bool:
        """Delete kept readings and texts that nothing learned needs any more; whether that could be done."""
        if self.readings is None:
            return False
        records = self.records.values()
        texts = {record.entry.digest for record in records} if self.network and self.network.reads_diffs else set()
        return self.readings.prune({key for record in records for key in record.keys} | self.lasting, texts)

    def resume_keeping(self) -> None:
        """The cache can be written again."""
        self._texts.resume()
        if self.readings is not None:
            self.readings.resume()

    def forget(self) -> None:
        """Drop the state (what was read stays cached, and is of use to the next)."""
        self.state, self.records = None, {}

    @property
    def overlay(self) -> dict[str, str]:
        """Texts of unsaved buffers by path."""
        return dict(self._overlay)

    @property
    def seen(self) -> dict[str, tuple[bytes, int, int]]:
        """Every file of the folder as plain values: digest, size, mtime_ns."""
        return {path: (entry.digest, entry.size, entry.mtime_ns) for path, entry in self._snapshot.items()}

    def restore(self, network: Hypernetwork, state: RepoState, saved: SavedState) -> None:
        """Go on from a state that was kept on disk."""
        self.network, self.state, self.rules = network, state, saved.filter_digest
        self.records = update_plan.from_rows(saved.files)
        self.sample = Sample(saved.touched, saved.first)
        self._snapshot = {path: Entry(*values) for path, values in saved.seen.items()}
        self.sample.restore(self._snapshot, self._budget)

    def without(self, paths: list[str]) -> RepoState | None:
        """The state with some files left out, exactly (one made of diffs is given whole); None if readings are lost."""
        if self.network is None or self.state is None or self.readings is None:
            return None
        keys = [key for path in paths for key in self.records[path].keys]
        if self.network.reads_diffs and "files" not in self.state.tensors:
            return self.state  # what came by diffs cannot be taken out
        found = self.readings.get(keys)
        if any(key not in found for key in keys):
            return None
        change = StateChange(removed=[found[key] for key in keys], first=True)  # first: not an event, recency untouched
        return self.network.update([self.state], [change])[0]

    @property
    def chunks(self) -> int:
        """How many pieces are folded."""
        return sum(len(record.keys) for record in self.records.values())
