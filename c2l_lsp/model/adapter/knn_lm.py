"""Recall: what came next in the repository where the base model stood in a like state.

A nearest-neighbour language model (kNN-LM, Khandelwal et al. 2020, arXiv 1911.00172) whose candidates are narrowed by
the last token and whose share is decided at every position. After tokens …, x₋₁, x₀ with final hidden state h:
    candidates  all positions j of the repository whose own last token is x₀
    s_j = cos(W h, W h_j) / τ + ρ · run_j       run_j: tokens before that agree, x₀ included, up to LONGEST
    r(y) = Σ_{j: next_j = y} softmax(s)_j       over the NEIGHBOURS best
    p(y) = (1 − λ) p_LM(y) + λ r(y),            λ = strength · σ(bias + weights · features)
It reads no text into the prompt, changes no KV, and is a multiset over chunks: what is added can be taken away exactly.
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
"""Candidates that speak."""

_MOST = 4096  # candidates that are looked at: more share only their last token, a new line for one
_CUT = -1  # stands before every piece's tokens; equals no token, so no run goes beyond a piece
MAX_KNN_WEIGHT = 0.95
"""Of λ: the base model always has a say."""

FEATURES = ("share of the best", "nearest", "longest run", "base's best", "agree", "candidates", "share of the doubt")


@dataclass(frozen=True)
class MixtureGate:
    """How candidates are weighed and how much they are believed: τ, ρ, and the logistic function of FEATURES."""

    temperature: float = 0.07
    run: float = 0.6
    bias: float = -6.88
    weights: tuple[float, ...] = (1.31, 4.53, 1.77, -1.04, 0.32, 0.29, 1.23)

    def vote(self, found: Neighbours, top: float, token: int) -> NeighbourVote:
        """What the candidates say. `top` is the base's highest probability, `token` the one that has it."""
        score = found.cosine / self.temperature + self.run * found.run
        weight = np.exp(score - score.max())
        total = float(weight.sum())
        shares: dict[int, float] = {}  # for a few dozen candidates quicker than np.unique
        for said, part in zip(found.next.tolist(), weight.tolist(), strict=True):
            shares[said] = shares.get(said, 0.0) + part / total
        best, most = max(shares.items(), key=itemgetter(1))
        features = (
            most, float(found.cosine.max()), float(found.run.max()) / MAX_MATCH, top, float(best == token),
            math.log1p(found.count) / 8, most * (1 - top),
        )  # fmt: skip
        return NeighbourVote(np.array([*shares], np.int32), np.array([*shares.values()]), np.array(features))

    def weight(self, features: NDArray[np.float64]) -> float:
        """λ at full strength."""
        at = self.bias + sum(weight * value for weight, value in zip(self.weights, features.tolist(), strict=True))
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, at))))

    def to_list(self) -> list[float]:
        """All numbers, for a file."""
        return [self.temperature, self.run, self.bias, *self.weights]

    @classmethod
    def from_list(cls, numbers: Sequence[float]) -> MixtureGate:
        """The inverse of `plain`. ValueError if there are too few or too many."""
        if len(numbers) != 3 + len(FEATURES):
            raise ValueError(f"{len(numbers)} numbers where {3 + len(FEATURES)} are expected")
        return cls(numbers[0], numbers[1], numbers[2], tuple(numbers[3:]))


@dataclass(frozen=True)
class Neighbours:
    """The best candidates of a position: cosine and run [k] fp32, next token [k], and how many there were in all."""

    cosine: Float32Array
    run: Float32Array
    next: Int32Array
    count: int


@dataclass(frozen=True)
class NeighbourVote:
    """Tokens the candidates name [m], their masses [m] (sum 1), and the FEATURES that λ is made of."""

    tokens: Int32Array
    mass: NDArray[np.float64]
    features: NDArray[np.float64]

    def probability(self, token: int) -> float:
        """r of a token."""
        return float(self.mass[self.tokens == token].sum())


def compute_keys(basis: Tensor, hidden: Tensor) -> Tensor:
    """Unit keys W h [N, D] fp32 of final hidden states [N, d]."""
    return torch.nn.functional.normalize(hidden.float() @ basis.to(hidden.device).T, dim=1)


