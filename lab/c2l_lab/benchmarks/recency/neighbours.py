"""The kNN memory of a repository while its commits are followed."""

from __future__ import annotations

from c2l_lab.benchmarks.recency.records import Record
from c2l_lsp.model.adapter.key_index import KeyIndex
from c2l_lsp.model.adapter.knn_lm import KnnMemory
from c2l_lsp.model.adapter.token_index import TokenIndex
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory


def memories(memory: GradientMemory, record: Record) -> list[KnnMemory]:
    """The kNN memory after each batch, with both tiers."""
    positions, tokens = KeyIndex.empty(len(memory.prior.keys)).updated(record.first.added), TokenIndex()
    found = []
    for batch in record.batches:
        positions = positions.updated(batch.change.added, batch.change.removed)
        chunks = {name: positions.ids[at + 1 : at + n] for name, (at, n, _) in positions.chunks.items()}
        tokens = tokens.updated(chunks, tokens.chunks.keys() - chunks.keys())
        found.append(KnnMemory(positions, memory.prior.keys, memory.gate, tokens=tokens))
    return found
