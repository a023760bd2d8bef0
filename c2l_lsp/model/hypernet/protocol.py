"""What a hypernetwork is: read this page first.

A hypernetwork turns the text of a repository into an adapter: weights for the base model that fit this repository. The
engine holds one `RepoState` per folder and calls a hypernetwork in four steps:

    text ──chunks──▶ chunks ──embed──▶ embeddings ──update──▶ state ──generate──▶ adapter

| step | method | cost | result |
|---|---|---|---|
| chunk | `chunks`, `diff_chunks` | microseconds | parts of a file, each with a key that names its content |
| embed | `embed_in_slices` | a forward pass of the model per chunk | named tensors, cached under the chunk's key |
| update | `update_in_slices` | matrix sums, one call for all changed folders | the new state |
| generate | `generate` | one pass | the adapter, which the engine validates and publishes |

An embedding depends on its chunk alone. This has three consequences:

1. A changed file costs the embedding of its changed chunks; all other embeddings come from the cache.
2. When a chunk leaves the repository, its embedding is loaded from the cache and subtracted. For `memory` and `static`
   the result is the state of a repository that never had the chunk (for `memory` up to fp64 rounding of its sums).
3. A batch may mix chunks of several folders.

`embed_in_slices` and `update_in_slices` are cooperative: they yield about every 20 ms, and the engine runs completions
there.

To add a hypernetwork, write a class with the members of `Hypernetwork` in a new file of this folder, and add a row to
`KINDS` in `c2l_lsp/engine/adaptation/registry.py`. The name of the row becomes a value of the setting
`c2l.adapter.hypernetwork`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from c2l_lsp.cooperative import Slices
from c2l_lsp.errors import StateError
from c2l_lsp.model.adapter.key_index import KeyIndex
from c2l_lsp.model.adapter.lora import Adapter


@dataclass(frozen=True)
class Chunk:
    """A part of a text that is embedded on its own. `key` is a hash of the text and of the rule that cut it.

    `keys_only`: the embedding holds neural keys and nothing else, see `without_gradients`.
    """

    key: bytes
    text: str
    keys_only: bool = False


_KEYS_ONLY = b"k"  # follows the 16 bytes of a chunk's key
_KEY_BYTES = 16


def without_gradients(chunk: Chunk) -> Chunk:
    """The chunk as a source of neural keys alone: its embedding is cheaper to compute and to store."""
    return Chunk(chunk.key + _KEYS_ONLY, chunk.text, keys_only=True)


def key_with_gradients(key: bytes) -> bytes | None:
    """The key of the same chunk's whole embedding; None if `key` is that of a whole one."""
    return key[:_KEY_BYTES] if len(key) > _KEY_BYTES and key.endswith(_KEYS_ONLY) else None


ENTRIES = ("ids", "keys")
"""The tensors of an embedding of neural keys alone; a whole embedding of `memory` has them too."""

ChunkEmbedding = Mapping[str, Tensor]
"""Named tensors on the CPU, computed from one chunk. The cache stores them without loss."""


@dataclass(frozen=True)
class StateChange:
    """The difference between two versions of a repository, as embeddings.

    `added` and `removed` belong to the chunks that differ, `diffs` to the text of the unified diff (empty unless the
    hypernetwork has `reads_diffs`). `history` holds the diff embeddings of commits between the snapshot `added` and the
    present, one entry per commit, oldest first. `first` marks a change that is not a recent event, such as the initial
    snapshot: it must not affect the recent memory.
    """

    added: Sequence[ChunkEmbedding] = ()
    removed: Sequence[ChunkEmbedding] = ()
    diffs: Sequence[ChunkEmbedding] = ()
    history: Sequence[Sequence[ChunkEmbedding]] = ()
    first: bool = False


@dataclass
class RepoState:
    """The state of one repository: named tensors on the CPU. An update returns a new state and keeps the old one.

    `positions`: the neural keys of `memory`, else None. A saved generation does not hold them: they are read from the
    cache of embeddings.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    positions: KeyIndex | None = None


def require_tensors(found: Mapping[str, Tensor], like: Mapping[str, Tensor], rows: Collection[str] = ()) -> None:
    """Raise StateError unless `found` has the names, dtypes and shapes of `like` and all its numbers are finite.

    Tensors named in `rows` may have any number of rows.
    """
    if found.keys() != like.keys():
        raise StateError(f"expected the tensors {', '.join(sorted(like))}, found {', '.join(sorted(found))}")
    for name, wanted in like.items():
        tensor = found[name]
        shape, expected = tuple(tensor.shape), tuple(wanted.shape)
        if name in rows:
            shape, expected = shape[1:], expected[1:]
        if tensor.dtype != wanted.dtype or tensor.dim() != wanted.dim() or shape != expected:
            raise StateError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}, expected {wanted.dtype} {tuple(wanted.shape)}"
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise StateError(f"{name} contains numbers that are not finite")


class Hypernetwork(Protocol):
    """A function from a repository's text to an adapter, computed incrementally. See the module's page."""

    kind: str
    """Name in the settings and in adapters."""

    digest: str
    """Identifies weights and rules. Embeddings and states of another digest are discarded."""

    reads_diffs: bool
    """Whether `StateChange.diffs` and `history` are needed: unified diffs of production files."""

    def chunks(self, text: str) -> list[Chunk]:
        """The chunks of a file; may be empty."""
        ...

    def diff_chunks(self, text: str) -> list[Chunk]:
        """The chunks of a unified diff; empty if `reads_diffs` is False."""
        ...

    def embed_in_slices(self, chunks: Sequence[Chunk]) -> Slices[list[ChunkEmbedding]]:
        """The embeddings of some chunks, in their order: one batch on the device, in cooperative steps."""
        ...

    def check_embedding(self, key: bytes, embedding: ChunkEmbedding) -> None:
        """Raise StateError unless a loaded embedding is one that this hypernetwork can have made for the key."""
        ...

    def empty_state(self) -> RepoState:
        """The state of a repository without text. Its adapter changes nothing."""
        ...

    def check(self, state: RepoState) -> None:
        """Raise StateError unless a loaded state has the tensors of this hypernetwork and only finite numbers."""
        ...

    def update_in_slices(self, states: Sequence[RepoState], changes: Sequence[StateChange]) -> Slices[list[RepoState]]:
        """The states after their changes: one batch for all folders, in cooperative steps."""
        ...

    def update(self, states: Sequence[RepoState], changes: Sequence[StateChange]) -> list[RepoState]:
        """`update_in_slices` without pauses."""
        ...

    def generate(self, state: RepoState) -> Adapter:
        """The adapter of a state."""
        ...
