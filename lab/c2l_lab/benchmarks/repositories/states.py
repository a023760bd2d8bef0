"""States of a hypernetwork over texts, snapshot or followed change by change, as the engine folds them.

A reading may differ in its last bits with the batch it was made in. Readings are shared between measurements, so the
batches of a case are fixed: those of its state first, then those of everything else it holds.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch

from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.hypernet.encoder import in_diff
from c2l_lsp.model.hypernet.protocol import Chunk, ChunkEmbedding, Hypernetwork, RepoState, StateChange
from c2l_lsp.model.runtime.cooperative import drain
from c2l_lsp.repo.history.patch import unified_diff

_BATCH = 12

Texts = Mapping[str, str]


class Follower:
    """Folds texts of one repository; every piece is read once."""

    def __init__(self, network: Hypernetwork) -> None:
        self.network = network
        self._readings: dict[bytes, ChunkEmbedding] = {}
        self._met = False

    @classmethod
    def of(cls, network: Hypernetwork, state: Texts) -> Follower:
        """A follower that has read a state's files, as `Case.state` has them."""
        follower = cls(network)
        follower._read(follower._pieces(state))
        return follower

    def meet(self, moments: Iterable[Texts]) -> None:
        """Read all other files of a case at once, once."""
        if not self._met:
            chunks = [chunk for texts in moments for chunk in self._pieces(texts)]
            self._read(chunks)
            self._met = True

    def snapshot(self, texts: Texts) -> RepoState:
        """The state of a folder that is opened with these files in it."""
        return self.changed(self.network.empty_state(), {}, texts, first=True)

    def followed(self, moments: Sequence[Texts]) -> RepoState:
        """The state of a folder that was opened at the first moment and has seen the others come, oldest first."""
        state = self.snapshot(moments[0])
        for before, after in itertools.pairwise(moments):
            if before != after:
                state = self.changed(state, before, after)
        return state

    @torch.inference_mode()
    def changed(self, state: RepoState, before: Texts, after: Texts, first: bool = False) -> RepoState:
        """The state after the files `before` have become `after`."""
        old, new = self._pieces(before), self._pieces(after)
        came, went = Counter(p.key for p in new), Counter(p.key for p in old)
        diffs = [] if first else self.network.diff_chunks(_diff(before, after))
        self._read([*old, *new])
        self._read(diffs)
        change = StateChange(
            added=[self._readings[key] for key in (came - went).elements()],
            removed=[self._readings[key] for key in (went - came).elements()],
            diffs=[self._readings[chunk.key] for chunk in diffs],
            first=first,
        )
        return self.network.update([state], [change])[0]

    def adapter(self, state: RepoState) -> Adapter:
        """The adapter of a state."""
        return self.network.generate(state)

    def _pieces(self, texts: Texts) -> list[Chunk]:
        return [chunk for path in sorted(texts) for chunk in self.network.chunks(texts[path])]

    def _read(self, chunks: Sequence[Chunk]) -> None:
        new = {chunk.key: chunk for chunk in chunks if chunk.key not in self._readings}
        waiting = sorted(new.values(), key=lambda chunk: (len(chunk.text), chunk.key))
        for start in range(0, len(waiting), _BATCH):
            batch = waiting[start : start + _BATCH]
            self._readings |= zip(
                (chunk.key for chunk in batch), drain(self.network.embed_in_slices(batch)), strict=True
            )


def _diff(before: Texts, after: Texts) -> str:
    paths = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return "".join(unified_diff(before.get(path), after.get(path), path) for path in paths if in_diff(path))
