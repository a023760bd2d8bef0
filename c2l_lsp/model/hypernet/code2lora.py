"""The paper's two hypernetworks: `static` (a repository embedding → LoRA) and `evo` (a GRU over diffs → LoRA).

Source: Code2LoRA, arXiv 2606.06492. Every layer of the base gets the same pair (A_t, B_t) for a projection type t, up
to a coefficient where a trained head has them. The modules are `head`'s, reading files is `checkpoint`'s, embedding
text is `encoder`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from c2l_lsp.errors import StateError
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder, pool_diff, pool_files
from c2l_lsp.model.hypernet.gru import CommitGRU
from c2l_lsp.model.hypernet.lora_head import Code2LoRAHead, expand_to_layers
from c2l_lsp.model.hypernet.protocol import Chunk, ChunkEmbedding, RepoState, StateChange, require
from c2l_lsp.model.runtime.cooperative import Slices


@dataclass(frozen=True)
class Binding:
    """What ties a head to a base: its digest and number of layers, the LoRA alpha, and the name of the weights."""

    base: str
    layers: int
    alpha: float
    weights: str


class _Published:
    """What `static` and `evo` share: a file is one chunk, read into its vector; a context becomes an adapter."""

    kind = ""
    reads_diffs = False

    def __init__(self, head: Code2LoRAHead, encoder: EmbeddingEncoder, binding: Binding) -> None:
        self.head, self.encoder, self.binding = head.eval(), encoder, binding
        self.device = next(head.parameters()).device
        self.digest = _name(f"{self.kind} {binding} {encoder.digest}").hex()

    def chunks(self, text: str) -> list[Chunk]:
        """The whole file as one chunk, since chunks average into files before files are pooled; none if empty."""
        return [Chunk(b"f" + _name(text), text)] if text else []

    def diff_chunks(self, text: str) -> list[Chunk]:
        """The whole diff as one chunk where diffs are read; a blank one is a chunk too (its embedding is zero)."""
        return [Chunk(b"d" + _name(text), text)] if self.reads_diffs else []

    def embed_in_slices(self, chunks: Sequence[Chunk]) -> Slices[list[ChunkEmbedding]]:
        """As `read`, in one slice."""
        yield from ()
        return self.embed(chunks)

    def embed(self, chunks: Sequence[Chunk]) -> list[ChunkEmbedding]:
        """A file gives {"file": [hidden]}, a diff {"chunks": [K, hidden]}, fp32 on the CPU; K is 0 if too short."""
        files = [chunk.text for chunk in chunks if chunk.key[:1] == b"f"]
        diffs = [chunk.text for chunk in chunks if chunk.key[:1] == b"d"]
        rows, diff_rows = iter(self.encoder.files(files)), iter(self.encoder.diff_chunks(diffs))
        return [{"file": next(rows).clone()} if p.key[:1] == b"f" else {"chunks": next(diff_rows)} for p in chunks]

    def update_in_slices(self, states: Sequence[RepoState], changes: Sequence[StateChange]) -> Slices[list[RepoState]]:
        """As `update`, in one slice."""
        yield from ()
        return self.update(states, changes)

    def update(self, states: Sequence[RepoState], changes: Sequence[StateChange]) -> list[RepoState]:
        """See `Hypernetwork`."""
        raise NotImplementedError

    def empty_state(self) -> RepoState:
        """No tensors: the adapter of this state has no weights."""
        return RepoState()

    def check(self, state: RepoState) -> None:
        """The file vectors and a key for each, or nothing."""
        if state.tensors:
            self._check_files(state.tensors)

    def _check_files(self, tensors: Mapping[str, Tensor]) -> None:
        files, keys = torch.empty(0, self.encoder.hidden), torch.empty(0, dtype=torch.long)
        require(tensors, {"files": files, "keys": keys}, rows=("files", "keys"))
        if len(tensors["files"]) != len(tensors["keys"]):
            raise StateError(f"{len(tensors['keys'])} keys do not belong to {len(tensors['files'])} files")

    def _fold(self, tensors: Mapping[str, Tensor], change: StateChange) -> dict[str, Tensor]:
        """The set of file vectors after a change, ordered by key."""
        files = torch.cat([tensors.get("files", torch.empty(0, self.encoder.hidden)), *_rows(change.added)])
        keys = tensors["keys"].tolist() if "keys" in tensors else []
        keys += [_key(row) for row in _rows(change.added)]
        places: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        for row in _rows(change.removed):
            if not places.get(key := _key(row)):
                raise StateError("A file to take out of the adapter's state is not in it; the state is rebuilt.")
            places[key].pop()
        order = [place for key in sorted(places) for place in places[key]]
        return {"keys": torch.tensor([keys[place] for place in order], dtype=torch.long), "files": files[order]}

    def _adapter(self, ctx: Tensor | None) -> Adapter:
        if ctx is None:
            return Adapter(self.binding.base, self.kind)
        with torch.no_grad():
            batch = self.head(ctx[None].to(self.device))
        pairs = {t: (A[0], B[0]) for t, (A, B) in batch.items()}
        scale = self.binding.alpha / self.head.config.rank
        return Adapter(self.binding.base, self.kind, pairs=expand_to_layers(pairs, self.binding.layers, scale))


class Static(_Published):
    """`Hypernetwork` whose state is the set of file vectors and whose context is their pooled embedding.

    State: "files" [F, hidden] in the order of "keys" [F] (a hash of each row, ascending), so that the state is a
    function of the files alone: no path, order or number of updates shows in it. Removing is exact, the maximum too.
    """

    kind = "static"

    def update(self, states: Sequence[RepoState], changes: Sequence[StateChange]) -> list[RepoState]:
        """States with the files of each change added and removed; StateError for a file that is not there."""
        return [RepoState(self._fold(s.tensors, change)) for s, change in zip(states, changes, strict=True)]

    def generate(self, state: RepoState) -> Adapter:
        """The adapter of the pooled files; without files it changes nothing."""
        files = state.tensors.get("files")
        return self._adapter(None if files is None or not len(files) else pool_files(files))


class Evo(_Published):
    """`Hypernetwork` whose state is the GRU's h.

    Until a diff comes, the state is h0 of the files there are, kept as in `Static`. From then on each change with diffs
    is one GRU step on their chunks pooled together, for all folders in one call, and h alone is kept: files that come
    and go enter through their diffs only (a first change brings its snapshot, then its history commit by commit, then
    its diffs). State: "h" [H]; before the first step also "files" and "keys".
    """

    kind = "evo"
    reads_diffs = True

    def __init__(self, head: Code2LoRAHead, gru: CommitGRU, encoder: EmbeddingEncoder, binding: Binding) -> None:
        super().__init__(head, encoder, binding)
        self.gru = gru.eval()

    def check(self, state: RepoState) -> None:
        """h, the file vectors and a key for each, or both; or nothing."""
        tensors = dict(state.tensors)
        h = tensors.pop("h", None)
        if h is not None:
            require({"h": h}, {"h": torch.empty(self.gru.config.hidden_dim)})
        if tensors:
            self._check_files(tensors)

    @torch.no_grad()
    def update(self, states: Sequence[RepoState], changes: Sequence[StateChange]) -> list[RepoState]:
        """States after a step for each commit of their histories and at most one for their diffs.

        Folders step together. StateError for a file that is not there before the first step.
        """
        after = [self._begun(state, change) for state, change in zip(states, changes, strict=True)]
        begins = [i for i, tensors in enumerate(after) if "files" in tensors]
        if begins:
            repositories = torch.stack([pool_files(after[i]["files"]) for i in begins])
            _store(after, begins, self.gru.start(repositories.to(self.device)))
        queues = [[*change.history, *([change.diffs] if change.diffs else [])] for change in changes]
        for depth in range(max(map(len, queues), default=0)):
            self._step(after, {i: queue[depth] for i, queue in enumerate(queues) if depth < len(queue)})
        return [RepoState(tensors) for tensors in after]

    def _step(self, after: list[dict[str, Tensor]], steps: Mapping[int, Sequence[ChunkEmbedding]]) -> None:
        """One GRU step of some folders on the pooled chunks of their diffs."""
        diffs = torch.stack([pool_diff(torch.cat([r["chunks"] for r in readings])) for readings in steps.values()])
        h = torch.stack([after[i]["h"] for i in steps])
        for i in steps:
            after[i] = {"h": after[i]["h"]}
        _store(after, steps, self.gru.step(diffs.to(self.device), h.to(self.device)))

    @torch.no_grad()
    def generate(self, state: RepoState) -> Adapter:
        """The adapter of output_norm(h); of an empty folder it changes nothing."""
        h = state.tensors.get("h")
        return self._adapter(None if h is None else self.gru.context(h.to(self.device)))

    def _begun(self, state: RepoState, change: StateChange) -> dict[str, Tensor]:
        if "h" in state.tensors and "files" not in state.tensors:
            return dict(state.tensors)
        comes = bool(change.diffs or change.history)
        folded = self._fold(state.tensors, change if change.first or not comes else StateChange())
        return folded if len(folded["files"]) or comes else {}


def _store(after: list[dict[str, Tensor]], rows: Iterable[int], h: Tensor) -> None:
    for i, row in zip(rows, h.cpu().unbind(), strict=True):
        after[i]["h"] = row.clone()


def _rows(readings: Iterable[ChunkEmbedding]) -> list[Tensor]:
    return [reading["file"][None] for reading in readings]


def _name(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _key(row: Tensor) -> int:
    digest = hashlib.blake2b(row.contiguous().numpy().tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
