"""Builds the states of a hypernetwork from texts, from one snapshot or change by change, as the engine does.

The last bits of a chunk embedding may depend on the batch in which it was computed. Embeddings are shared between
measurements, so the batches of a case are fixed: first the chunks of its state, then those of everything else.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch

from c2l_lsp.cooperative import drain
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.hypernet.encoder import in_diff
from c2l_lsp.model.hypernet.protocol import (
    Chunk,
    ChunkEmbedding,
    Hypernetwork,
    RepoState,
    StateChange,
    without_gradients,
)
from c2l_lsp.repo.history.patch import unified_diff

_BATCH = 12

Texts = Mapping[str, str]


class StateBuilder:
    """Builds states of one repository. Each chunk is embedded once."""

    def __init__(self, network: Hypernetwork) -> None:
        self.network = network
        self._embeddings: dict[bytes, ChunkEmbedding] = {}
        self._keys_only: set[bytes] = set()
        self._has_all = False

    @classmethod
    def of(cls, network: Hypernetwork, state: Texts, keys_only: Collection[str] = ()) -> StateBuilder:
        """A builder that has embedded the files of `Case.state`.

        The chunks that the files `keys_only` have in it are embedded as neural keys alone, here and in later states.
        """
        builder = cls(network)
        whole = {chunk.key for path in state if path not in keys_only for chunk in network.chunks(state[path])}
        light = {chunk.key for path in keys_only for chunk in network.chunks(state[path])}
        builder._keys_only = light - whole
        builder._embed(builder._chunks(state))
        return builder

    def embed_all(self, moments: Iterable[Texts]) -> None:
        """Embed all other files of a case in one go. Further calls do nothing."""
        if not self._has_all:
            self._embed([chunk for texts in moments for chunk in self._chunks(texts)])
            self._has_all = True

    def snapshot(self, texts: Texts) -> RepoState:
        """The state of a folder that is opened with these files in it."""
        return self.changed(self.network.empty_state(), {}, texts, first=True)

    def replayed(self, moments: Sequence[Texts]) -> RepoState:
        """The state of a folder that is opened at the first moment and then changes to each later one in turn."""
        state = self.snapshot(moments[0])
        for before, after in itertools.pairwise(moments):
            if before != after:
                state = self.changed(state, before, after)
        return state

    @torch.inference_mode()
    def changed(self, state: RepoState, before: Texts, after: Texts, first: bool = False) -> RepoState:
        """The state after the files `before` have changed to `after`."""
        old, new = self._chunks(before), self._chunks(after)
        new_keys, old_keys = Counter(chunk.key for chunk in new), Counter(chunk.key for chunk in old)
        diffs = [] if first else self.network.diff_chunks(_diff(before, after))
        self._embed([*old, *new])
        self._embed(diffs)
        change = StateChange(
            added=[self._embeddings[key] for key in (new_keys - old_keys).elements()],
            removed=[self._embeddings[key] for key in (old_keys - new_keys).elements()],
            diffs=[self._embeddings[chunk.key] for chunk in diffs],
            first=first,
        )
        return self.network.update([state], [change])[0]

    def adapter(self, state: RepoState) -> Adapter:
        """The adapter generated from a state."""
        return self.network.generate(state)

    def _chunks(self, texts: Texts) -> list[Chunk]:
        found = [chunk for path in sorted(texts) for chunk in self.network.chunks(texts[path])]
        return [without_gradients(chunk) if chunk.key in self._keys_only else chunk for chunk in found]

    def _embed(self, chunks: Sequence[Chunk]) -> None:
        new = {chunk.key: chunk for chunk in chunks if chunk.key not in self._embeddings}
        waiting = sorted(new.values(), key=lambda chunk: (len(chunk.text), chunk.key))
        for start in range(0, len(waiting), _BATCH):
            batch = waiting[start : start + _BATCH]
            embedded = drain(self.network.embed_in_slices(batch))
            self._embeddings |= zip((chunk.key for chunk in batch), embedded, strict=True)


def _diff(before: Texts, after: Texts) -> str:
    paths = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return "".join(unified_diff(before.get(path), after.get(path), path) for path in paths if in_diff(path))
