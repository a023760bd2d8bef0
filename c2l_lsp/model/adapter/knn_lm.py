"""kNN memory: mixes the tokens that followed similar positions in the repository into the model's probabilities.

This is the kNN-LM of Khandelwal et al. 2020 (arXiv 1911.00172) with two changes: only positions with the same last
token are compared, and the interpolation weight λ is computed at every position by a small logistic model, the mixture
gate. After tokens …, x₋₁, x₀ with final hidden state h [d]:

    candidates  all positions j of the repository whose last token is x₀
    s_j = cos(W h, W h_j) / τ + ρ · m_j         m_j: number of equal tokens before both positions, x₀ included
    r(y) = Σ_{j: next_j = y} softmax(s)_j       over the NEIGHBOURS candidates with the highest s_j
    p(y) = (1 − λ) p_LM(y) + λ r(y),            λ = min(MAX_KNN_WEIGHT, strength · σ(bias + weights · features))

W [D, d] maps a hidden state to a key, m_j is at most MAX_MATCH. The kNN memory adds no text to the prompt and changes
no KV cache. Its datastore is a multiset of chunks, so the entries of a chunk that left the repository are removed
exactly.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from c2l_lsp.errors import AdapterError, StateError
from c2l_lsp.model.runtime import kernel
from c2l_lsp.model.runtime.kernel import MAX_MATCH, Int32Array
from c2l_lsp.model.runtime.logits import Float32Array, LogitSummary, logaddexp_at, summarize

NEIGHBOURS = 32
"""Nearest neighbours that vote: k of the kNN-LM."""

MAX_KNN_WEIGHT = 0.95
"""Upper bound of λ: the base model always keeps 5 % of the probability."""

FEATURES = (
    "highest neighbour probability",  # max r
    "highest cosine",
    "longest match",  # max m_j / MAX_MATCH
    "highest model probability",  # max p_LM
    "same argmax",  # 1 if r and p_LM have the same most likely token
    "log candidates",  # log(1 + number of candidates) / 8
    "neighbours against model",  # max r · (1 − max p_LM)
)
"""Inputs of the mixture gate, in the order of its weights."""

_MAX_CANDIDATES = 4096  # of more, every n-th is compared: they share only a frequent token, such as a line break
_BOUNDARY = -1  # first id of every chunk; equals no token, so a match never extends beyond its chunk


@dataclass(frozen=True)
class MixtureGate:
    """Scores the candidates (τ, ρ) and computes λ by logistic regression on FEATURES.

    `temperature` is τ, `match_weight` is ρ. `c2l_lab.train.memory.mixture_gate` fits all ten numbers.
    """

    temperature: float = 0.07
    match_weight: float = 0.6
    bias: float = -6.88
    weights: tuple[float, ...] = (1.31, 4.53, 1.77, -1.04, 0.32, 0.29, 1.23)

    def vote(self, neighbours: Neighbours, top_probability: float, top_token: int) -> NeighbourVote:
        """The distribution r and the features at one position.

        `top_token` is the most likely token of the base model and `top_probability` its probability.
        """
        score = neighbours.cosines / self.temperature + self.match_weight * neighbours.match_lengths
        weight = np.exp(score - score.max())
        total = float(weight.sum())
        r: dict[int, float] = {}  # for a few dozen neighbours faster than np.unique
        for token, part in zip(neighbours.next_tokens.tolist(), weight.tolist(), strict=True):
            r[token] = r.get(token, 0.0) + part / total
        best, highest = max(r.items(), key=itemgetter(1))
        features = (
            highest, float(neighbours.cosines.max()), float(neighbours.match_lengths.max()) / MAX_MATCH,
            top_probability, float(best == top_token), math.log1p(neighbours.candidates) / 8,
            highest * (1 - top_probability),
        )  # fmt: skip
        return NeighbourVote(np.array([*r], np.int32), np.array([*r.values()]), np.array(features))

    def interpolation_weight(self, features: NDArray[np.float64]) -> float:
        """λ at strength 1, in (0, 1)."""
        logit = self.bias + sum(weight * value for weight, value in zip(self.weights, features.tolist(), strict=True))
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))

    def to_list(self) -> list[float]:
        """The numbers in the order in which they are stored: τ, ρ, bias, weights."""
        return [self.temperature, self.match_weight, self.bias, *self.weights]

    @classmethod
    def from_list(cls, numbers: Sequence[float]) -> MixtureGate:
        """The inverse of `to_list`. Raises ValueError if the count is wrong."""
        if len(numbers) != 3 + len(FEATURES):
            raise ValueError(f"a mixture gate has {3 + len(FEATURES)} numbers, not {len(numbers)}")
        return cls(numbers[0], numbers[1], numbers[2], tuple(numbers[3:]))


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of a position: cosines and match lengths [k] fp32, next tokens [k] int32.

    `candidates` is the number of positions with the same last token.
    """

    cosines: Float32Array
    match_lengths: Float32Array
    next_tokens: Int32Array
    candidates: int


