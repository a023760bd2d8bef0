"""Embedded commit streams: what `memory` reads of each commit, and the positions that the next commit is scored at.

Embeddings and hidden states are those of the frozen base model, so they are computed once per model and stored.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from c2l_lab.benchmarks.recency.streams import Hunk, Sizes, Snapshot, hunks, read_stream
from c2l_lab.repositories.source import rank
from c2l_lab.train.memory.held_out import ScoredText
from c2l_lsp.model.adapter.knn_lm import suffixes
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory
from c2l_lsp.model.hypernet.protocol import StateChange

Report = Callable[[str], None]

PREFIX = 320
"""Tokens of the same file before a scored hunk, at most."""

HUNK = 80
"""Tokens of a hunk that are scored, at most."""

HUNKS = 3
"""Hunks of a commit that are scored, at most."""

_BATCH = 12  # chunks embedded at once


@dataclass(frozen=True)
class Batch:
    """One commit: what it changes, and the positions in the lines that the next commit adds.

    hours: since the batch before. files: changed files. again: the share of them that the batch before changed too.
    """

    change: StateChange
    scored: ScoredText
    hours: float
    files: int
    again: float


@dataclass(frozen=True)
class Record:
    """The embedded stream of a repository: the first state's change and the batches after it."""

    name: str
    first: StateChange
    batches: list[Batch]


def make_records(
    memory: GradientMemory, names: Sequence[str], mirror: Path, folder: Path, sizes: Sizes, report: Report
) -> list[Record]:
    """The records of repositories, from their files in `folder`; missing ones are made, unusable ones are skipped."""
    found = []
    for name in names:
        stem = folder / f"{name.replace('/', '+')}-{memory.model.digest[:8]}"
        done, refused = Path(f"{stem}.safetensors"), Path(f"{stem}.txt")
        if not done.is_file() and not refused.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            stream = read_stream(name, mirror, sizes)
            if isinstance(stream, str):
                refused.write_text(stream, "utf-8")
            else:
                _save(memory, stream, done)
        if refused.is_file():
            report(f"{name}: skipped, {refused.read_text('utf-8')}")
            continue
        found.append(_load(name, done))
        report(
            f"{name}: {len(found[-1].batches)} batches, {sum(len(b.scored.targets) for b in found[-1].batches)} scored"
        )
    return found


@torch.inference_mode()
def _save(memory: GradientMemory, stream: Sequence[Snapshot], file: Path) -> None:
    chunks = {c.key: c for snapshot in stream[:-1] for text in snapshot.texts.values() for c in memory.chunks(text)}
    ordered = sorted(chunks.values(), key=lambda c: len(c.text))
    tensors: dict[str, Tensor] = {}
    for start in range(0, len(ordered), _BATCH):
        batch = ordered[start : start + _BATCH]
        for chunk, embedding in zip(batch, memory.embed(batch), strict=True):
            tensors |= {f"chunk\t{chunk.key.hex()}\t{name}": tensor.contiguous() for name, tensor in embedding.items()}
    counts = [
        Counter(c.key.hex() for t in snapshot.texts.values() for c in memory.chunks(t)) for snapshot in stream[:-1]
    ]
    batches, earlier = [], set[str]()
    for at in range(1, len(stream) - 1):
        before, now = stream[at - 1], stream[at]
        changed = {p for p in before.texts.keys() | now.texts.keys() if before.texts.get(p) != now.texts.get(p)}
        rows = _scored_rows(memory, list(hunks(now, stream[at + 1])))
        for number, (window, begin) in enumerate(rows):
            ids = torch.tensor([window])
            hidden = memory.model.hidden(ids[:, :-1])[0, begin:]
            tensors[f"row\t{at}\t{number}\tids"] = ids[0].int()
            tensors[f"row\t{at}\t{number}\thidden"] = hidden.contiguous().clone()
        batches.append(
            {
                "added": list((counts[at] - counts[at - 1]).elements()),
                "removed": list((counts[at - 1] - counts[at]).elements()),
                "rows": [begin for _, begin in rows],
                "hours": max(0.0, (now.time - before.time) / 3600),
                "files": len(changed),
                "again": len(changed & earlier) / max(1, len(changed)),
            }
        )
        earlier = changed
    about = {"first": list(counts[0].elements()), "batches": batches}
    part = file.with_suffix(".part")
    save_file(tensors, part, metadata={"about": json.dumps(about)})
    part.replace(file)


def _scored_rows(memory: GradientMemory, found: Sequence[Hunk]) -> list[tuple[list[int], int]]:
    """(ids, first scored position) of the hunks of a commit, chosen by a hash of their text."""
    rows = []
    for hunk in sorted(found, key=lambda h: rank(h.added))[:HUNKS]:
        ids = [memory.model.start_id, *memory.model.encode(hunk.before[-4 * PREFIX :])[-PREFIX:]]
        added = memory.model.encode(hunk.added)[:HUNK]
        rows.append(([*ids, *added], len(ids) - 1))
    return rows


def _load(name: str, file: Path) -> Record:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        about = json.loads((opened.metadata() or {})["about"])
    tensors = load_file(file)
    embeddings: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        kind, identity, *rest = key.split("\t")
        if kind == "chunk":
            embeddings.setdefault(identity, {})[rest[0]] = tensor
    first = StateChange(added=[embeddings[key] for key in about["first"]], first=True)
    batches = []
    for at, line in enumerate(about["batches"], 1):
        change = StateChange(
            added=[embeddings[key] for key in line["added"]], removed=[embeddings[key] for key in line["removed"]]
        )
        hidden, targets, before = [torch.zeros(0, 0)], [torch.zeros(0, dtype=torch.long)], list[Sequence[int]]()
        for number, begin in enumerate(line["rows"]):
            ids = tensors[f"row\t{at}\t{number}\tids"].long()
            hidden.append(tensors[f"row\t{at}\t{number}\thidden"])
            targets.append(ids[begin + 1 :])
            before += suffixes(ids.tolist(), begin, len(ids) - 1)
        joined = torch.cat(hidden[1:]) if len(hidden) > 1 else hidden[0]
        scored = ScoredText(joined, torch.cat(targets), before)
        batches.append(Batch(change, scored, line["hours"], line["files"], line["again"]))
    return Record(name, first, batches)
