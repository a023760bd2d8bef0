"""A workspace's git history as the first update of a hypernetwork that reads diffs (`evo`).

The replay starts from an older snapshot and applies one step a commit up to HEAD. It reads nothing that the filter
excludes, and redacts secrets, in removed lines too. It is bounded: a sample of the older files, a number of commits,
and a longest diff. The state at HEAD is cached under the commit and the ignore rules, so that no history is replayed
twice.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from c2l_lsp.cooperative import Slices
from c2l_lsp.engine.adaptation.chunk_embeddings import ChunkEmbeddings
from c2l_lsp.engine.adaptation.sample import select
from c2l_lsp.engine.adaptation.update_plan import FileRecord, UpdatePlan
from c2l_lsp.model.hypernet.encoder import in_repository
from c2l_lsp.model.hypernet.protocol import Chunk, ChunkEmbedding, Hypernetwork, RepoState, StateChange
from c2l_lsp.repo.filter import screen
from c2l_lsp.repo.filter.files import FileFilter, FileText
from c2l_lsp.repo.git import git_process
from c2l_lsp.repo.history import git_history
from c2l_lsp.repo.history.snapshot import Entry

MAX_DIFF_CHARS = 24_000
"""Longest part of one commit's diff that is read: about 15 windows of the encoder."""

_FILES_A_SLICE = 16

Progress = Callable[[int, int], None]
"""(commits done, commits in all)"""


@dataclass(frozen=True)
class ReplayedHistory:
    """The state to start from (None: empty), the change to apply, and the files as they are at HEAD.

    `key` is the cache key of the resulting state.
    """

    start: RepoState | None
    change: StateChange
    plan: UpdatePlan
    key: bytes
    commits: int


class HistoryReplay:
    """One replay of one workspace: at most `commits` commits, and `budget` bytes of the older snapshot."""

    def __init__(
        self,
        folder: Path,
        files: FileFilter,
        network: Hypernetwork,
        embeddings: ChunkEmbeddings,
        *,
        commits: int,
        budget: int,
    ) -> None:
        self._folder, self._files, self._network, self._embeddings = folder, files, network, embeddings
        self._commits, self._budget = commits, budget

    def run(self, progress: Progress) -> Slices[ReplayedHistory | None]:
        """Return the history, None without a repository or with fewer than two commits. GitError if git fails."""
        try:
            shas = [commit.sha for commit in git_history.first_parent_commits(self._folder, self._commits + 1)]
        except (git_process.NoRepository, git_process.NoCommit):
            return None
        yield
        if len(shas) < 2:
            return None
        start, at = self._latest_cached(shas)
        added: list[ChunkEmbedding] = []
        if start is None:
            added = yield from self._embed_snapshot(shas[0])
        steps = yield from self._embed_diffs(shas[at:], progress)
        plan = yield from self._plan_of(shas[-1])
        if start is None and not added and not steps:
            return None
        change = StateChange(added=added, history=steps, first=True)
        return ReplayedHistory(start, change, plan, self._key(shas[-1]), len(shas) - 1)

    def _key(self, sha: str) -> bytes:
        return hashlib.blake2b(f"commit {sha} {self._files.digest}".encode(), digest_size=16).digest()

    def _latest_cached(self, shas: list[str]) -> tuple[RepoState | None, int]:
        """The cached state of the latest commit that has one, and the commit's index."""
        keys = [self._key(sha) for sha in shas]
        found = self._embeddings.get(keys)
        for at in range(len(shas) - 1, -1, -1):
            if keys[at] in found:
                return RepoState(dict(found[keys[at]])), at
        return None, 0

    def _texts(self, sha: str) -> Slices[dict[str, FileText]]:
        """The admitted files of a commit, sampled as the working tree is."""
        tree = {p: b for p, b in git_history.tree(self._folder, sha).items() if self._files.includes(p)}
        yield
        found: dict[str, FileText] = {}
        for path, (_, content) in zip(tree, git_history.blobs(self._folder, tree.values()), strict=True):
            text = _decoded(content)
            screened = None if text is None else (yield from self._files.check_text_in_slices(path, text))
            if screened is not None:
                found[path] = screened
            if len(found) % _FILES_A_SLICE == _FILES_A_SLICE - 1:
                yield
        chosen = select({path: Entry(f.digest, f.size, 0) for path, f in found.items()}, self._budget)
        return {path: found[path] for path in sorted(chosen)}

    def _embed_snapshot(self, sha: str) -> Slices[list[ChunkEmbedding]]:
        texts = yield from self._texts(sha)
        chunks = [
            chunk
            for path, file in texts.items()
            if in_repository(path, file.size)
            for chunk in self._network.chunks(file.text)
        ]
        return (yield from self._embed(chunks))

    def _embed_diffs(self, shas: list[str], progress: Progress) -> Slices[list[list[ChunkEmbedding]]]:
        """The embedded diff of each pair of consecutive commits. A commit without production changes is no step."""
        steps = []
        for at, (before, after) in enumerate(itertools.pairwise(shas), 1):
            diff = git_history.diff_text(self._folder, before, after, is_ignored=self._files.is_ignored)
            yield
            text = yield from screen.redacted_in_slices(diff[:MAX_DIFF_CHARS])
            if text:
                steps.append((yield from self._embed(self._network.diff_chunks(text))))
            progress(at, len(shas) - 1)
        return steps

    def _embed(self, chunks: list[Chunk]) -> Slices[list[ChunkEmbedding]]:
        keys = [chunk.key for chunk in chunks]
        found = self._embeddings.get(keys)
        yield from self._embeddings.compute([c for c in chunks if c.key not in found], lambda done, total: None)
        found |= self._embeddings.get(keys)
        return [found[key] for key in keys if key in found]

    def _plan_of(self, sha: str) -> Slices[UpdatePlan]:
        """The files of a commit as the plan whose records the replayed state stands for."""
        files = yield from self._texts(sha)
        records = {
            path: FileRecord(Entry(file.digest, file.size, 0), tuple(c.key for c in self._network.chunks(file.text)))
            for path, file in files.items()
        }
        texts = {path: file.text for path, file in files.items()}
        return UpdatePlan(
            records, Counter(), Counter(), changed_files=len(records), first=True, texts=texts, paths=list(records)
        )


def _decoded(content: bytes | None) -> str | None:
    try:
        return None if content is None else content.decode("utf-8")
    except UnicodeDecodeError:
        return None