@dataclass(frozen=True)
class NeighbourVote:
    """The distribution r as tokens [m] and probabilities [m], and the features of the mixture gate."""

    tokens: Int32Array
    probabilities: NDArray[np.float64]
    features: NDArray[np.float64]

    def probability(self, token: int) -> float:
        """r(token); 0 if no neighbour is followed by it."""
        return float(self.probabilities[self.tokens == token].sum())


def compute_keys(basis: Tensor, hidden: Tensor) -> Tensor:
    """Keys W h / ‖W h‖ [N, D] fp32 of final hidden states [N, d]."""
    return torch.nn.functional.normalize(hidden.float() @ basis.to(hidden.device).T, dim=1)


def datastore_entries(basis: Tensor, hidden: Tensor, ids: Sequence[int]) -> dict[str, Tensor]:
    """The datastore entries of one chunk, on the CPU.

    `ids` are the start token and the n tokens of the chunk; `hidden` [n, d] are the states at all of them but the last.
    Returns ids [n + 2] int32 (a boundary, then `ids`) and keys [n, D] int8: round(127 · key).
    """
    keys = (compute_keys(basis, hidden) * 127).round().to(torch.int8).cpu()
    return {"ids": torch.tensor([_BOUNDARY, *ids], dtype=torch.int32), "keys": keys}


def empty_datastore(width: int) -> dict[str, Tensor]:
    """A datastore without entries, for keys of `width` numbers."""
    return {"ids": torch.zeros(0, dtype=torch.int32), "keys": torch.zeros(0, width, dtype=torch.int8)}


def check(datastore: Mapping[str, Tensor], vocabulary: int) -> None:
    """Raise StateError unless a loaded datastore is made of whole chunks of known tokens with a key per position."""
    ids, count = datastore["ids"], len(datastore["keys"])
    boundaries = (ids == _BOUNDARY).nonzero()[:, 0]
    if len(ids) and (int(ids.min()) < _BOUNDARY or int(ids.max()) >= vocabulary):
        raise StateError("the kNN memory has token ids outside the model's vocabulary")
    whole = bool((torch.diff(boundaries, append=torch.tensor([len(ids)])) >= 2).all())
    if (len(ids) > 0 and int(ids[0]) != _BOUNDARY) or not whole or len(ids) - 2 * len(boundaries) != count:
        raise StateError(f"the kNN memory has {count} keys, which does not fit its {len(ids)} token ids")


