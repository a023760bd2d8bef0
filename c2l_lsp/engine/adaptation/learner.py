"""A workspace's files and the repository state made of them: the first three stages of a generation.

`reconcile` compares the folder with the last snapshot; `index` brings the token index up to date; `embed` turns the
difference into a `PendingUpdate`. The batched update itself belongs to the scheduler, which hands its result to
`commit`. `Learner` owns the snapshot, the unsaved buffers, the file records, the token index, the hypernetwork and the
state. It knows nothing of published adapters, watching or events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from c2l_lsp.config import Settings
from c2l_lsp.cooperative import Slices, in_background
from c2l_lsp.engine import wire
from c2l_lsp.engine.adaptation import registry, update_plan
from c2l_lsp.engine.adaptation.chunk_embeddings import ChunkEmbeddings
from c2l_lsp.engine.adaptation.history_replay import HistoryReplay
from c2l_lsp.engine.adaptation.sample import Sample, next_part, select
from c2l_lsp.engine.adaptation.update_plan import SLICE_S, FileRecord, PendingUpdate, UpdatePlan
from c2l_lsp.engine.adaptation.validation import held_out
from c2l_lsp.engine.indexing.token_indexer import TokenIndexer
from c2l_lsp.engine.storage.cache import Cache
from c2l_lsp.engine.storage.decoding import SavedState
from c2l_lsp.engine.storage.file_texts import FileTexts
from c2l_lsp.errors import C2LError, GitError, NothingToLearn, StateError, StorageError
from c2l_lsp.model.adapter import mixture
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.adapter.token_index import TokenIndex
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory
from c2l_lsp.model.hypernet.prior import to_tensors
from c2l_lsp.model.hypernet.protocol import (
    ENTRIES,
    ChunkEmbedding,
    Hypernetwork,
    RepoState,
    StateChange,
    key_with_gradients,
)
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.repo.filter.files import FileFilter, FileText
from c2l_lsp.repo.history.snapshot import Entry, Scan, Snapshot

MAX_INDEXED_BYTES = 64 * 2**20
"""Largest amount of text in a token index: about 18 million tokens, which take 150 MB of memory."""

FILL_S = 1800.0
"""Computing time that a start of the engine spends on reading a folder. What is missing then is read after the next."""

_PATHS_A_SLICE = 256
_KEYS_A_SLICE = 64

Progress = Callable[[str, int, int, str, bool], None]
"""(task, done, total, unit, finished)"""


@dataclass(frozen=True)
class Callbacks:
    """What a learner reports. `rules_changed`: everything made under the old ignore rules must be discarded at once."""

    progress: Progress
    storage_failed: Callable[[StorageError], None]
    warn: Callable[[C2LError], None]
    rules_changed: Callable[[], None]


@dataclass(frozen=True)
class Reconciled:
    """The files that count, the texts of unsaved buffers among them, and the duration of the comparison in ms.

    The filter has checked these texts. A buffer can change before they are embedded; only what was checked is.
    """

    files: Snapshot
    buffers: Mapping[str, str]
    ms: float


@dataclass(frozen=True)
class HeldOut:
    """What an adapter without a few files is made of, and these files (path → digest), to validate it on."""

    generate: Callable[[], Adapter]
    files: Mapping[str, bytes]


class Learner:
    """The files of one workspace and the state that stands for them."""

    def __init__(
        self, folder: Path, settings: Settings, model: BaseModel, cache: Cache | None, callbacks: Callbacks
    ) -> None:
        """`cache` None: nothing is written to disk. Raises C2LError if the ignore rules cannot be read."""
        self.filter = FileFilter(folder, settings.files)
        self.network: Hypernetwork | None = None
        self.state: RepoState | None = None
        self.records: dict[str, FileRecord] = {}
        self.prior_tensors: dict[str, Tensor] = {}
        self.rules = ""
        self.sample = Sample()
        self.tokens = TokenIndexer(model)
        self.complete = True
        """Whether the state contains every file that it should; false while a large folder is embedded in parts."""
        self.loaded = True
        """Whether the state has its neural keys; false after `restore_state` until `load_positions`."""
        self.deferred = False
        """Whether files are left for the next start of the engine, see FILL_S."""
        self._filling = True  # until it was complete once
        self._folder, self._settings, self._model, self._cache = folder, settings, model, cache
        self._callbacks = callbacks
        self._budget = min(settings.adapter.max_index_kb * 1024, MAX_INDEXED_BYTES)
        self._snapshot: Snapshot = {}
        self._overlay: dict[str, str] = {}
        self._embeddings: ChunkEmbeddings | None = None
        self._texts = FileTexts(cache, callbacks.storage_failed)
        self._history_keys: set[bytes] = set()

    # --- texts -------------------------------------------------------------------------------------------------------

    def set_buffer(self, path: str, text: str | None) -> bool:
        """Let the text of an unsaved buffer (None: closed) count instead of the file. False if nothing can change."""
        if text is None:
            return self._overlay.pop(path, None) is not None
        if not self.filter.includes(path):
            return False
        changed = self._overlay.get(path) != text
        self._overlay[path] = text
        return changed

    def text_in_slices(self, path: str) -> Slices[str]:
        """Return the redacted text of a path, from its buffer or file; "" if the filter excludes it."""
        buffer = self._overlay.get(path)
        if buffer is None:
            read = yield from self.filter.read_in_slices(path)
        else:
            read = yield from self.filter.check_text_in_slices(path, buffer)
        return read.text if read else ""

    @property
    def buffers(self) -> dict[str, str]:
        """The texts of unsaved buffers by path."""
        return dict(self._overlay)

    @property
    def snapshot_rows(self) -> dict[str, tuple[bytes, int, int]]:
        """Every file of the folder in its form on disk: path → (digest, size in bytes, mtime in ns)."""
        return {path: (entry.digest, entry.size, entry.mtime_ns) for path, entry in self._snapshot.items()}

    @property
    def chunk_count(self) -> int:
        """The number of chunks that the state contains."""
        return sum(len(record.keys) for record in self.records.values())

    # --- stage 1: reconcile ------------------------------------------------------------------------------------------

    def survey(self) -> Slices[None]:
        """Read the ignore rules of all directories, so that `filter` answers about a directory at once."""
        until = time.perf_counter() + SLICE_S
        for _ in self.filter.survey_in_steps():
            if time.perf_counter() >= until:
                yield
                until = time.perf_counter() + SLICE_S

    def reconcile(self, paths: frozenset[str] | None) -> Slices[Reconciled]:
        """Compare the folder, or only `paths`, with the last snapshot, and return the files that count now.

        Raises NothingToLearn if no file can be read, FolderError if the folder is gone.
        """
        started = time.perf_counter()
        first = self.state is None
        if first:
            self._callbacks.progress("scan", 0, 0, "files", False)
        if paths is None:
            self.filter = FileFilter(self._folder, self._settings.files)
        scan = Scan(self.filter, self._snapshot, hints=paths, on_read=partial(self._note_text, first=first))
        while not scan.step(SLICE_S):
            yield
        before, self._snapshot = self._snapshot, scan.snapshot
        if first:
            self._callbacks.progress("scan", len(self._snapshot), len(self._snapshot), "files", True)
        if paths is None:
            yield from self._apply_rules(before)
        elapsed = time.perf_counter() - started
        files, buffers = yield from self._with_buffers()
        if self.state is not None:
            self.sample.note_changes(before, files)
        if not files:
            self.discard_state()
            languages = ", ".join(self._settings.files.languages)
            raise NothingToLearn(
                f"{self._folder.name} has no readable {languages} file yet; completions use the base model."
            )
        return Reconciled(files, buffers, elapsed * 1e3)

    def _note_text(self, path: str, file: FileText, *, first: bool) -> None:
        """Use the text of a file that a scan has read, so that it is not read again."""
        if first:
            self.sample.note_first_text(path, file.text)
        if self._has_token_index:
            self.tokens.note(path, file.digest, file.text)

    def _with_buffers(self) -> Slices[tuple[Snapshot, dict[str, str]]]:
        """The snapshot with unsaved buffers in place of their files, and the buffers' checked texts."""
        files, texts = dict(self._snapshot), dict[str, str]()
        for path, text in list(self._overlay.items()):  # a buffer can change between two slices
            screened = yield from self.filter.check_text_in_slices(path, text)
            if screened is None:
                files.pop(path, None)
            else:
                files[path] = Entry(screened.digest, screened.size, 0)
                texts[path] = screened.text
        return files, texts

    def _apply_rules(self, before: Snapshot) -> Slices[None]:
        """Discard everything made under other ignore rules, so that no excluded text remains in it.

        Another digest means other rules. Equal rules can decide differently about a file in a newer release: a file of
        the snapshot `before` that is excluded now means the same.
        """
        digest = self.filter.digest
        if self.rules and (digest != self.rules or (yield from self._excludes_one_of(before.keys() - self._snapshot))):
            self.discard_state()
            self.sample.keep_only(self._snapshot)
            self.tokens.discard()
            self._history_keys = set()
            if self.prior_tensors:  # sums over the folder's own text, excluded text included
                self.prior_tensors, self.network, self._embeddings = {}, None, None
            self._callbacks.rules_changed()
        self.rules = digest

    def _excludes_one_of(self, paths: Collection[str]) -> Slices[bool]:
        """Whether the filter ignores one of some paths: a checkout can have removed many thousand files."""
        for number, path in enumerate(paths, 1):
            if self.filter.is_ignored(path):
                return True
            if number % _PATHS_A_SLICE == 0:
                yield
        return False

    # --- stage 2: index ----------------------------------------------------------------------------------------------

    @property
    def _has_token_index(self) -> bool:
        """Whether the adapter has a token index: only `memory` mixes one in."""
        return self._settings.adapter.hypernetwork in (registry.AUTO, "auto")

    def index(self, reconciled: Reconciled) -> Slices[int]:
        """Make the token index that of the files; return how many chunks came and went. Needs no forward pass."""
        if not self._has_token_index:
            return 0
        files, buffers = reconciled.files, reconciled.buffers
        digests = {path: files[path].digest for path in select(files, MAX_INDEXED_BYTES)}
        return (
            yield from self.tokens.update_in_slices(
                digests,
                partial(self._checked_text, buffers),
                lambda done, total: self._callbacks.progress(wire.TOKENS, done, total, "files", done >= total),
            )
        )

    def _checked_text(self, buffers: Mapping[str, str], path: str) -> Slices[str]:
        """The text of a path, from the checked buffers or else its file."""
        return buffers[path] if path in buffers else (yield from self.text_in_slices(path))

    # --- stage 3: embed ----------------------------------------------------------------------------------------------

    def embed(
        self, reconciled: Reconciled, trigger: str, interrupted: Callable[[], bool] = lambda: False
    ) -> Slices[PendingUpdate | None]:
        """Embed the chunks that the state lacks, and return the update; None if the state stays as it is.

        A large folder is embedded in parts: `complete` is false until the state contains every file it should. None is
        also returned once `interrupted` returns true; what was embedded until then is cached. The first update of a
        hypernetwork that reads diffs is the git history, if there is one.
        """
        started = time.perf_counter()
        network = yield from self._hypernetwork(reconciled.files)
        embeddings = self._embeddings_of(network)
        if self.state is None and network.reads_diffs and self._settings.adapter.use_git_history:
            update = yield from self._replay_history(network, embeddings, trigger)
            if update is not None:
                return update
        plan = yield from self._plan(network, reconciled)
        if plan.empty and self.state is not None:
            self.records = plan.records
            return None
        diffs = yield from self._embed_diffs(network, plan)
        if diffs:
            change = StateChange(diffs=diffs)
        elif network.reads_diffs and self.state is not None and "files" not in self.state.tensors:
            self.records = plan.records  # no production file changed, and this state contains no files any more
            return None
        else:
            found = yield from self._embed_chunks(embeddings, plan, interrupted)
            if found is None:
                self.complete = False
                return None
            made = update_plan.to_change(plan, found)
            if made is None and plan.first:
                raise StateError("the embeddings of the files are lost as soon as they are computed")
            if made is None:  # an embedding that must be subtracted is lost: build the state from the files again
                self.discard_state()
                return (yield from self.embed((yield from self.reconcile(None)), trigger, interrupted))
            change = made
        ms = {"scan": reconciled.ms, "read": (time.perf_counter() - started) * 1e3}
        trigger = "index" if plan.first and trigger == "diff" else trigger  # a further part
        return PendingUpdate(network, self.state or network.empty_state(), change, plan, trigger, ms)

    def _embeddings_of(self, network: Hypernetwork) -> ChunkEmbeddings:
        made = self._embeddings or ChunkEmbeddings(self._cache, network, self._callbacks.storage_failed)
        self._embeddings = made
        return made

    def _hypernetwork(self, files: Snapshot) -> Slices[Hypernetwork]:
        """The hypernetwork of the settings; without a shipped prior, one is estimated from these files."""
        self.network = self.network or registry.build(self._settings, self._model, self.prior_tensors)
        if self.network is not None:
            return self.network
        texts = (self.text_in_slices(path) for path in sorted(files, key=lambda p: (files[p].digest, p)))
        prior = yield from registry.estimate_prior(
            self._model, texts, lambda n, of: self._callbacks.progress("prior", n, of, "tokens", n >= of)
        )
        if prior is None:
            raise NothingToLearn(f"{self._folder.name} has only empty files; completions use the base model.")
        self.prior_tensors = to_tensors(prior)
        self.network = made = GradientMemory(self._model, prior)
        return made

    def _replay_history(
        self, network: Hypernetwork, embeddings: ChunkEmbeddings, trigger: str
    ) -> Slices[PendingUpdate | None]:
        commits = self._settings.adapter.history_commits
        replay = HistoryReplay(self._folder, self.filter, network, embeddings, commits=commits, budget=self._budget)
        started = time.perf_counter()
        try:
            history = yield from replay.run(
                lambda n, of: self._callbacks.progress("history", n, of, "commits", n == of)
            )
        except GitError as error:  # the files as they are now are embedded all the same
            self._callbacks.warn(error)
            return None
        if history is None:
            return None
        self._texts.put(history.plan.new_texts, history.plan.digests)
        ms = {"history": (time.perf_counter() - started) * 1e3}
        start = history.start or network.empty_state()
        return PendingUpdate(network, start, history.change, history.plan, trigger, ms, history.key)

    def _plan(self, network: Hypernetwork, reconciled: Reconciled) -> Slices[UpdatePlan]:
        files, buffers = reconciled.files, reconciled.buffers
        chosen, rechunk = self.sample.choose(files, self._budget)
        first = self.state is None
        if not network.reads_diffs:
            chosen, first = self._part(chosen, files)
        return (
            yield from update_plan.plan(
                self.filter, self.records, files, buffers, network, chosen, self.sample.narrow, rechunk, first=first
            )
        )  # fmt: skip

    def _part(self, chosen: set[str], files: Snapshot) -> tuple[set[str], bool]:
        """The files that the state contains next, of all that it should contain, and whether these are filled in.

        Edits come first and alone: only they are recent changes.
        """
        have = chosen & self.records.keys()
        edited = {path for path in self.sample.edited if path in chosen and path not in have}
        changed = len(have) < len(self.records) or any(
            files[path].digest != self.records[path].entry.digest for path in have
        )
        missing = chosen - have - edited
        self.deferred = bool(missing) and self._embeddings is not None and self._embeddings.seconds >= FILL_S
        if self.deferred or (self._filling and (edited or changed)):
            self.complete = self.deferred or not missing
            return have | edited, False
        near = {*self._overlay, *edited}
        part, self.complete = next_part(have, chosen - have, files, near, self.sample.gradients)
        filling, self._filling = self._filling, self._filling and not self.complete
        return have | part, filling

    def _embed_diffs(self, network: Hypernetwork, plan: UpdatePlan) -> Slices[list[ChunkEmbedding]]:
        """Embeddings of the plan's diffs for a hypernetwork that reads diffs. Keeps the new texts for the next plan."""
        if not network.reads_diffs:
            return []
        old_texts = self._texts.get(record.entry.digest for record in self.records.values())
        self._texts.put(plan.new_texts, plan.digests)
        text = "" if plan.first else update_plan.diff_text(plan, self.records, old_texts)
        return (yield from network.embed_in_slices(network.diff_chunks(text))) if text else []

    def _embed_chunks(
        self, embeddings: ChunkEmbeddings, plan: UpdatePlan, interrupted: Callable[[], bool]
    ) -> Slices[dict[bytes, ChunkEmbedding] | None]:
        """Embeddings of the chunks that a plan adds and removes, from the cache or computed; None if interrupted."""
        found = yield from embeddings.get_in_slices([*plan.added, *plan.removed])
        missing = [chunk for key, chunk in plan.new_chunks.items() if key in plan.added and key not in found]
        task = "index" if plan.first else "update"
        complete = yield from embeddings.compute(
            missing, lambda done, total: self._callbacks.progress(task, done, total, "chunks", False), interrupted
        )
        if not complete:
            return None
        found |= yield from embeddings.get_in_slices(chunk.key for chunk in missing)
        if plan.first or missing:
            self._callbacks.progress(task, len(missing), len(missing), "chunks", True)
        return found

    # --- the adapter -------------------------------------------------------------------------------------------------

    def generate(self) -> Adapter:
        """The adapter of the present state and token index; without a state, of the token index alone."""
        return self._generate(self.network, self.state, self.tokens.index)

    def _generate(self, network: Hypernetwork | None, state: RepoState | None, tokens: TokenIndex) -> Adapter:
        if network is not None and state is not None:
            adapter = network.generate(state)
        else:
            adapter = Adapter(self._model.digest, registry.AUTO)
        return self.with_tokens(adapter, tokens)

    def with_tokens(self, adapter: Adapter, tokens: TokenIndex | None = None) -> Adapter:
        """An adapter with a token index (None: that of the folder), if the hypernetwork mixes one in."""
        if not self._has_token_index:
            return adapter
        index = self.tokens.index if tokens is None else tokens
        return adapter.with_tokens(index, self._model.d, mixture.load(self._model.id, self._model.digest))

    # --- the state ---------------------------------------------------------------------------------------------------

    def commit(self, update: PendingUpdate, state: RepoState) -> None:
        """Take the result of the batched update: `state` now stands for the plan's files.

        StateError if the state is not sound: something in the cache is damaged though it looks as it should.
        """
        update.network.check(state)
        self.state, self.records = state, update.plan.records
        if update.history_key and self._embeddings is not None and "h" in state.tensors:
            self._history_keys = {update.history_key}
            self._embeddings.put({update.history_key: {"h": state.tensors["h"]}})

    def discard_state(self) -> None:
        """Drop the state. Embeddings stay cached and are used by the next one."""
        self.state, self.records = None, {}
        self.complete = self.loaded = self._filling = True

    def restore_rules(self, saved: SavedState, prior_tensors: dict[str, Tensor]) -> None:
        """Take up the ignore rules' digest and the estimated prior of a saved state."""
        self.rules, self.prior_tensors = saved.filter_digest, prior_tensors

    def restore_state(self, network: Hypernetwork, state: RepoState, saved: SavedState) -> None:
        """Continue from a saved state."""
        self.network, self.state = network, state
        self.loaded = False
        self.records = update_plan.from_rows(saved.files)
        self.sample = Sample(saved.touched, saved.first)
        self._snapshot = {path: Entry(*values) for path, values in saved.seen.items()}
        self.sample.restore(self._snapshot, self._budget)
        self._filling = not self.sample.covered_by(self.records)

    def load_positions(self) -> Slices[None]:
        """Read the neural keys of a restored state from the cache.

        A file whose keys are lost is read again. The state is discarded if a chunk of its sums is lost, which could
        never be subtracted. Raises StateError if the sums are not those of its chunks.
        """
        network, state, self.loaded = self.network, self.state, True
        empty = network.empty_state().positions if network is not None else None
        if network is None or state is None or empty is None:
            return
        wanted = [key for record in self.records.values() for key in record.keys]
        found = dict[bytes, ChunkEmbedding]()
        for start in range(0, len(wanted), _KEYS_A_SLICE):
            some = self._embeddings_of(network).get(wanted[start : start + _KEYS_A_SLICE])
            found |= {key: {name: one[name] for name in ENTRIES} for key, one in some.items()}
            yield
        lost = {key for key in wanted if key not in found}
        summed = [key for key in wanted if key_with_gradients(key) is None]
        if not lost.isdisjoint(summed):
            self.discard_state()
            return
        count = sum(len(found[key]["keys"]) for key in summed)
        if "n" in state.tensors and count != float(state.tensors["n"]):
            raise StateError(f"the state sums {float(state.tensors['n']):g} tokens, and its chunks have {count}")
        if lost:
            self.records = {path: r for path, r in self.records.items() if lost.isdisjoint(r.keys)}
        used = [found[key] for record in self.records.values() for key in record.keys]
        positions = yield from in_background(partial(empty.updated, used))
        if self.state is state:
            self.state = RepoState(state.tensors, positions)

    def hold_out(self) -> Slices[HeldOut | None]:
        """Split off a few files to validate on; None with too few files, or if their embeddings are lost.

        The files' embeddings are subtracted exactly, and the token index is that of the other files. A state made of
        diffs cannot lose files and is returned whole.
        """
        paths = held_out(self._held_out_candidates())
        if not paths:
            return None
        files = {path: digest for path, digest in self._held_out_candidates().items() if path in paths}
        state = yield from self._state_without(paths)
        if state is None and self.state is not None:
            return None
        network = self.network

        def generate() -> Adapter:
            return self._generate(network, state, self.tokens.without(paths))

        return HeldOut(generate, files)

    def _held_out_candidates(self) -> dict[str, bytes]:
        """Every file that the adapter contains at least one chunk of: path → digest."""
        if self.tokens.files:
            return {path: file.digest for path, file in self.tokens.files.items() if file.chunks}
        return {path: record.entry.digest for path, record in self.records.items() if record.keys}

    def _state_without(self, paths: Collection[str]) -> Slices[RepoState | None]:
        """The state without some files; None without a state, or if embeddings that must be subtracted are lost."""
        if self.network is None or self.state is None or self._embeddings is None:
            return None
        if self.network.reads_diffs and "files" not in self.state.tensors:
            return self.state
        keys = [key for path in paths if path in self.records for key in self.records[path].keys]
        found = self._embeddings.get(keys)
        if any(key not in found for key in keys):
            return None
        change = StateChange(removed=[found[key] for key in keys], first=True)  # `first`: the recency stays as it is
        return (yield from self.network.update_in_slices([self.state], [change]))[0]

    # --- the cache on disk -------------------------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Whether no part of the folder waits, whose embeddings may be cached already."""
        return self.complete and not self.deferred

    def prune_cache(self) -> bool:
        """Delete cached embeddings and texts that the state does not need; False if that was not possible."""
        if self._embeddings is None:
            return False
        records = self.records.values()
        texts = {record.entry.digest for record in records} if self.network and self.network.reads_diffs else set()
        return self._embeddings.prune({key for record in records for key in record.keys} | self._history_keys, texts)

    def distrust_cache(self, error: Exception) -> None:
        """Drop all that was stored: what was computed from it failed with `error`."""
        if self._cache is not None:
            self._cache.distrust(StateError(str(error)))

    def resume_cache(self) -> None:
        """Use the cache again after the disk has failed."""
        self._texts.resume()
        if self._embeddings is not None:
            self._embeddings.resume()
