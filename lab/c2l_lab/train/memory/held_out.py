"""Repositories split in two to measure adapters: files that a state is made from, and files it is scored on.

The final map of `memory` acts after the last hidden state, so the hidden states of the test text are computed once per
prefix length, and every adapter is scored on them exactly.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from c2l_lab.corpus.corpus import Document
from c2l_lsp.model.adapter.knn_lm import KnnMemory, suffixes
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory
from c2l_lsp.model.hypernet.protocol import RepoState, StateChange
from c2l_lsp.model.lm.base import BaseModel

PREFIXES = (0, 256, 1024)
"""Lengths of the prefix from the same file, in tokens."""

BINS = 15
"""Of the expected calibration error."""

WINDOW = 256
"""Tokens scored after each prefix."""

_BATCH = 12  # chunks embedded at once


@dataclass(frozen=True)
class SplitRepository:
    """Texts of a repository: `seen` files, which a state may be made from, and `test` files."""

    name: str
    seen: list[str]
    test: list[str]


@dataclass(frozen=True)
class ScoredText:
    """Final hidden states [N, d] of test text, the next token at each [N], and the tokens up to each position."""

    hidden: Tensor
    targets: Tensor
    before: Sequence[Sequence[int]] = ()


def split_repositories(
    documents: Iterable[Document], *, state_chars: int = 100_000, test_chars: int = 40_000, min_chars: int = 20_000
) -> list[SplitRepository]:
    """The repositories that have at least `min_chars` of seen text and half of that of test text.

    Test files are those with the smallest path hashes, at most a third of the files. Seen text ends at `state_chars`.
    """
    files: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        files[document.repo].append(document)
    found = []
    for name in sorted(files):
        ordered = sorted(files[name], key=lambda d: hashlib.blake2b(d.path.encode(), digest_size=8).digest())
        test: list[str] = []
        while ordered and sum(map(len, test)) < test_chars and len(test) < max(1, len(files[name]) // 3):
            test.append(ordered.pop(0).text)
        seen, used = [], 0
        for document in ordered:
            if used >= state_chars:
                break
            seen.append(document.text[: state_chars - used])
            used += len(seen[-1])
        if used >= min_chars and sum(map(len, test)) >= min_chars // 2:
            found.append(SplitRepository(name, seen, test))
    return found


@torch.inference_mode()
def state_of(memory: GradientMemory, texts: Sequence[str]) -> RepoState:
    """The state of a repository with these files."""
    chunks = [chunk for text in texts for chunk in memory.chunks(text)]
    chunks.sort(key=lambda chunk: len(chunk.text))  # batches of similar length need little padding
    embeddings = []
    for start in range(0, len(chunks), _BATCH):
        embeddings += memory.embed(chunks[start : start + _BATCH])
    return memory.update([memory.empty_state()], [StateChange(added=embeddings, first=True)])[0]


@torch.inference_mode()
def score_positions(model: BaseModel, repository: SplitRepository, prefix: int, limit: int) -> ScoredText:
    """About `limit` positions of the test files, in windows that follow `prefix` tokens of the same file."""
    hidden, targets, before, total = [], [], list[Sequence[int]](), 0
    for text in repository.test:
        ids = [model.start_id, *model.encode(text)]
        for begin in range(0, max(1, len(ids) - prefix - 1), WINDOW):
            window = ids[begin : begin + prefix + WINDOW + 1]
            if len(window) < prefix + 17 or total >= limit:
                break
            rows = torch.tensor([window], device=model.device)
            states = model.hidden(rows[:, :-1])[0, prefix:]
            hidden.append(states)
            targets.append(rows[0, prefix + 1 :])
            before += suffixes(window, prefix, len(window) - 1)
            total += len(states)
    if not hidden:
        empty = torch.zeros(0, dtype=torch.long)
        return ScoredText(torch.zeros(0, model.d, dtype=model.dtype), empty)
    return ScoredText(torch.cat(hidden), torch.cat(targets), before)


@dataclass
class Scores:
    """Sums over the scored positions: their number, the loss in nat, and the calibration table [3, BINS].

    Its rows are the number of positions, the sum of the highest probabilities, and how often that token was the true
    one; a column holds the positions whose highest probability lies in one of BINS equal parts of 0 to 1.
    """

    positions: int = 0
    loss: float = 0.0
    calibration: Tensor = field(default_factory=lambda: torch.zeros(3, BINS, dtype=torch.float64))

    @property
    def mean_loss(self) -> float:
        """The loss in nat/token."""
        return self.loss / max(self.positions, 1)

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Count some positions: logits fp32 [n, V], true tokens [n]."""
        self.positions += len(targets)
        self.loss += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
        highest, tokens = logits.max(1)
        confidence = (highest - torch.logsumexp(logits, 1)).exp().double().cpu()
        right = (tokens == targets).double().cpu()
        columns = (confidence * BINS).long().clamp(max=BINS - 1)
        self.calibration.index_add_(1, columns, torch.stack([torch.ones_like(right), confidence, right]))


def calibration_error(tables: Sequence[Tensor]) -> float:
    """Expected calibration error of the most likely token, from calibration tables; each has the same weight."""
    if not tables:
        return 0.0
    mean = torch.stack([table / table[0].sum().clamp(min=1) for table in tables]).mean(0)
    return float((mean[1] - mean[2]).abs().sum())


@torch.inference_mode()
def scores(model: BaseModel, scored: ScoredText, C: Tensor | None, knn: KnnMemory | None = None) -> Scores:
    """The scores with a final map C [d, d] and a kNN memory; None leaves either out."""
    found = Scores()
    for start in range(0, len(scored.targets), 1024):
        rows = slice(start, start + 1024)
        h = scored.hidden[rows]
        mapped = h if C is None else h + (h.float() @ C.to(h.device).T).to(h.dtype)
        logits = model.logits(mapped).float()
        if knn is not None:
            logits = knn.interpolate(h, logits, scored.before[rows])
        found.add(logits, scored.targets[rows])
    return found


def mean_loss(model: BaseModel, scored: ScoredText, C: Tensor | None, knn: KnnMemory | None = None) -> float:
    """The mean loss in nat/token; arguments as in `scores`."""
    return scores(model, scored, C, knn).mean_loss
