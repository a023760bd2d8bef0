"""The hypernetworks of Code2LoRA: `static` (repository embedding → LoRA) and `evo` (a GRU over diffs → LoRA).

Source: Code2LoRA, arXiv 2606.06492. All layers of the base model get the same pair (A_t, B_t) for a projection type t;
a head trained with coefficients per layer scales B_t for each layer. The networks are in `lora_head` and `gru`, the
text embeddings in `encoder`, the files in `checkpoint`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from c2l_lsp.cooperative import Slices
from c2l_lsp.errors import StateError
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder, pool_diff, pool_files
from c2l_lsp.model.hypernet.gru import CommitGRU
from c2l_lsp.model.hypernet.lora_head import Code2LoRAHead, expand_to_layers
from c2l_lsp.model.hypernet.protocol import Chunk, ChunkEmbedding, RepoState, StateChange, require_tensors
from c2l_lsp.redaction import without_marks

_CHUNK_KEY_BYTES = 17  # "f" or "d", and a hash; the key of a commit is a hash alone


@dataclass(frozen=True)
class Binding:
    """What connects a head to a base model: digest and layers of the base, the LoRA alpha, the digest of the weights.

    Its repr is part of the hypernetwork's digest: renaming the class or a field would discard all saved states.
    """

    base: str
    layers: int
    alpha: float
    weights: str


class _Code2LoRA:
    """What `static` and `evo` share: one chunk per file, and context vector → adapter."""

    kind = ""
    reads_diffs = False

    def __init__(self, head: Code2LoRAHead, encoder: EmbeddingEncoder, binding: Binding) -> None:
        self.head, self.encoder, self.binding = head.eval(), encoder, binding
        self.device = next(head.parameters()).device
        self.digest = _hash(f"{self.kind} {binding} {encoder.digest}").hex()

    def chunks(self, text: str) -> list[Chunk]:
        """The whole file as one chunk, since windows are averaged into files before files are pooled; none if empty."""
        return [Chunk(b"f" + _hash(text), without_marks(text))] if text else []

    def diff_chunks(self, text: str) -> list[Chunk]:
        """The whole diff as one chunk if diffs are read. A blank diff is a chunk too: its embedding is zero."""
        return [Chunk(b"d" + _hash(text), without_marks(text))] if self.reads_diffs else []

    def embed_in_slices(self, chunks: Sequence[Chunk]) -> Slices[list[ChunkEmbedding]]:
        """`embed` as one cooperative step."""
        yield from ()
        return self.embed(chunks)

    def embed(self, chunks: Sequence[Chunk]) -> list[ChunkEmbedding]:
        """{"file": [hidden]} of a file, {"chunks": [K, hidden]} of a diff with K windows; fp32 on the CPU.

        K is 0 for a diff that is shorter than one window.
        """
        files = [chunk.text for chunk in chunks if chunk.key[:1] == b"f"]
        diffs = [chunk.text for chunk in chunks if chunk.key[:1] == b"d"]
        rows, diff_rows = iter(self.encoder.files(files)), iter(self.encoder.diff_chunks(diffs))
        return [{"file": next(rows).clone()} if c.key[:1] == b"f" else {"chunks": next(diff_rows)} for c in chunks]

    def update_in_slices(self, states: Sequence[RepoState], changes: Sequence[StateChange]) -> Slices[list[RepoState]]:
        """`update` as one cooperative step."""
        yield from ()
        return self.update(states, changes)

    def update(self, states: Sequence[RepoState], changes: Sequence[StateChange]) -> list[RepoState]:
        """See `Hypernetwork`."""
        raise NotImplementedError

    def check_embedding(self, key: bytes, embedding: ChunkEmbedding) -> None:
        """Raise StateError unless it is what `embed` gives for the key, or a state of the history (`commit` keys)."""
        hidden = self.encoder.hidden
        if len(key) == _CHUNK_KEY_BYTES and key[:1] == b"f":
            require_tensors(embedding, {"file": torch.empty(hidden)})
        elif len(key) == _CHUNK_KEY_BYTES:
            require_tensors(embedding, {"chunks": torch.empty(0, hidden)}, rows=("chunks",))
        else:
            self.check(RepoState(dict(embedding)))

    def empty_state(self) -> RepoState:
        """A state without tensors, whose adapter has no weights."""
        return RepoState()

    def check(self, state: RepoState) -> None:
        """Raise StateError unless the tensors are file vectors with a key for each, or none."""
        if state.tensors:
            self._check_files(state.tensors)

    def _check_files(self, tensors: Mapping[str, Tensor]) -> None:
        files, keys = torch.empty(0, self.encoder.hidden), torch.empty(0, dtype=torch.long)
        require_tensors(tensors, {"files": files, "keys": keys}, rows=("files", "keys"))
        if len(tensors["files"]) != len(tensors["keys"]):
            raise StateError(f"it has {len(tensors['keys'])} keys for {len(tensors['files'])} files")

    def _updated_files(self, tensors: Mapping[str, Tensor], change: StateChange) -> dict[str, Tensor]:
        """The multiset of file vectors after a change: "files" [F, hidden] and "keys" [F], sorted by key."""
        files = torch.cat([tensors.get("files", torch.empty(0, self.encoder.hidden)), *_rows(change.added)])
        keys = tensors["keys"].tolist() if "keys" in tensors else []
        keys += [_key(row) for row in _rows(change.added)]
        places: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        for row in _rows(change.removed):
            if not places.get(key := _key(row)):
                raise StateError("A file to remove is not in the adapter's state; the state is rebuilt.")
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


class Static(_Code2LoRA):
    """`Hypernetwork` whose state is the multiset of file vectors and whose context vector is their pooled embedding.

    State: "files" [F, hidden], sorted by "keys" [F] int64, the hash of each row. So the state is a function of the
    files alone and does not depend on the order of updates. Removal is exact, for the maximum in the pooling too.
    """

    kind = "static"

    def update(self, states: Sequence[RepoState], changes: Sequence[StateChange]) -> list[RepoState]:
        """The states with files added and removed. Raises StateError if a removed file is not in the state."""
        return [RepoState(self._updated_files(s.tensors, change)) for s, change in zip(states, changes, strict=True)]

    def generate(self, state: RepoState) -> Adapter:
        """The adapter of the pooled files; one without weights if there is no file."""
        files = state.tensors.get("files")
        return self._adapter(None if files is None or not len(files) else pool_files(files))


class Evo(_Code2LoRA):
    """`Hypernetwork` whose state is the hidden state h of a GRU.

    Before the first diff the state is h_0 of the present files, which are stored as in `Static`. From then on, a change
    with diffs is one GRU step on the pooled windows of all its diffs, and files are not stored any more. A first change
    may hold a snapshot, its history (one step per commit) and diffs. State: "h" [H]; before the first step also "files"
    and "keys".
    """

    kind = "evo"
    reads_diffs = True

    def __init__(self, head: Code2LoRAHead, gru: CommitGRU, encoder: EmbeddingEncoder, binding: Binding) -> None:
        super().__init__(head, encoder, binding)
        self.gru = gru.eval()

    def check(self, state: RepoState) -> None:
        """Raise StateError unless the tensors are h, file vectors with a key for each, or both, or none."""
        tensors = dict(state.tensors)
        h = tensors.pop("h", None)
        if h is not None:
            require_tensors({"h": h}, {"h": torch.empty(self.gru.config.hidden_dim)})
        if tensors:
            self._check_files(tensors)

    @torch.no_grad()
    def update(self, states: Sequence[RepoState], changes: Sequence[StateChange]) -> list[RepoState]:
        """The states after one GRU step per commit of the history and one for the diffs, if there are any.

        Each step runs on all folders together. Raises StateError if a removed file is not in a state without steps.
        """
        after = [self._before_steps(state, change) for state, change in zip(states, changes, strict=True)]
        starting = [i for i, tensors in enumerate(after) if "files" in tensors]
        if starting:
            repositories = torch.stack([pool_files(after[i]["files"]) for i in starting])
            _store(after, starting, self.gru.initial_state(repositories.to(self.device)))
        queues = [[*change.history, *([change.diffs] if change.diffs else [])] for change in changes]
        for depth in range(max(map(len, queues), default=0)):
            self._step(after, {i: queue[depth] for i, queue in enumerate(queues) if depth < len(queue)})
        return [RepoState(tensors) for tensors in after]

    def _step(self, after: list[dict[str, Tensor]], steps: Mapping[int, Sequence[ChunkEmbedding]]) -> None:
        """One GRU step of some folders, by index, on the pooled windows of their diffs."""
        diffs = torch.stack([pool_diff(torch.cat([e["chunks"] for e in embeddings])) for embeddings in steps.values()])
        h = torch.stack([after[i]["h"] for i in steps])
        for i in steps:
            after[i] = {"h": after[i]["h"]}
        _store(after, steps, self.gru.step(diffs.to(self.device), h.to(self.device)))

    @torch.no_grad()
    def generate(self, state: RepoState) -> Adapter:
        """The adapter of the context vector output_norm(h); one without weights for an empty state."""
        h = state.tensors.get("h")
        return self._adapter(None if h is None else self.gru.context(h.to(self.device)))

    def _before_steps(self, state: RepoState, change: StateChange) -> dict[str, Tensor]:
        """The tensors of a state before the GRU steps of a change; with "files" if h_0 must be computed from them."""
        if "h" in state.tensors and "files" not in state.tensors:
            return dict(state.tensors)
        has_steps = bool(change.diffs or change.history)
        # a change with diffs counts through them, unless it is the first: then its files are the snapshot before
        tensors = self._updated_files(state.tensors, change if change.first or not has_steps else StateChange())
        return tensors if len(tensors["files"]) or has_steps else {}


def _store(after: list[dict[str, Tensor]], rows: Iterable[int], h: Tensor) -> None:
    for i, row in zip(rows, h.cpu().unbind(), strict=True):
        after[i]["h"] = row.clone()


def _rows(embeddings: Iterable[ChunkEmbedding]) -> list[Tensor]:
    return [embedding["file"][None] for embedding in embeddings]


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _key(row: Tensor) -> int:
    digest = hashlib.blake2b(row.contiguous().numpy().tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