def updated_datastore(
    datastore: Mapping[str, Tensor], added: Iterable[Mapping[str, Tensor]], removed: Iterable[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The datastore with the entries of some chunks added and of others removed.

    Chunks are ordered by a hash of their ids, so the result depends on the set of chunks alone, not on the order of
    updates.
    """
    chunks, counts = dict[bytes, tuple[Tensor, Tensor]](), Counter[bytes]()
    for sign, some in ((1, _split(datastore)), (1, added), (-1, removed)):
        for chunk in some:
            name = hashlib.blake2b(chunk["ids"].numpy().tobytes(), digest_size=16).digest()
            chunks.setdefault(name, (chunk["ids"], chunk["keys"]))
            counts[name] += sign
    kept = [chunks[name] for name in sorted(chunks) for _ in range(counts[name])]
    if not kept:
        return empty_datastore(datastore["keys"].shape[1])
    return {"ids": torch.cat([ids for ids, _ in kept]), "keys": torch.cat([keys for _, keys in kept])}


def _split(datastore: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The entries of each chunk."""
    ids = datastore["ids"]
    if not len(ids):
        return []
    starts = (ids == _BOUNDARY).nonzero()[:, 0].tolist()
    sizes = [end - start for start, end in zip(starts, [*starts[1:], len(ids)], strict=True)]
    parts = zip(torch.split(ids, sizes), torch.split(datastore["keys"], [size - 2 for size in sizes]), strict=True)
    return [{"ids": one, "keys": keys} for one, keys in parts]


@dataclass(frozen=True, eq=False)
class KnnMemory:
    """The datastore of a folder with an index for searching: the kNN part of an adapter.

    `ids` [all] int32 and `keys` [N, D] int8 are a datastore (see `datastore_entries`), `basis` is W [D, d] fp32.
    `strength` multiplies λ; validation chooses it. The index is built at the first search.
    """

    ids: Tensor
    keys: Tensor
    basis: Tensor
    gate: MixtureGate
    strength: float = 1.0

    @cached_property
    def _index(self) -> tuple[Int32Array, Int32Array, Int32Array, NDArray[np.int8]]:
        """(ids [all], tokens [N], places [N], keys [N, D]); the last three are sorted by token.

        `places` are indices in `ids`. Raises AdapterError if the number of keys is not the number of positions, as in a
        state file that was modified.
        """
        ids = self.ids.numpy()
        places = np.flatnonzero((ids[:-1] != _BOUNDARY) & (ids[1:] != _BOUNDARY)).astype(np.int32)
        order = np.argsort(ids[places], kind="stable")
        if len(order) != len(self.keys):
            raise AdapterError(
                f"The kNN memory is damaged: it holds {len(self.keys)} keys for {len(order)} positions. "
                "Run c2l.resetAdapter to index the folder again."
            )
        places = places[order]
        return ids, ids[places], places, self.keys.numpy()[order]

    @cached_property
    def _kernel_mixer(self) -> kernel.KnnMixer | None:
        """The compiled form of `interpolate`; None if the kernel is missing or does not support the shapes."""
        if not kernel.is_available():
            return None
        try:
            basis = self.basis.float().cpu().contiguous()
            return kernel.KnnMixer(*self._index, basis, [*self.gate.to_list(), self.strength])
        except ValueError:
            return None

    @property
    def digest(self) -> bytes:
        """Sixteen bytes that identify the entries, the gate and the strength."""
        digest = hashlib.blake2b(repr((self.gate.to_list(), self.strength)).encode(), digest_size=16)
        for tensor in (self.ids, self.keys):
            digest.update(tensor.numpy().tobytes())
        return digest.digest()

    def scaled(self, factor: float) -> KnnMemory:
        """The same memory with `factor` times the strength; both share the index."""
        made = KnnMemory(self.ids, self.keys, self.basis, self.gate, self.strength * factor)
        made.__dict__["_index"] = self._index
        return made

    def search(self, key: Float32Array, before: Sequence[int]) -> Neighbours | None:
        """The nearest neighbours of the position after the tokens `before`, with unit key [D].

        Returns None if no position of the repository has the same last token.
        """
        ids, tokens, places, keys = self._index
        wanted = np.array([before[-1], before[-1] + 1], tokens.dtype)  # another dtype would convert all of `tokens`
        low, high = (int(at) for at in np.searchsorted(tokens, wanted))
        if low == high:
            return None
        stride = -(-(high - low) // _MAX_CANDIDATES)
        at = places[low:high:stride]
        cosines: Float32Array = (keys[low:high:stride].astype(np.float32) @ key) / np.float32(127)
        lengths, matching = np.ones(len(at), np.float32), np.arange(len(at))
        for back in range(1, min(MAX_MATCH, len(before))):
            matching = matching[ids[at[matching] - back] == before[-1 - back]]
            if not len(matching):
                break
            lengths[matching] += 1
        if len(at) > NEIGHBOURS:
            score = cosines / self.gate.temperature + self.gate.match_weight * lengths
            best = np.argpartition(score, -NEIGHBOURS)[-NEIGHBOURS:]
            at, cosines, lengths = at[best], cosines[best], lengths[best]
        return Neighbours(cosines, lengths, ids[at + 1], high - low)

    @torch.inference_mode()
    def neighbour_votes(
        self, hidden: Tensor, logits: Tensor, before: Sequence[Sequence[int]]
    ) -> list[tuple[float, NeighbourVote] | None]:
        """(λ, vote) at each of n positions; None where there is no neighbour.

        `hidden` [n, d] are final hidden states before the final map, `logits` [n, V] fp32 the model's, `before` the
        tokens up to each position (see `suffixes`).
        """
        return self._votes(hidden, summarize(logits), before)

    def _votes(
        self, hidden: Tensor, summary: LogitSummary, before: Sequence[Sequence[int]]
    ) -> list[tuple[float, NeighbourVote] | None]:
        keys = compute_keys(self.basis, hidden).cpu().numpy()
        tops, tokens = summary.top_probabilities.tolist(), summary.tokens.tolist()
        votes: list[tuple[float, NeighbourVote] | None] = []
        for key, top, token, context in zip(keys, tops, tokens, before, strict=True):
            neighbours = self.search(key, context)
            if neighbours is None:
                votes.append(None)
                continue
            vote = self.gate.vote(neighbours, top, token)
            weight = min(MAX_KNN_WEIGHT, self.strength * self.gate.interpolation_weight(vote.features))
            votes.append((weight, vote))
        return votes

    @torch.inference_mode()
    def interpolate(self, hidden: Tensor, logits: Tensor, before: Sequence[Sequence[int]]) -> Tensor:
        """Logits [n, V] fp32 of the mixture p, up to a constant per row; arguments as in `neighbour_votes`.

        Dividing p by 1 − λ leaves the logits of tokens without neighbours as they are: y rises to
        logaddexp(logit_y, log Z + log(r(y) · λ / (1 − λ))), with log Z the log-sum-exp of the row.
        """
        out = logits.float().clone()
        if self._kernel_mixer is not None and out.device.type == "cpu":
            self._kernel_mixer.mix(hidden.float().contiguous(), out, before)
            return out
        summary = summarize(out)
        rows, tokens, values = list[int](), list[Int32Array](), list[NDArray[np.float64]]()
        for row, found in enumerate(self._votes(hidden, summary, before)):
            if found is not None and found[0] > 0:
                weight, vote = found
                rows += [row] * len(vote.tokens)
                tokens.append(vote.tokens)
                values.append(np.log(vote.probabilities * (weight / (1 - weight))) + summary.log_sum_exp[row])
        if rows:
            logaddexp_at(out, rows, np.concatenate(tokens), np.concatenate(values))
        return out


def suffixes(ids: Sequence[int], begin: int, end: int) -> list[Sequence[int]]:
    """For each position `begin` ≤ i < `end` of a text: its last MAX_MATCH tokens up to and including i."""
    return [ids[max(0, i + 1 - MAX_MATCH) : i + 1] for i in range(begin, end)]
