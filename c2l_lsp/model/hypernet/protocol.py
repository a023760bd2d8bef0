"""What every hypernetwork is to the rest: a map from a repository's text to an adapter, updated by differences.

Work comes in three steps so that the engine can slice, cache and batch it:
`pieces` cuts a text (cheap), `reading` turns pieces into readings on the device (the expensive step, one batch a call,
pieces of any folders together; it yields where a completion may come in between), `update` folds readings into states
(one batched call for all folders that changed).
A reading depends on its piece alone, so it is cached by the piece's key and subtracted exactly when the piece goes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from c2l_lsp.errors import StateError
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.runtime.cooperative import Slices


@dataclass(frozen=True)
class Chunk:
    """A part of a text that is read on its own. `key` names its content (and the rule that cut it)."""

    key: bytes
    text: str


ChunkEmbedding = Mapping[str, Tensor]
"""Named tensors on the CPU that a piece was turned into; what is stored is exactly what is folded."""


@dataclass(frozen=True)
class StateChange:
    """What one update folds into one state: readings that came, readings that went, and the diffs' own readings.

    `history` is what happened between the snapshot `added` and now, one entry of diff readings a commit, oldest first.
    `first` marks the initial snapshot: it is what the repository is, not something that just happened.
    """

    added: Sequence[ChunkEmbedding] = ()
    removed: Sequence[ChunkEmbedding] = ()
    diffs: Sequence[ChunkEmbedding] = ()
    history: Sequence[Sequence[ChunkEmbedding]] = ()
    first: bool = False


@dataclass
class RepoState:
    """The recurrent state of one folder: named tensors. A plain value; a new one is made at each update."""

    tensors: dict[str, Tensor] = field(default_factory=dict)

    def clone(self) -> RepoState:
        """A copy that shares nothing."""
        return RepoState({name: tensor.clone() for name, tensor in self.tensors.items()})


def require(found: Mapping[str, Tensor], like: Mapping[str, Tensor], rows: Collection[str] = ()) -> None:
    """StateError unless `found` has the names, shapes and dtypes of `like` (of `rows` any number) and is finite."""
    if found.keys() != like.keys():
        raise StateError(f"it holds {', '.join(sorted(found))} where {', '.join(sorted(like))} are expected")
    for name, wanted in like.items():
        tensor = found[name]
        shape, expected = tuple(tensor.shape), tuple(wanted.shape)
        if name in rows:
            shape, expected = shape[1:], expected[1:]
        if tensor.dtype != wanted.dtype or tensor.dim() != wanted.dim() or shape != expected:
            raise StateError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not {wanted.dtype} {tuple(wanted.shape)}"
            )
        if not bool(tensor.isfinite().all()):
            raise StateError(f"{name} holds numbers that are not finite")


class Hypernetwork(Protocol):
    """One way of turning a repository into an adapter. A new way is a new file and a row in `engine.kinds.KINDS`.

    `kind` is its name in settings. `digest` names its weights and rules: readings and states of another digest are not
    compatible. `reads_diffs` says whether `Change.diffs` (unified diffs of production files) must be read too.
    """

    kind: str
    digest: str
    reads_diffs: bool

    def chunks(self, text: str) -> list[Chunk]:
        """The parts of a file's text that are read."""
        ...

    def diff_chunks(self, text: str) -> list[Chunk]:
        """The parts of a unified diff that are read; empty when `reads_diffs` is false."""
        ...

    def embed_in_slices(self, chunks: Sequence[Chunk]) -> Slices[list[ChunkEmbedding]]:
        """Readings of some pieces, in their order: one batch on the device, in slices."""
        ...

    def empty_state(self) -> RepoState:
        """The state of a folder without any text; its adapter changes nothing."""
        ...

    def check(self, state: RepoState) -> None:
        """StateError unless a state that was read from a disk is one of this hypernetwork, whole and finite."""
        ...

    def update_in_slices(self, states: Sequence[RepoState], changes: Sequence[StateChange]) -> Slices[list[RepoState]]:
        """The states after their changes: one batched step on the device for all folders, in slices."""
        ...

    def update(self, states: Sequence[RepoState], changes: Sequence[StateChange]) -> list[RepoState]:
        """As `updating`, in one go."""
        ...

    def generate(self, state: RepoState) -> Adapter:
        """The adapter of a state, in one pass."""
        ...