def datastore_entries(basis: Tensor, hidden: Tensor, ids: Sequence[int]) -> dict[str, Tensor]:
    """What is kept of a piece: ids [n + 2] int32 (a cut, the start token, its tokens) and keys [n, D] int8."""
    keys = (compute_keys(basis, hidden) * 127).round().to(torch.int8).cpu()
    return {"ids": torch.tensor([_CUT, *ids], dtype=torch.int32), "keys": keys}


def empty_datastore(width: int) -> dict[str, Tensor]:
    """The rows of an empty folder."""
    return {"ids": torch.zeros(0, dtype=torch.int32), "keys": torch.zeros(0, width, dtype=torch.int8)}


def check(rows: Mapping[str, Tensor], vocabulary: int) -> None:
    """StateError unless rows from a disk are pieces of tokens the model has, with a key for every position."""
    ids, count = rows["ids"], len(rows["keys"])
    cuts = (ids == _CUT).nonzero()[:, 0]
    if len(ids) and (int(ids.min()) < _CUT or int(ids.max()) >= vocabulary):
        raise StateError("ids name tokens that the model does not have")
    whole = bool((torch.diff(cuts, append=torch.tensor([len(ids)])) >= 2).all())
    if (len(ids) > 0 and int(ids[0]) != _CUT) or not whole or len(ids) - 2 * len(cuts) != count:
        raise StateError(f"{count} keys do not belong to its {len(ids)} ids")


