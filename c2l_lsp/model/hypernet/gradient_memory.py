"""`memory`: the repository as the base model's own error on it, summed, preconditioned and clipped into an adapter.

For every token i of a chunk, with final normed hidden state h_i [d], head E [V, d], p = softmax(E h_i), next token y_i:
    e_i = Eᵀ(onehot(y_i) − p)            the descent direction of the loss at the head's input, closed form
    S   = Σ_i (Bᵀ e_i)(A h_i)ᵀ  [R, R]    n = Σ_i 1
    F_e = Σ_i (Bᵀ e_i)(Bᵀ e_i)ᵀ   F_h = Σ_i (A h_i)(A h_i)ᵀ  [R, R]
A state is the sum of S, F_e, F_h and n over the chunks of the repository, so a diff subtracts what went and adds what
came, exactly and in any order. A GRU over features of each batch gates a second, recent memory
    S_rec ← γ S_rec + β (ΔS⁺ − ΔS⁻).
The adapter of the final map, y = E (h + C h), is one damped natural-gradient step (K-FAC) with clipped spectrum:
    C = B [ η ρ(n) clip(P (S/n − S̄) Q) + η_rec ρ(n_rec) φ(n_rec) clip(P S_rec/n_rec Q) ] A,
    ρ(n) = n / (n + n0),    φ(n) = n_fade / (n_fade + n)
P and Q are damped inverses of the curvature of training text and, the more of it was read, of the repository's own:
    P = ((1 − a) (F_e* + λ*I) + a (F_e/n + λI))⁻¹,    a = n / (n + n_own),    Q likewise of F_h.
A few changed lines speak through the recent memory alone; of many changed files S itself tells more, hence φ.
A sum forgets sequences, so the state also keeps a key and the next token of every position, and the adapter recalls
them (`recall`). An empty state gives C = 0 and recalls nothing.
Source: design of this project; K-FAC: arXiv 1503.05671; fast weights: arXiv 2102.11174.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from c2l_lsp.errors import StateError
from c2l_lsp.model.adapter import knn_lm
from c2l_lsp.model.adapter.knn_lm import KnnMemory
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.hypernet import chunking
from c2l_lsp.model.hypernet.output_gradients import output_gradients_in_slices
from c2l_lsp.model.hypernet.prior import MemoryPrior
from c2l_lsp.model.hypernet.protocol import Chunk, ChunkEmbedding, RepoState, StateChange, require
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime.cooperative import Slices, drain

RULE = "memory-4"
"""Version of the cutting and reading rules; part of every key and digest."""

FEATURES = 5
SUMS = ("S", "F_e", "F_h", "n")
_GROUP = 32  # readings that are summed between two slices: some 15 ms
Sums = dict[str, Tensor]
"""What is added up over readings, by the names of SUMS: fp64, [R, R] and [] (n)."""


class GradientMemory:
    """The `memory` hypernetwork over a base model and a prior (see `prior.MemoryPrior`)."""

    kind = "memory"
    reads_diffs = False

    def __init__(self, model: BaseModel, prior: MemoryPrior) -> None:
        self.model, self.prior = model, prior
        self.digest = f"{RULE}/{model.digest}/{prior.digest}"
        self._key_rule = f"{RULE}/{model.digest[:16]}/{prior.digest[:16]}"
        device = model.device
        self._A = None if prior.A is None else prior.A.to(device)
        self._B = None if prior.B is None else prior.B.to(device)
        self._gate = RecencyGate(prior)
        self._curvature = tuple(torch.linalg.inv(inverse.double()) for inverse in (prior.P, prior.Q))

    # --- reading ---------------------------------------------------------------------------------------------------

    def chunks(self, text: str) -> list[Chunk]:
        """Chunks of a file; a chunk without any word is not worth a reading."""
        return [Chunk(chunking.key(c, self._key_rule), c) for c in chunking.split(text) if any(map(str.isalnum, c))]

    def diff_chunks(self, text: str) -> list[Chunk]:
        """None: the difference of the readings is the diff."""
        del text
        return []

    @torch.inference_mode()
    def embed_in_slices(self, chunks: Sequence[Chunk]) -> Slices[list[ChunkEmbedding]]:
        """Readings of one batch of chunks: their positions' Bᵀ e and A h as {v, k: [n, R] int8, v_scale, k_scale: [R]
        fp32}, n: [] fp32, and the datastore entries
        {ids: [n + 2] int32, keys: [n, D] int8} (see `knn_lm.datastore_entries`)."""
        found = yield from output_gradients_in_slices(self.model, [chunk.text for chunk in chunks])
        v = found.e if self._B is None else found.e @ self._B
        k = found.h if self._A is None else found.h @ self._A.T
        counts = torch.bincount(found.chunk, minlength=len(chunks)).tolist()
        out: list[ChunkEmbedding] = []
        start = 0
        for count, ids in zip(counts, found.ids, strict=True):
            rows = slice(start, start + count)
            recalled = knn_lm.datastore_entries(self.prior.keys, found.h[rows], ids)
            out.append({**_reading(v[rows], k[rows]), **recalled, "n": torch.tensor(float(count))})
            start += count
            yield
        return out

    def embed(self, chunks: Sequence[Chunk]) -> list[ChunkEmbedding]:
        """As `reading`, in one go."""
        return drain(self.embed_in_slices(chunks))

    # --- the state -------------------------------------------------------------------------------------------------

    def empty_state(self) -> RepoState:
        """Zero sums, zero recency, zero gate, nothing to recall."""
        sums = drain(_summing([], self.prior.R))
        recent = torch.zeros_like(sums["S"])
        rows = knn_lm.empty_datastore(len(self.prior.keys))
        return RepoState({**sums, "recent": recent, "gate": torch.zeros(self.prior.recency_width), **rows})

    def check(self, state: RepoState) -> None:
        """Names, shapes, dtypes and numbers as `empty` and `update` make them; a key for every recalled position."""
        require(state.tensors, self.empty_state().tensors, rows=("ids", "keys"))
        if float(state.tensors["n"]) < 0:
            raise StateError("n is below 0")
        knn_lm.check(state.tensors, self.model.vocabulary)

    @torch.inference_mode()
    def update_in_slices(self, states: Sequence[RepoState], changes: Sequence[StateChange]) -> Slices[list[RepoState]]:
        """Fold each change into its state; the gate's GRU step runs once for all folders."""
        plus, minus = list[Sums](), list[Sums]()
        for change in changes:
            plus.append((yield from _summing(change.added, self.prior.R)))
            minus.append((yield from _summing(change.removed, self.prior.R)))
        features = torch.stack([self._features(s, p, m) for s, p, m in zip(states, plus, minus, strict=True)])
        hidden, gamma, beta = self._gate(features, torch.stack([state.tensors["gate"] for state in states]))
        out = []
        for index, (state, change) in enumerate(zip(states, changes, strict=True)):
            t = state.tensors
            sums = {name: t[name] + plus[index][name] - minus[index][name] for name in SUMS}
            sums["n"] = sums["n"].clamp(min=0)
            recent, gate = t["recent"], t["gate"]
            rows = knn_lm.updated_datastore(t, change.added, change.removed)
            if not change.first:
                dS = plus[index]["S"] - minus[index]["S"]
                recent = float(gamma[index]) * recent + float(beta[index]) * dS
                gate = hidden[index]
            out.append(RepoState({**sums, "recent": recent, "gate": gate, **rows}))
            yield
        return out

    def update(self, states: Sequence[RepoState], changes: Sequence[StateChange]) -> list[RepoState]:
        """As `updating`, in one go."""
        return drain(self.update_in_slices(states, changes))

    def _features(self, state: RepoState, plus: Sums, minus: Sums) -> Tensor:
        """[FEATURES]: log sizes of what came, went and stands, the change's evidence, its agreement with S_rec."""
        dS, recent = plus["S"] - minus["S"], state.tensors["recent"]
        cosine = (dS * recent).sum() / (dS.norm() * recent.norm()).clamp(min=1e-9)
        evidence = dS.square().sum() / self.prior.scalars.token_energy
        return torch.stack(
            [plus["n"].log1p(), minus["n"].log1p(), state.tensors["n"].log1p(), evidence.log1p(), cosine]
        ).float()

    # --- the adapter -----------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(self, state: RepoState) -> Adapter:
        """The final map of a state, [d, d] fp32 on the CPU, and what it recalls."""
        core = self.core(state)
        if core is not None and self.prior.A is not None and self.prior.B is not None:
            core = self.prior.B @ core @ self.prior.A
        t, prior = state.tensors, self.prior
        recalled = KnnMemory(t["ids"], t["keys"], prior.keys, prior.mixture_gate) if len(t["ids"]) else None
        return Adapter(self.model.digest, self.kind, core, knn=recalled)

    def core(self, state: RepoState) -> Tensor | None:
        """C in the coordinates of the bases, [R, R]; None for an empty state."""
        prior, t = self.prior, state.tensors
        total: Tensor | None = None
        n = float(t["n"])
        P, Q = self._preconditioners(state)
        if n > 0:
            step = clip_spectrum(P @ ((t["S"] / n).float() - prior.mean) @ Q, prior.scalars.clip)
            total = prior.scalars.eta * n / (n + prior.scalars.n0) * step
        energy = float(t["recent"].square().sum())
        if energy > 0 and prior.scalars.eta_recent > 0:
            n_rec = energy / prior.scalars.token_energy
            step = clip_spectrum(P @ (t["recent"] / n_rec).float() @ Q, prior.scalars.clip)
            fade = prior.scalars.fade_recent / (prior.scalars.fade_recent + n_rec)
            recent = prior.scalars.eta_recent * n_rec / (n_rec + prior.scalars.n0_recent) * fade * step
            total = recent if total is None else total + recent
        return total

    def _preconditioners(self, state: RepoState) -> tuple[Tensor, Tensor]:
        """(P, Q) [R, R] fp32 of a state; the prior's own where nothing has been read."""
        prior, n = self.prior, float(state.tensors["n"])
        own = n / (n + prior.scalars.n0_curvature)
        if n <= 0 or own == 0:
            return prior.P, prior.Q
        mixed = []
        for curvature, name in ((self._curvature[0], "F_e"), (self._curvature[1], "F_h")):
            values, vectors = torch.linalg.eigh(state.tensors[name] / n)  # rounding may have left some below zero
            values = values.clamp(min=0) + prior.scalars.damping * values.mean().clamp(min=1e-12)
            mine = (vectors * values) @ vectors.T
            mixed.append(torch.linalg.inv((1 - own) * curvature + own * mine).float())
        return mixed[0], mixed[1]


