"""Repositories cut in two for measuring adapters: files a state may see, and files it is scored on.

The final-map adapters of `memory` change only the head's input, so the hidden states of the test text are computed once
per in-file prefix length and every adapter is scored on them exactly.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from c2l_lab.corpus.corpus import Document
from c2l_lsp.model.adapter.knn_lm import KnnMemory, suffixes
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory
from c2l_lsp.model.hypernet.protocol import RepoState, StateChange
from c2l_lsp.model.lm.base import BaseModel

PREFIXES = (0, 256, 1024)
WINDOW = 256
"""Tokens scored behind each prefix."""


@dataclass(frozen=True)
class Subject:
    """A repository cut in two: files its state may see, and files it is scored on."""

    name: str
    memory: list[str]
    test: list[str]


@dataclass(frozen=True)
class Scored:
    """Hidden states [N, d] and next tokens [N] of a subject's test text at one prefix length, and the last tokens up
    to each position."""

    hidden: Tensor
    targets: Tensor
    before: Sequence[Sequence[int]] = ()


def subjects(
    documents: Iterable[Document], *, memory_chars: int = 100_000, test_chars: int = 40_000, least: int = 20_000
) -> list[Subject]:
    """Repositories with enough text. Test files are those of the smallest path hash; the rest is memory."""
    files: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        files[document.repo].append(document)
    found = []
    for name in sorted(files):
        ordered = sorted(files[name], key=lambda d: hashlib.blake2b(d.path.encode(), digest_size=8).digest())
        test: list[str] = []
        while ordered and sum(map(len, test)) < test_chars and len(test) < max(1, len(files[name]) // 3):
            test.append(ordered.pop(0).text)
        memory, used = [], 0
        for document in ordered:
            if used >= memory_chars:
                break
            memory.append(document.text[: memory_chars - used])
            used += len(memory[-1])
        if used >= least and sum(map(len, test)) >= least // 2:
            found.append(Subject(name, memory, test))
    return found


@torch.inference_mode()
def state_of(memory: GradientMemory, texts: Sequence[str]) -> RepoState:
    """The state of some files' texts."""
    chunks = [chunk for text in texts for chunk in memory.chunks(text)]
    chunks.sort(key=lambda chunk: len(chunk.text))
    readings = []
    for start in range(0, len(chunks), 12):
        readings += memory.embed(chunks[start : start + 12])
    return memory.update([memory.empty_state()], [StateChange(added=readings, first=True)])[0]


@torch.inference_mode()
def score_sites(model: BaseModel, subject: Subject, prefix: int, most: int) -> Scored:
    """Up to `most` positions whose window is preceded by `prefix` tokens of the same file."""
    hidden, targets, before, total = [], [], list[Sequence[int]](), 0
    for text in subject.test:
        ids = [model.start, *model.encode(text)]
        for begin in range(0, max(1, len(ids) - prefix - 1), WINDOW):
            window = ids[begin : begin + prefix + WINDOW + 1]
            if len(window) < prefix + 17 or total >= most:
                break
            rows = torch.tensor([window], device=model.device)
            states = model.hidden(rows[:, :-1])[0, prefix:]
            hidden.append(states)
            targets.append(rows[0, prefix + 1 :])
            before += suffixes(window, prefix, len(window) - 1)
            total += len(states)
    if not hidden:
        empty = torch.zeros(0, dtype=torch.long)
        return Scored(torch.zeros(0, model.d, dtype=model.dtype), empty)
    return Scored(torch.cat(hidden), torch.cat(targets), before)


@torch.inference_mode()
def site_loss(model: BaseModel, scored: Scored, C: Tensor | None, recall: KnnMemory | None = None) -> float:
    """Mean loss in nat/token under a final map and with what is recalled."""
    total = 0.0
    for start in range(0, len(scored.targets), 1024):
        rows = slice(start, start + 1024)
        h = scored.hidden[rows]
        mapped = h if C is None else h + (h.float() @ C.to(h.device).T).to(h.dtype)
        logits = model.logits(mapped).float()
        if recall is not None:
            logits = recall.interpolate(h, logits, scored.before[rows])
        total += float(torch.nn.functional.cross_entropy(logits, scored.targets[rows], reduction="sum"))
    return total / max(len(scored.targets), 1)