def updated_datastore(
    rows: Mapping[str, Tensor], added: Iterable[Mapping[str, Tensor]], removed: Iterable[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The rows with some pieces' added and others' taken away, in an order that depends on their content alone."""
    chunks, counts = dict[bytes, tuple[Tensor, Tensor]](), Counter[bytes]()
    for sign, some in ((1, _split(rows)), (1, added), (-1, removed)):
        for chunk in some:
            name = hashlib.blake2b(chunk["ids"].numpy().tobytes(), digest_size=16).digest()
            chunks.setdefault(name, (chunk["ids"], chunk["keys"]))
            counts[name] += sign
    kept = [chunks[name] for name in sorted(chunks) for _ in range(counts[name])]
    if not kept:
        return empty_datastore(rows["keys"].shape[1])
    return {"ids": torch.cat([ids for ids, _ in kept]), "keys": torch.cat([keys for _, keys in kept])}


def _split(rows: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    ids = rows["ids"]
    if not len(ids):
        return []
    starts = (ids == _CUT).nonzero()[:, 0].tolist()
    sizes = [end - start for start, end in zip(starts, [*starts[1:], len(ids)], strict=True)]
    parts = zip(torch.split(ids, sizes), torch.split(rows["keys"], [size - 2 for size in sizes]), strict=True)
    return [{"ids": one, "keys": keys} for one, keys in parts]


@dataclass(frozen=True, eq=False)
class KnnMemory:
    """The rows of a folder, ready to be looked up. `basis` W [D, d] fp32; `strength` multiplies λ."""

    ids: Tensor
    keys: Tensor
    basis: Tensor
    gate: MixtureGate
    strength: float = 1.0

    @cached_property
    def _index(self) -> tuple[Int32Array, Int32Array, Int32Array, NDArray[np.int8]]:
        """(ids, then by last token: the last tokens, their places in ids, their keys). AdapterError if keys are missing
        or left over: a state that was tampered with."""
        ids = self.ids.numpy()
        places = np.flatnonzero((ids[:-1] != _CUT) & (ids[1:] != _CUT)).astype(np.int32)
        order = np.argsort(ids[places], kind="stable")
        if len(order) != len(self.keys):
            raise AdapterError(
                f"What is recalled holds {len(self.keys)} keys for {len(order)} positions; "
                "c2l.resetAdapter learns the folder anew."
            )
        places = places[order]
        return ids, ids[places], places, self.keys.numpy()[order]

    @cached_property
    def _quick(self) -> kernel.KnnMixer | None:
        """The same in one compiled call; None where that is not to be had."""
        if not kernel.is_available():
            return None
        try:
            basis = self.basis.float().cpu().contiguous()
            return kernel.KnnMixer(*self._index, basis, [*self.gate.to_list(), self.strength])
        except ValueError:
            return None

    @property
    def digest(self) -> bytes:
        """Names what is recalled and how."""
        digest = hashlib.blake2b(repr((self.gate.to_list(), self.strength)).encode(), digest_size=16)
        for tensor in (self.ids, self.keys):
            digest.update(tensor.numpy().tobytes())
        return digest.digest()

    def scaled(self, factor: float) -> KnnMemory:
        """The same at another strength; what was prepared for looking up is shared."""
        made = KnnMemory(self.ids, self.keys, self.basis, self.gate, self.strength * factor)
        made.__dict__["_index"] = self._index
        return made

    def find(self, key: Float32Array, before: Sequence[int]) -> Neighbours | None:
        """The NEIGHBOURS best candidates of a position with this unit key [D] after these tokens; None without any."""
        ids, last, places, keys = self._index
        wanted = np.array([before[-1], before[-1] + 1], last.dtype)  # of another type, all of `last` would be converted
        low, high = (int(at) for at in np.searchsorted(last, wanted))
        if low == high:
            return None
        step = -(-(high - low) // _MOST)
        at = places[low:high:step]
        cosine: Float32Array = (keys[low:high:step].astype(np.float32) @ key) / np.float32(127)
        run, agree = np.ones(len(at), np.float32), np.arange(len(at))
        for back in range(1, min(MAX_MATCH, len(before))):
            agree = agree[ids[at[agree] - back] == before[-1 - back]]
            if not len(agree):
                break
            run[agree] += 1
        if len(at) > NEIGHBOURS:
            score = cosine / self.gate.temperature + self.gate.run * run
            best = np.argpartition(score, -NEIGHBOURS)[-NEIGHBOURS:]
            at, cosine, run = at[best], cosine[best], run[best]
        return Neighbours(cosine, run, ids[at + 1], high - low)

    @torch.inference_mode()
    def neighbour_votes(
        self, hidden: Tensor, logits: Tensor, before: Sequence[Sequence[int]]
    ) -> list[tuple[float, NeighbourVote] | None]:
        """(λ, share) of positions with final hidden states [n, d], logits [n, V] fp32, after these tokens each."""
        return self._votes(hidden, summarize(logits), before)

    def _votes(
        self, hidden: Tensor, sums: LogitSummary, before: Sequence[Sequence[int]]
    ) -> list[tuple[float, NeighbourVote] | None]:
        keys = compute_keys(self.basis, hidden).cpu().numpy()
        out: list[tuple[float, NeighbourVote] | None] = []
        for key, top, token, tail in zip(
            keys, sums.top_probabilities.tolist(), sums.tokens.tolist(), before, strict=True
        ):
            found = self.find(key, tail)
            if found is None:
                out.append(None)
                continue
            share = self.gate.vote(found, top, token)
            out.append((min(MAX_KNN_WEIGHT, self.strength * self.gate.weight(share.features)), share))
        return out

    @torch.inference_mode()
    def interpolate(self, hidden: Tensor, logits: Tensor, before: Sequence[Sequence[int]]) -> Tensor:
        """Logits [n, V] fp32 of the mixture. The base's keep their differences; tokens that are recalled rise."""
        out = logits.float().clone()
        if self._quick is not None and out.device.type == "cpu":
            self._quick.mix(hidden.float().contiguous(), out, before)
            return out
        sums = summarize(out)
        rows, tokens, raised = list[int](), list[Int32Array](), list[NDArray[np.float64]]()
        for row, found in enumerate(self._votes(hidden, sums, before)):
            if found is not None and found[0] > 0:
                part, share = found
                rows += [row] * len(share.tokens)
                tokens.append(share.tokens)
                raised.append(np.log(share.mass * (part / (1 - part))) + sums.log_sum_exp[row])
        if rows:
            logaddexp_at(out, rows, np.concatenate(tokens), np.concatenate(raised))
        return out


def suffixes(ids: Sequence[int], begin: int, end: int) -> list[Sequence[int]]:
    """The last LONGEST tokens up to each of the positions `begin` ≤ i < `end` of a text, itself included."""
    return [ids[max(0, i + 1 - MAX_MATCH) : i + 1] for i in range(begin, end)]