class RecencyGate(nn.Module):
    """GRU over features of each diff batch; gives decay γ and write strength β in (0, 1) for the recent memory.

    With the weights of an untrained prior (all zero) the gates are the constants σ(bias): training only adds to that.
    """

    def __init__(self, prior: MemoryPrior) -> None:
        super().__init__()
        self.cell = nn.GRUCell(FEATURES, prior.recency_width)
        self.head = nn.Linear(prior.recency_width, 2)
        self.load_state_dict({name.removeprefix("gate."): tensor for name, tensor in prior.recency_gate.items()})
        self.requires_grad_(False)

    def forward(self, features: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """features [F, FEATURES], hidden [F, H] → new hidden [F, H], γ [F], β [F]."""
        hidden = self.cell(features, hidden)
        gates = torch.sigmoid(self.head(hidden))
        return hidden, gates[:, 0], gates[:, 1]


def clip_spectrum(matrix: Tensor, ratio: float) -> Tensor:
    """The matrix with singular values above ratio × their median cut to it: what keeps one step safe."""
    U, s, Vh = torch.linalg.svd(matrix, full_matrices=False)
    limit = ratio * s.median().clamp(min=1e-12)
    return (U * s.clamp(max=float(limit))) @ Vh


def _reading(v: Tensor, k: Tensor) -> ChunkEmbedding:
    """What is kept of a chunk's positions: v, k [n, R]. Their products are sums of whole numbers, exact in fp32 in any
    order for every n a chunk can have, so that what was added is exactly what is taken away."""
    v, v_scale = _quantised(v)
    k, k_scale = _quantised(k)
    return {"v": v, "v_scale": v_scale, "k": k, "k_scale": k_scale}


def _quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [n, R] as int8 with a scale for each column [R] fp32."""
    scale = (rows.abs().amax(0) / 127).clamp(min=1e-12) if len(rows) else torch.ones(rows.shape[1])
    return (rows / scale).round_().to(torch.int8).cpu(), scale.float().cpu()


def _summing(readings: Sequence[ChunkEmbedding], R: int) -> Slices[Sums]:
    """S, F_e, F_h and n of some readings, in fp64. One after the other, in the processor's cache, is several times as
    fast as many at once."""
    sums = {name: torch.zeros(R, R, dtype=torch.float64) for name in ("S", "F_e", "F_h")}
    count = 0
    for number, reading in enumerate(readings, 1):
        v, k = reading["v"].float(), reading["k"].float()
        v_scale, k_scale = reading["v_scale"], reading["k_scale"]
        sums["S"] += (v.T @ k) * torch.outer(v_scale, k_scale)
        sums["F_e"] += (v.T @ v) * torch.outer(v_scale, v_scale)
        sums["F_h"] += (k.T @ k) * torch.outer(k_scale, k_scale)
        count += len(v)
        if number % _GROUP == 0:
            yield
    return {**sums, "n": torch.tensor(float(count), dtype=torch.float64)}
