"""The paper's two hypernetworks: `static` (a repository embedding → LoRA) and `evo` (a GRU over diffs → LoRA).

Source: Code2LoRA, arXiv 2606.06492. Parameter names and arithmetic are those of its released checkpoints, so that they
load unchanged. Every layer of the base gets the same pair (A_t, B_t) for a projection type t. The modules know tensors
only; `Static` and `Evo` put them behind `Hypernetwork`. Reading files is `checkpoint`'s, embedding text is `encoder`'s.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from msgspec import Meta, Struct
from torch import Tensor, nn

from c2l_lsp.errors import AdapterError, StateError
from c2l_lsp.model.encoder import EmbeddingEncoder, pool_diff, pool_files
from c2l_lsp.model.hypernet import Change, Piece, Reading, RepoState
from c2l_lsp.model.lora import Adapter, Pair

Size = Annotated[int, Meta(ge=1, le=1 << 20)]
BLOCK_OF = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), "self_attn"),
    **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), "mlp"),
}
"""Which part of a decoder layer holds a projection type."""
LOG_SCALE = -3.5
SCALE_RANGE = (1e-5, 0.3)


class HeadConfig(Struct, frozen=True, kw_only=True):
    """Shape of a head. `type_dims` maps a projection type to (in, out); without tasks `task_dim` means nothing."""

    type_dims: Annotated[dict[str, tuple[Size, Size]], Meta(min_length=1)]
    input_dim: Size = 2048
    hidden_dim: Size = 1024
    rank: Annotated[int, Meta(ge=1, le=4096)] = 16
    num_tasks: Annotated[int, Meta(ge=0, le=4096)] = 0
    task_dim: Annotated[int, Meta(ge=0, le=1 << 16)] = 64


class GRUConfig(Struct, frozen=True, kw_only=True):
    """Shape of the GRU: width of a diff embedding, of a repository embedding and of the state."""

    diff_input_dim: Size = 2048
    repo_state_dim: Size = 2048
    hidden_dim: Size = 2048


class Code2LoRAHead(nn.Module):
    """Context vector → one LoRA pair per projection type.

    h = trunk(ctx), h ← h/‖h‖₂·√hidden; A_t = tanh(heads_A_t h)·clamp(exp(s), 1e-5, 0.3) viewed as [rank, in], B_t
    likewise as [out, rank]. The trunk is Linear, GELU, Linear, GELU (exact erf). With tasks, a learned vector of the
    task is appended to the context.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        types = sorted(config.type_dims)
        task_width = config.task_dim if config.num_tasks else 0
        hidden, rank = config.hidden_dim, config.rank
        self.task_embedding = nn.Embedding(config.num_tasks, task_width) if config.num_tasks else None
        if self.task_embedding is not None:
            nn.init.normal_(self.task_embedding.weight, std=0.02)
        self.trunk = nn.Sequential(
            nn.Linear(config.input_dim + task_width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()
        )
        self.heads_A = nn.ModuleDict({t: nn.Linear(hidden, rank * config.type_dims[t][0]) for t in types})
        self.heads_B = nn.ModuleDict({t: nn.Linear(hidden, config.type_dims[t][1] * rank) for t in types})
        self.log_scale_A = nn.ParameterDict({t: nn.Parameter(torch.tensor(LOG_SCALE)) for t in types})
        self.log_scale_B = nn.ParameterDict({t: nn.Parameter(torch.tensor(LOG_SCALE)) for t in types})

    def forward(self, ctx: Tensor, task: Tensor | None = None) -> dict[str, tuple[Tensor, Tensor]]:
        """Pairs {t: (A [N, rank, in], B [N, out, rank])} of contexts [N, D]; [N, K, D] is max-pooled over K.

        `task` [N] holds task indices; absent, every row is task 0. A head without tasks ignores it.
        """
        if ctx.dim() == 3:
            ctx = ctx.amax(dim=1)  # [N, D]
        ctx = ctx.to(self.log_scale_A[next(iter(self.heads_A))].dtype)
        if self.task_embedding is not None:
            index = torch.zeros(len(ctx), dtype=torch.long, device=ctx.device) if task is None else task
            ctx = torch.cat([ctx, self.task_embedding(index)], dim=-1)
        h = F.normalize(self.trunk(ctx), dim=-1) * math.sqrt(self.config.hidden_dim)  # [N, hidden]
        rank, pairs = self.config.rank, {}
        for t in self.heads_A:
            width_in, width_out = self.config.type_dims[t]
            A = torch.tanh(self.heads_A[t](h)).view(-1, rank, width_in) * _scale(self.log_scale_A[t])
            B = torch.tanh(self.heads_B[t](h)).view(-1, width_out, rank) * _scale(self.log_scale_B[t])
            pairs[t] = (A, B)
        return pairs


def _scale(log_scale: Tensor) -> Tensor:
    return log_scale.exp().clamp(*SCALE_RANGE)


class CommitGRU(nn.Module):
    """State of a repository over its commits: h0 from its embedding, one GRU step per diff embedding.

    Gates in torch's order r, z, n: h' = (1 − z)·n + z·h with n = tanh(W_n x + b_n + r·(U_n h + c_n)).
    """

    def __init__(self, config: GRUConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_dim
        self.diff_proj = nn.Sequential(nn.Linear(config.diff_input_dim, width), nn.LayerNorm(width))
        self.repo_init_proj = nn.Sequential(nn.Linear(config.repo_state_dim, width), nn.GELU(), nn.LayerNorm(width))
        self.gru = nn.GRU(width, width, batch_first=True)
        self.output_norm = nn.LayerNorm(width)

    def start(self, repository: Tensor) -> Tensor:
        """h0 [N, H] of repository embeddings [N, repo_state_dim]."""
        h0: Tensor = self.repo_init_proj(repository)
        return h0

    def step(self, diff: Tensor, h: Tensor) -> Tensor:
        """The states [N, H] after diff embeddings [N, diff_input_dim]; rows are folders and do not touch each other."""
        return self.roll(diff[:, None], h)[:, 0]

    def roll(self, diffs: Tensor, h: Tensor) -> Tensor:
        """All states [N, T, H] while T diffs [N, T, diff_input_dim] are folded one after the other, from h [N, H]."""
        states: Tensor = self.gru(self.diff_proj(diffs), h[None].contiguous())[0]
        return states

    def context(self, h: Tensor) -> Tensor:
        """What the head sees of states h [..., H]."""
        ctx: Tensor = self.output_norm(h)
        return ctx


def expand(pairs: Mapping[str, tuple[Tensor, Tensor]], layers: int, scale: float) -> dict[str, Pair]:
    """Pairs {t: (A [rank, in], B [out, rank])} under the name of every layer's projection.

    `scale` is alpha/rank. A is copied for each layer (a safetensors file holds no tensor under two names; an export
    makes its own B), B is shared. AdapterError for a type no decoder layer has.
    """
    unknown = sorted(pairs.keys() - BLOCK_OF.keys())
    if unknown:
        raise AdapterError(f"The hypernetwork makes weights for {', '.join(unknown)}, which no supported model has.")
    return {
        f"model.layers.{i}.{BLOCK_OF[t]}.{t}": Pair(A.clone(), B, scale)
        for i in range(layers)
        for t, (A, B) in pairs.items()
    }


@dataclass(frozen=True)
class Binding:
    """What ties a head to a base: its digest and number of layers, the LoRA alpha, and the name of the weights."""

    base: str
    layers: int
    alpha: float
    weights: str


class _Published:
    """What `static` and `evo` share: a file is one piece, read into its vector; a context becomes an adapter."""

    kind = ""
    reads_diffs = False

    def __init__(self, head: Code2LoRAHead, encoder: EmbeddingEncoder, binding: Binding) -> None:
        self.head, self.encoder, self.binding = head.eval(), encoder, binding
        self.device = next(head.parameters()).device
        self.digest = _name(f"{self.kind} {binding} {encoder.digest}").hex()

    def pieces(self, text: str) -> list[Piece]:
        """The whole file as one piece, since chunks average into files before files are pooled; none if empty."""
        return [Piece(b"f" + _name(text), text)] if text else []

    def diff_pieces(self, text: str) -> list[Piece]:
        """The whole diff as one piece where diffs are read; a blank one is a piece too (its embedding is zero)."""
        return [Piece(b"d" + _name(text), text)] if self.reads_diffs else []

    def read(self, pieces: Sequence[Piece]) -> list[Reading]:
        """A file gives {"file": [hidden]}, a diff {"chunks": [K, hidden]}, fp32 on the CPU; K is 0 if too short."""
        files = [piece.text for piece in pieces if piece.key[:1] == b"f"]
        diffs = [piece.text for piece in pieces if piece.key[:1] == b"d"]
        rows, chunks = iter(self.encoder.files(files)), iter(self.encoder.diff_chunks(diffs))
        return [{"file": next(rows).clone()} if p.key[:1] == b"f" else {"chunks": next(chunks)} for p in pieces]

    def empty(self) -> RepoState:
        """No tensors: the adapter of this state has no weights."""
        return RepoState()

    def _fold(self, tensors: Mapping[str, Tensor], change: Change) -> dict[str, Tensor]:
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
        return Adapter(self.binding.base, self.kind, pairs=expand(pairs, self.binding.layers, scale))


class Static(_Published):
    """`Hypernetwork` whose state is the set of file vectors and whose context is their pooled embedding.

    State: "files" [F, hidden] in the order of "keys" [F] (a hash of each row, ascending), so that the state is a
    function of the files alone: no path, order or number of updates shows in it. Removing is exact, the maximum too.
    """

    kind = "static"

    def update(self, states: Sequence[RepoState], changes: Sequence[Change]) -> list[RepoState]:
        """States with the files of each change added and removed; StateError for a file that is not there."""
        return [RepoState(self._fold(s.tensors, change)) for s, change in zip(states, changes, strict=True)]

    def adapter(self, state: RepoState) -> Adapter:
        """The adapter of the pooled files; without files it changes nothing."""
        files = state.tensors.get("files")
        return self._adapter(None if files is None or not len(files) else pool_files(files))


class Evo(_Published):
    """`Hypernetwork` whose state is the GRU's h.

    Until a diff comes, the state is h0 of the files there are, kept as in `Static`. From then on each change with diffs
    is one GRU step on their chunks pooled together, for all folders in one call, and h alone is kept: files that come
    and go enter through their diffs only (a first change brings its snapshot, then its diffs). State: "h" [H]; before
    the first step also "files" and "keys".
    """

    kind = "evo"
    reads_diffs = True

    def __init__(self, head: Code2LoRAHead, gru: CommitGRU, encoder: EmbeddingEncoder, binding: Binding) -> None:
        super().__init__(head, encoder, binding)
        self.gru = gru.eval()

    @torch.no_grad()
    def update(self, states: Sequence[RepoState], changes: Sequence[Change]) -> list[RepoState]:
        """States after at most one step each; StateError for a file that is not there before the first step."""
        after = [self._begun(state, change) for state, change in zip(states, changes, strict=True)]
        begins = [i for i, tensors in enumerate(after) if "files" in tensors]
        if begins:
            repositories = torch.stack([pool_files(after[i]["files"]) for i in begins])
            _store(after, begins, self.gru.start(repositories.to(self.device)))
        steps = [i for i, change in enumerate(changes) if change.diffs]
        if steps:
            diffs = torch.stack([pool_diff(torch.cat([r["chunks"] for r in changes[i].diffs])) for i in steps])
            h = torch.stack([after[i]["h"] for i in steps])
            after = [{"h": t["h"]} if change.diffs else t for t, change in zip(after, changes, strict=True)]
            _store(after, steps, self.gru.step(diffs.to(self.device), h.to(self.device)))
        return [RepoState(tensors) for tensors in after]

    @torch.no_grad()
    def adapter(self, state: RepoState) -> Adapter:
        """The adapter of output_norm(h); of an empty folder it changes nothing."""
        h = state.tensors.get("h")
        return self._adapter(None if h is None else self.gru.context(h.to(self.device)))

    def _begun(self, state: RepoState, change: Change) -> dict[str, Tensor]:
        if "h" in state.tensors and "files" not in state.tensors:
            return dict(state.tensors)
        folded = self._fold(state.tensors, change if change.first or not change.diffs else Change())
        return folded if len(folded["files"]) or change.diffs else {}


def _store(after: list[dict[str, Tensor]], rows: Iterable[int], h: Tensor) -> None:
    for i, row in zip(rows, h.cpu().unbind(), strict=True):
        after[i]["h"] = row.clone()


def _rows(readings: Iterable[Reading]) -> list[Tensor]:
    return [reading["file"][None] for reading in readings]


def _name(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _key(row: Tensor) -> int:
    digest = hashlib.blake2b(row.contiguous().numpy().tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
