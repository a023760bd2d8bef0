"""A folder's git history for a hypernetwork that reads diffs: an older snapshot, then commit by commit up to HEAD.

Nothing is read that the folder's filter leaves out, secrets in removed lines included. Work comes in slices and is
bounded: a sample of the older files, a number of commits, and a longest diff. What a state was at a commit is kept
under the commit's id (and the filter's rules), so that the same history is not replayed twice.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from c2l_lsp.engine.adaptation.update_plan import ChunkEmbeddings, FileRecord, UpdatePlan, select
from c2l_lsp.model.hypernet.encoder import in_repository
from c2l_lsp.model.hypernet.protocol import ChunkEmbedding, Hypernetwork, RepoState, StateChange
from c2l_lsp.repo.filter.files import FileFilter, FileText
from c2l_lsp.repo.git import git_process
from c2l_lsp.repo.history import git_history
from c2l_lsp.repo.history.snapshot import Entry

LONGEST_DIFF = 24_000
"""Characters of one commit's diff that are read, about 15 windows of the encoder."""

Work = Generator[None, None, "ReplayedHistory | None"]
Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class ReplayedHistory:
    """What a history gives: a state to start from (None: empty), what to fold into it, and the files as HEAD has them.

    `key` is what the resulting state is kept under.
    """

    start: RepoState | None
    change: StateChange
    plan: UpdatePlan
    key: bytes
    commits: int


class HistoryReplay:
    """One replay of one folder."""

    def __init__(
        self,
        folder: Path,
        files: FileFilter,
        network: Hypernetwork,
        readings: ChunkEmbeddings,
        *,
        commits: int,
        budget: int,
    ) -> None:
        self._folder, self._files, self._network, self._readings = folder, files, network, readings
        self._commits, self._budget = commits, budget

    def run(self, tell: Tell) -> Work:
        """None without a repository or with fewer than two commits. GitError if git cannot answer otherwise."""
        try:
            shas = [commit.sha for commit in git_history.first_parent_commits(self._folder, self._commits + 1)]
        except (git_process.NoRepository, git_process.NoCommit):
            return None
        yield
        if len(shas) < 2:
            return None
        start, at = self._kept(shas)
        added: list[ChunkEmbedding] = []
        if start is None:
            added = yield from self._snapshot(shas[0])
        steps = yield from self._steps(shas[at:], tell)
        plan = yield from self._head(shas[-1])
        if start is None and not added and not steps:
            return None
        change = StateChange(added=added, history=steps, first=True)
        return ReplayedHistory(start, change, plan, self._key(shas[-1]), len(shas) - 1)

    def _key(self, sha: str) -> bytes:
        return hashlib.blake2b(f"commit {sha} {self._files.digest}".encode(), digest_size=16).digest()

    def _kept(self, shas: list[str]) -> tuple[RepoState | None, int]:
        """The state at the latest commit it is kept of, and that commit's place."""
        keys = [self._key(sha) for sha in shas]
        found = self._readings.get(keys)
        for at in range(len(shas) - 1, -1, -1):
            if keys[at] in found:
                return RepoState(dict(found[keys[at]])), at
        return None, 0

    def _texts(self, sha: str) -> Generator[None, None, dict[str, FileText]]:
        """The files of a commit that the filter admits, sampled as a folder's own are."""
        tree = {p: b for p, b in git_history.tree(self._folder, sha).items() if self._files.includes(p)}
        yield
        found: dict[str, FileText] = {}
        used = 0
        for path, (_, content) in zip(tree, git_history.blobs(self._folder, tree.values()), strict=True):
            text = _decoded(content)
            screened = None if text is None else self._files.check_text(path, text)
            if screened is not None:
                found[path] = screened
                used += screened.size
            if len(found) % 16 == 15:
                yield
        chosen = select({path: Entry(f.digest, f.size, 0) for path, f in found.items()}, self._budget)
        return {path: found[path] for path in sorted(chosen)}

    def _snapshot(self, sha: str) -> Generator[None, None, list[ChunkEmbedding]]:
        texts = yield from self._texts(sha)
        chunks = [
            chunk
            for path, file in texts.items()
            if in_repository(path, file.size)
            for chunk in self._network.chunks(file.text)
        ]
        have = self._readings.get([chunk.key for chunk in chunks])
        yield from self._readings.make([p for p in chunks if p.key not in have], lambda done, total: None)
        have |= self._readings.get([chunk.key for chunk in chunks])
        return [have[chunk.key] for chunk in chunks if chunk.key in have]

    def _steps(self, shas: list[str], tell: Tell) -> Generator[None, None, list[list[ChunkEmbedding]]]:
        """Readings of the diffs between consecutive commits; a commit without production changes is no step."""
        found = []
        for at, (before, after) in enumerate(itertools.pairwise(shas), 1):
            text = git_history.diff_text(self._folder, before, after, is_ignored=self._files.is_ignored)[:LONGEST_DIFF]
            yield
            if text:
                chunks = self._network.diff_chunks(text)
                keys = [chunk.key for chunk in chunks]
                have = self._readings.get(keys)
                yield from self._readings.make([p for p in chunks if p.key not in have], lambda done, total: None)
                have |= self._readings.get(keys)
                found.append([have[key] for key in keys if key in have])
            tell(at, len(shas) - 1)
        return found

    def _head(self, sha: str) -> Generator[None, None, UpdatePlan]:
        """The files as HEAD has them: what the state stands for once the history is folded."""
        texts = yield from self._texts(sha)
        records = {
            path: FileRecord(Entry(file.digest, file.size, 0), tuple(p.key for p in self._network.chunks(file.text)))
            for path, file in texts.items()
        }
        came = {path: file.text for path, file in texts.items()}
        return UpdatePlan(
            records, Counter(), Counter(), changed_files=len(records), first=True, came=came, paths=list(records)
        )


def _decoded(content: bytes | None) -> str | None:
    try:
        return None if content is None else content.decode("utf-8")
    except UnicodeDecodeError:
        return None
