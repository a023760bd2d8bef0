"""`memory`: the gradients of the base model's loss on the repository, summed and preconditioned into an adapter.

No part of it is trained by gradient descent at run time: the adapter is a closed form of sums over the repository's
tokens. The sums are the state, so a chunk is added or removed by adding or subtracting its terms.

**Gradients.** At token i of a chunk let h_i [d] be the final hidden state, E [V, d] the head, p = softmax(E h_i) and
y_i the next token. The loss −log p(y_i) falls fastest in h_i along the negative gradient

    e_i = Eᵀ (onehot(y_i) − p)                                        [d]

A final map C adds C h_i to h_i, so the negative gradient of the loss with respect to C at C = 0 is Σ e_i h_iᵀ [d, d].

**State.** In wide models, A [R, d] and B [d, R] project h_i and e_i to R dimensions; otherwise R = d and both are the
identity. The state holds, in fp64, sums over all n tokens of the repository:

    S   = Σ (Bᵀ e_i)(A h_i)ᵀ      F_e = Σ (Bᵀ e_i)(Bᵀ e_i)ᵀ      F_h = Σ (A h_i)(A h_i)ᵀ      [R, R]

**Curvature.** F_e/n and F_h/n are the Kronecker factors of the Fisher matrix of C (K-FAC, arXiv 1503.05671). With their
damped inverses P and Q, P (S/n) Q is a natural-gradient step. The curvature is a mixture of two: that of the prior's
training text (F_e*, λ*), and the repository's own, which gets more weight as n grows:

    P = ((1 − a) (F_e* + λ*I) + a (F_e/n + λI))⁻¹       a = n / (n + n0_curvature)       Q likewise from F_h

**Recent memory.** A second sum S_rec follows the latest changes. With ΔS the change of S in an update,

    S_rec ← γ S_rec + ΔS

The decay γ is a constant of the prior. A GRU that sets it from the changes was trained and gained nothing over the best
constants (`c2l-lab bench recency`, docs/benchmarks.md). The number of tokens in S_rec is estimated as
n_rec = ‖S_rec‖² / token_energy, so that text which was removed and added again does not count.

**Adapter.** With S̄ the mean of S/n over training repositories and clip the limit of singular values,

    C = B [ η ρ(n) clip(P (S/n − S̄) Q)  +  η_rec ρ_rec(n_rec) φ(n_rec) clip(P (S_rec/n_rec) Q) ] A
    ρ(n) = n / (n + n0)       ρ_rec(n) = n / (n + n0_recent)       φ(n) = fade_recent / (fade_recent + n)

ρ shrinks the step while little text was read. φ fades the recent memory out after large changes, which S represents
better. The constants are `prior.PriorScalars`. An empty state has no final map.

**kNN memory.** A sum loses the order of tokens. So the state also holds a key and the next token of every position, and
the adapter includes a kNN memory over them (`adapter.knn_lm`). The sums need only a sample of a large repository; all
other chunks are embedded as keys alone (`protocol.without_gradients`), which costs a forward pass without the head.

The design is this project's own; the recent memory is a fast-weight memory in the sense of arXiv 2102.11174.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from c2l_lsp.cooperative import Slices, drain, in_background
from c2l_lsp.errors import StateError
from c2l_lsp.model.adapter import knn_lm, mixture
from c2l_lsp.model.adapter.key_index import KeyIndex, check_entries
from c2l_lsp.model.adapter.knn_lm import KnnMemory
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.adapter.mixture import MixtureGate
from c2l_lsp.model.hypernet import chunking
from c2l_lsp.model.hypernet.output_gradients import output_gradients_in_slices, token_rows
from c2l_lsp.model.hypernet.prior import MemoryPrior
from c2l_lsp.model.hypernet.protocol import (
    ENTRIES,
    Chunk,
    ChunkEmbedding,
    RepoState,
    StateChange,
    key_with_gradients,
    require_tensors,
)
from c2l_lsp.model.lm.base import BaseModel

RULE = "memory-5"
"""Version of the rules for chunks and embeddings. Part of every key and digest: a new value discards old states."""

SUMS = ("S", "F_e", "F_h", "n")
Sums = dict[str, Tensor]
"""Sums over chunks, by the names of SUMS: [R, R] fp64, and n [] fp64."""

MAX_SCALE = 1e6
"""Largest quantisation scale of a loaded embedding. Gradients and final hidden states are many orders smaller."""

MAX_TOKENS = 2**31
"""Largest number of tokens of a loaded state."""

ROUNDING = 1e-6
"""How far below zero, relative to the largest, a sum of squares may be after terms were subtracted from it in fp64."""

_EMBEDDINGS_PER_STEP = 32  # summed in one cooperative step: about 15 ms


class GradientMemory:
    """The hypernetwork `memory` for a base model, with a prior of that model."""

    kind = "memory"
    reads_diffs = False

    def __init__(self, model: BaseModel, prior: MemoryPrior, gate: MixtureGate | None = None) -> None:
        """`gate` of the kNN memory; None: the shipped one."""
        self.model, self.prior, self.gate = model, prior, gate or mixture.load(model.id, model.digest)
        self.digest = f"{RULE}/{model.digest}/{prior.digest}"
        self._key_rule = f"{RULE}/{model.digest[:16]}/{prior.digest[:16]}"
        device = model.device
        self._A = None if prior.A is None else prior.A.to(device)
        self._B = None if prior.B is None else prior.B.to(device)
        self._curvature = tuple(torch.linalg.inv(inverse.double()) for inverse in (prior.P, prior.Q))

    # --- embedding -------------------------------------------------------------------------------------------------

    def chunks(self, text: str) -> list[Chunk]:
        """The chunks of a file that contain at least one letter or digit."""
        return [Chunk(chunking.key(c, self._key_rule), c) for c in chunking.split(text) if any(map(str.isalnum, c))]

    def diff_chunks(self, text: str) -> list[Chunk]:
        """None: the difference of chunk embeddings already represents the diff."""
        del text
        return []

    @torch.inference_mode()
    def embed_in_slices(self, chunks: Sequence[Chunk]) -> Slices[list[ChunkEmbedding]]:
        """The embeddings of one batch of chunks. A chunk with n predicted tokens gives

        | tensor | content |
        |---|---|
        | ids [n + 2] int32, keys [n, D] int8 | the datastore entries of the kNN memory (`knn_lm.datastore_entries`) |
        | v, k [n, R] int8; v_scale, k_scale [R] fp32 | Bᵀ e_i and A h_i, quantised per column; not with `keys_only` |
        | n [] fp32 | the number of tokens; not with `keys_only` |
        """
        light = [chunk for chunk in chunks if chunk.keys_only]
        found = dict(zip(light, (yield from self._embed_keys(light)), strict=True)) if light else {}
        whole = [chunk for chunk in chunks if not chunk.keys_only]
        found |= dict(zip(whole, (yield from self._embed_whole(whole)), strict=True)) if whole else {}
        return [found[chunk] for chunk in chunks]

    def _embed_keys(self, chunks: Sequence[Chunk]) -> Slices[list[ChunkEmbedding]]:
        rows = token_rows(self.model, [chunk.text for chunk in chunks])
        states = yield from self.model.hidden_states_in_slices(rows)
        yield
        return [knn_lm.datastore_entries(self.prior.keys, h[:-1], ids) for h, ids in zip(states, rows, strict=True)]

    def _embed_whole(self, chunks: Sequence[Chunk]) -> Slices[list[ChunkEmbedding]]:
        gradients = yield from output_gradients_in_slices(self.model, [chunk.text for chunk in chunks])
        v = gradients.e if self._B is None else gradients.e @ self._B
        k = gradients.h if self._A is None else gradients.h @ self._A.T
        counts = torch.bincount(gradients.chunk, minlength=len(chunks)).tolist()
        out: list[ChunkEmbedding] = []
        start = 0
        for count, ids in zip(counts, gradients.ids, strict=True):
            rows = slice(start, start + count)
            entries = knn_lm.datastore_entries(self.prior.keys, gradients.h[rows], ids)
            out.append({**_quantised_factors(v[rows], k[rows]), **entries, "n": torch.tensor(float(count))})
            start += count
            yield
        return out

    def embed(self, chunks: Sequence[Chunk]) -> list[ChunkEmbedding]:
        """`embed_in_slices` without pauses."""
        return drain(self.embed_in_slices(chunks))

    def check_embedding(self, key: bytes, embedding: ChunkEmbedding) -> None:
        """Raise StateError unless the tensors are those of `embed_in_slices` for one chunk of known tokens."""
        entries = {name: embedding[name] for name in ENTRIES if name in embedding}
        if entries.keys() != set(ENTRIES):
            raise StateError("a chunk has no entries of the kNN memory")
        check_entries(entries, len(self.prior.keys), self.model.vocabulary)
        if key_with_gradients(key) is not None:
            if len(embedding) != len(ENTRIES):
                raise StateError("a chunk of neural keys alone holds other tensors")
            return
        R, count = self.prior.R, len(embedding["keys"])
        factors, scales = torch.empty(count, R, dtype=torch.int8), torch.empty(R)
        like = {"v": factors, "v_scale": scales, "k": factors, "k_scale": scales, **entries, "n": torch.empty(())}
        require_tensors(embedding, like)
        if float(embedding["n"]) != count:
            raise StateError(f"a chunk of {count} tokens is none")
        if any(float(embedding[name].abs().max()) > MAX_SCALE for name in ("v_scale", "k_scale")):
            raise StateError(f"a scale exceeds {MAX_SCALE:.0e}")

    # --- state -----------------------------------------------------------------------------------------------------

    def empty_state(self) -> RepoState:
        """Zero sums, an empty recent memory and no positions."""
        sums = drain(_sum_in_slices([], self.prior.R))
        tensors = {**sums, "recent": torch.zeros_like(sums["S"])}
        return RepoState(tensors, KeyIndex.empty(len(self.prior.keys)))

    def check(self, state: RepoState) -> None:
        """Raise StateError unless the tensors are those of `empty_state` with finite numbers."""
        require_tensors(state.tensors, self.empty_state().tensors)
        n, F_e, F_h = float(state.tensors["n"]), state.tensors["F_e"], state.tensors["F_h"]
        if not 0 <= n <= MAX_TOKENS or n != int(n):
            raise StateError(f"the number of tokens is {n:g}")
        if any(float(F.diagonal().min()) < -ROUNDING * float(F.diagonal().max().clamp(min=1.0)) for F in (F_e, F_h)):
            raise StateError("a sum of squares is negative")

    @torch.inference_mode()
    def update_in_slices(self, states: Sequence[RepoState], changes: Sequence[StateChange]) -> Slices[list[RepoState]]:
        """The states after their changes."""
        plus, minus = list[Sums](), list[Sums]()
        for change in changes:
            plus.append((yield from _sum_in_slices(change.added, self.prior.R)))
            minus.append((yield from _sum_in_slices(change.removed, self.prior.R)))
        out = []
        for index, (state, change) in enumerate(zip(states, changes, strict=True)):
            t = state.tensors
            sums = {name: t[name] + plus[index][name] - minus[index][name] for name in SUMS}
            sums["n"] = sums["n"].clamp(min=0)
            recent = t["recent"]
            before = state.positions or KeyIndex.empty(len(self.prior.keys))
            positions = yield from in_background(partial(before.updated, change.added, change.removed))
            if not change.first:
                dS = plus[index]["S"] - minus[index]["S"]
                recent = self.prior.scalars.decay * recent + dS
            out.append(RepoState({**sums, "recent": recent}, positions))
            yield
        return out

    def update(self, states: Sequence[RepoState], changes: Sequence[StateChange]) -> list[RepoState]:
        """`update_in_slices` without pauses."""
        return drain(self.update_in_slices(states, changes))

    # --- adapter ---------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(self, state: RepoState) -> Adapter:
        """The adapter of a state: a final map [d, d] fp32 on the CPU and a kNN memory; an empty state has neither."""
        C = self.core(state)
        if C is not None and self.prior.A is not None and self.prior.B is not None:
            C = self.prior.B @ C @ self.prior.A
        positions = state.positions
        knn = KnnMemory(positions, self.prior.keys, self.gate) if positions is not None and len(positions) else None
        return Adapter(self.model.digest, self.kind, C, knn=knn)

    def core(self, state: RepoState) -> Tensor | None:
        """The bracket in the formula of C, [R, R] fp32; None for an empty state."""
        scalars, t = self.prior.scalars, state.tensors
        total: Tensor | None = None
        n = float(t["n"])
        P, Q = self._preconditioners(state)
        if n > 0:
            step = clip_spectrum(P @ ((t["S"] / n).float() - self.prior.mean) @ Q, scalars.clip)
            total = scalars.eta * n / (n + scalars.n0) * step
        energy = float(t["recent"].square().sum())
        if energy > 0 and scalars.eta_recent > 0:
            n_rec = energy / scalars.token_energy
            step = clip_spectrum(P @ (t["recent"] / n_rec).float() @ Q, scalars.clip)
            fade = scalars.fade_recent / (scalars.fade_recent + n_rec)
            recent = scalars.eta_recent * n_rec / (n_rec + scalars.n0_recent) * fade * step
            total = recent if total is None else total + recent
        return total

    def _preconditioners(self, state: RepoState) -> tuple[Tensor, Tensor]:
        """P and Q [R, R] fp32 of a state; those of the prior for an empty state."""
        scalars, n = self.prior.scalars, float(state.tensors["n"])
        own = n / (n + scalars.n0_curvature)
        if n <= 0 or own == 0:
            return self.prior.P, self.prior.Q
        inverses = []
        for curvature, name in ((self._curvature[0], "F_e"), (self._curvature[1], "F_h")):
            values, vectors = torch.linalg.eigh(state.tensors[name] / n)  # rounding may leave some below zero
            values = values.clamp(min=0) + scalars.damping * values.mean().clamp(min=1e-12)
            mine = (vectors * values) @ vectors.T
            inverses.append(torch.linalg.inv((1 - own) * curvature + own * mine).float())
        return inverses[0], inverses[1]


def clip_spectrum(matrix: Tensor, ratio: float) -> Tensor:
    """The matrix with all singular values above ratio × their median reduced to that limit."""
    U, s, Vh = torch.linalg.svd(matrix, full_matrices=False)
    limit = ratio * s.median().clamp(min=1e-12)
    return (U * s.clamp(max=float(limit))) @ Vh


def _quantised_factors(v: Tensor, k: Tensor) -> ChunkEmbedding:
    """v and k [n, R] as int8 with scales.

    Products of int8 factors are integers that fp32 sums exactly, in any order, for every n that a chunk can have. So
    the terms that are subtracted equal the terms that were added, bit for bit.
    """
    v, v_scale = _quantised(v)
    k, k_scale = _quantised(k)
    return {"v": v, "v_scale": v_scale, "k": k, "k_scale": k_scale}


def _quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [n, R] as int8, and a scale for each column [R] fp32."""
    scale = (rows.abs().amax(0) / 127).clamp(min=1e-12) if len(rows) else torch.ones(rows.shape[1])
    return (rows / scale).round_().to(torch.int8).cpu(), scale.float().cpu()


def _sum_in_slices(embeddings: Sequence[ChunkEmbedding], R: int) -> Slices[Sums]:
    """S, F_e, F_h and n of some chunks; those embedded as keys alone have no part in them.

    One chunk at a time: its factors fit the processor's cache, which is several times as fast as one large product.
    """
    sums = {name: torch.zeros(R, R, dtype=torch.float64) for name in ("S", "F_e", "F_h")}
    count = 0
    whole = [embedding for embedding in embeddings if "v" in embedding]
    for number, embedding in enumerate(whole, 1):
        v, k = embedding["v"].float(), embedding["k"].float()
        v_scale, k_scale = embedding["v_scale"], embedding["k_scale"]
        sums["S"] += (v.T @ k) * torch.outer(v_scale, k_scale)
        sums["F_e"] += (v.T @ v) * torch.outer(v_scale, v_scale)
        sums["F_h"] += (k.T @ k) * torch.outer(k_scale, k_scale)
        count += len(v)
        if number % _EMBEDDINGS_PER_STEP == 0:
            yield
    return {**sums, "n": torch.tensor(float(count), dtype=torch.float64)}
