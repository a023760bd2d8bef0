"""The methods of RepoPeftBench; each is a row of METHODS.

`memory` embeds the repository at the commit without any file whose path contains "test", because the test files of that
commit contain the answers. The state vectors of the paper include them; this contamination is avoided here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from c2l_lab.benchmarks.repopeft.dataset.schema import Commit
from c2l_lab.corpus.commit_stream import locate_repository
from c2l_lab.corpus.sources import SourceProblem
from c2l_lsp.errors import AdapterError, CorpusError
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.hypernet.protocol import Chunk, ChunkEmbedding, StateChange
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.repo.history import git_history

STATE_CHARS = 400_000
"""The maximum text of a state; files are taken in the order of a hash of their paths."""

_BATCH = 12


class Method(Protocol):
    """Provides the adapter for the tasks of a commit; None: the base model. `digest` names its weights, if any."""

    name: str
    digest: str

    def adapter(self, commit: Commit) -> Adapter | None:
        """The adapter of the repository at a commit."""
        ...


class Base:
    """The base model."""

    name = "base"
    digest = ""

    def adapter(self, commit: Commit) -> Adapter | None:
        """None."""
        del commit
        return None


class MemoryState:
    """`memory` over the production files of a commit; chunks that several commits share are embedded once."""

    name = "memory"

    def __init__(self, model: BaseModel, mirror: Path, chars: int = STATE_CHARS) -> None:
        from c2l_lsp.engine.adaptation.registry import shipped_prior
        from c2l_lsp.model.hypernet.gradient_memory import GradientMemory

        prior = shipped_prior(model)
        if prior is None:
            raise AdapterError(f"{model.id} has no memory prior; make one with `c2l-lab train hypernet`.")
        self._memory, self._mirror, self._chars = GradientMemory(model, prior), mirror, chars
        self.digest = self._memory.digest
        self._readings: dict[bytes, ChunkEmbedding] = {}
        self._repository = ""

    def adapter(self, commit: Commit) -> Adapter | None:
        """The adapter of the state of the files; None if there are no files."""
        if commit.repo_id != self._repository:
            self._repository, self._readings = commit.repo_id, {}
        chunks = [chunk for text in self.texts(commit) for chunk in self._memory.chunks(text)]
        if not chunks:
            return None
        self._read(chunks)
        change = StateChange(added=[self._readings[chunk.key] for chunk in chunks], first=True)
        return self._memory.generate(self._memory.update([self._memory.empty_state()], [change])[0])

    def texts(self, commit: Commit) -> list[str]:
        """The production files of a commit. CorpusError without the repository."""
        try:
            folder = locate_repository(commit.repo_id, self._mirror)
        except SourceProblem as problem:
            raise CorpusError(
                f"{commit.repo_id} is not below {self._mirror}, so its state can't be made: {problem}."
            ) from problem
        files = git_history.tree(folder, commit.commit_sha)
        paths = sorted((path for path in files if is_production(path)), key=_order)
        texts: list[str] = []
        room = self._chars
        for _, data in git_history.blobs(folder, [files[path] for path in paths]):
            if room <= 0:
                break
            texts.append((data or b"").decode("utf-8", "replace")[:room])
            room -= len(texts[-1])
        return texts

    def _read(self, chunks: list[Chunk]) -> None:
        new = sorted({p.key: p for p in chunks if p.key not in self._readings}.values(), key=lambda p: len(p.text))
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            self._readings.update(zip((p.key for p in batch), self._memory.embed(batch), strict=True))
        standing = {chunk.key for chunk in chunks}
        self._readings = {key: reading for key, reading in self._readings.items() if key in standing}


def is_production(path: str) -> bool:
    """Whether a state may contain a file: Python, not vendored or built, no "test" in its path."""
    return git_history.is_production(path, (".py",))


def _order(path: str) -> bytes:
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).digest()


METHODS: dict[str, Callable[[BaseModel, Path], Method]] = {
    "base": lambda model, mirror: Base(),
    "memory": MemoryState,
}
