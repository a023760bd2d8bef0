"""kNN memory: mixes what followed similar positions of the repository into the model's probabilities.

This is the kNN-LM of Khandelwal et al. 2020 (arXiv 1911.00172) with two tiers. The token index (`token_index`) holds
every position of the folder and finds the longest match of the last tokens. Neural keys exist for a part of the
positions and find similar hidden states: after tokens …, x₋₁, x₀ with final hidden state h [d],

    candidates  all positions j with a key whose last token is x₀
    s_j = cos(W h, W h_j) / τ + ρ · m_j         m_j: number of equal tokens before both positions, x₀ included

and the NEIGHBOURS candidates with the highest s_j vote. W [D, d] maps a hidden state to a key, m_j is at most
MAX_MATCH. `mixture` defines how the votes of both tiers are mixed with the model. The kNN memory adds no text to the
prompt and changes no KV cache. Both tiers are sets of chunks, so what left the repository is removed exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from c2l_lsp.model.adapter.key_index import BOUNDARY, KeyIndex
from c2l_lsp.model.adapter.mixture import KeyCandidates, MixtureGate, Prediction, features
from c2l_lsp.model.adapter.token_index import TokenIndex
from c2l_lsp.model.runtime import kernel
from c2l_lsp.model.runtime.kernel import MAX_CONTEXT, MAX_MATCH, Float32Array, KeyedPositions
from c2l_lsp.model.runtime.logits import logaddexp_at, summarize

NEIGHBOURS = 32
"""Nearest neighbours that vote: k of the kNN-LM."""

_MAX_CANDIDATES = 4096  # of more, every n-th is compared: they share only a frequent token, such as a line break


def compute_keys(basis: Tensor, hidden: Tensor) -> Tensor:
    """Keys W h / ‖W h‖ [N, D] fp32 of final hidden states [N, d]."""
    return torch.nn.functional.normalize(hidden.float() @ basis.to(hidden.device).T, dim=1)


def datastore_entries(basis: Tensor, hidden: Tensor, ids: Sequence[int]) -> dict[str, Tensor]:
    """The datastore entries of one chunk, on the CPU.

    `ids` are the start token and the n tokens of the chunk; `hidden` [n, d] are the states at all of them but the last.
    Returns ids [n + 2] int32 (a boundary, then `ids`) and keys [n, D] int8: round(127 · key).
    """
    keys = (compute_keys(basis, hidden) * 127).round().to(torch.int8).cpu()
    return {"ids": torch.tensor([BOUNDARY, *ids], dtype=torch.int32), "keys": keys}


@dataclass(frozen=True, eq=False)
class KnnMemory:
    """The positions of a folder with an index for searching: the kNN part of an adapter.

    `positions` are those with a key, `basis` is W [D, d] fp32, `tokens` the token index. `strength` multiplies λ;
    validation chooses it.
    """

    positions: KeyIndex
    basis: Tensor
    gate: MixtureGate
    strength: float = 1.0
    tokens: TokenIndex = field(default_factory=TokenIndex)

    @classmethod
    def of(
        cls,
        ids: Tensor,
        keys: Tensor,
        basis: Tensor,
        gate: MixtureGate,
        strength: float = 1.0,
        tokens: TokenIndex | None = None,
    ) -> KnnMemory:
        """The memory of chunks that stand one after another, see `KeyIndex.of`."""
        return cls(KeyIndex.of(ids, keys), basis, gate, strength, TokenIndex() if tokens is None else tokens)

    @classmethod
    def without_keys(cls, width: int, gate: MixtureGate, tokens: TokenIndex) -> KnnMemory:
        """The memory of a token index alone, for a model of width d."""
        return cls(KeyIndex.empty(kernel.ALIGNMENT), torch.zeros(kernel.ALIGNMENT, width), gate, tokens=tokens)

    def __len__(self) -> int:
        """The number of positions."""
        return max(len(self.positions), len(self.tokens))

    @cached_property
    def _keyed(self) -> KeyedPositions:
        """The positions with keys in the form of the kernel."""
        found = self.positions
        return KeyedPositions(found.ids, found.last, found.places, found.keys, self.basis.float().cpu().contiguous())

    @cached_property
    def _kernel_mixer(self) -> kernel.MemoryMixer | None:
        """The compiled form of `interpolate`; None if the kernel is missing or does not support the shapes."""
        if not kernel.is_available():
            return None
        try:
            return kernel.MemoryMixer(self._keyed, self.tokens.ids, self.tokens.order, self._gate_numbers)
        except ValueError:
            return None

    @property
    def _gate_numbers(self) -> NDArray[np.float64]:
        """The gate's numbers, then the strength."""
        return np.append(self.gate.to_vector(), self.strength)

    @property
    def digest(self) -> bytes:
        """Sixteen bytes that identify the entries, the gate and the strength."""
        parts = (self._gate_numbers.tobytes(), self.positions.digest, self.tokens.digest)
        return hashlib.blake2b(b"".join(parts), digest_size=16).digest()

    def scaled(self, factor: float) -> KnnMemory:
        """The same memory with `factor` times the strength; both share the indexes."""
        return replace(self, strength=self.strength * factor)

    def with_tokens(self, tokens: TokenIndex) -> KnnMemory:
        """The same memory with another token index."""
        return replace(self, tokens=tokens)

    def search(self, key: Float32Array, before: Sequence[int]) -> KeyCandidates | None:
        """The nearest neighbours of the position after the tokens `before`, with unit key [D].

        Returns None if no position with a key has the same last token.
        """
        keyed, ids = self._keyed, self._keyed.ids
        wanted = np.array([before[-1], before[-1] + 1], np.int32)  # another dtype would convert all tokens
        low, high = (int(at) for at in np.searchsorted(keyed.last, wanted))
        if low == high:
            return None
        stride = -(-(high - low) // _MAX_CANDIDATES)
        at = keyed.places[low:high:stride]
        cosines: Float32Array = (keyed.keys[low:high:stride].astype(np.float32) @ key) / np.float32(127)
        lengths, matching = np.ones(len(at), np.float32), np.arange(len(at))
        for back in range(1, min(MAX_MATCH, len(before))):
            matching = matching[ids[at[matching] - back] == before[-1 - back]]
            if not len(matching):
                break
            lengths[matching] += 1
        if len(at) > NEIGHBOURS:
            score = cosines / self.gate.temperature + self.gate.key_length_weight * lengths
            best = np.argpartition(score, -NEIGHBOURS)[-NEIGHBOURS:]
            at, cosines, lengths = at[best], cosines[best], lengths[best]
        return KeyCandidates(cosines, lengths, ids[at + 1], high - low)

    def vote(self, key: Float32Array, prediction: Prediction, before: Sequence[int]) -> dict[int, float]:
        """The share of each token in the mixture at one position: w_tok r_tok + w_key r_key."""
        tokens, keys = self.tokens.find(before), self.search(key, before)
        by_tokens = (tokens, self.gate.token_vote(tokens, prediction)) if len(tokens.lengths) else None
        by_keys = (keys, self.gate.key_vote(keys)) if keys is not None else None
        weights = self.gate.weights(
            features(prediction, by_tokens, by_keys),
            has_tok=by_tokens is not None, has_key=by_keys is not None, strength=self.strength,
        )  # fmt: skip
        shares: dict[int, float] = {}
        for weight, found in zip(weights.tolist(), (by_tokens, by_keys), strict=True):
            if found is not None:
                for token, probability in zip(found[1].tokens.tolist(), found[1].probabilities.tolist(), strict=True):
                    shares[token] = shares.get(token, 0.0) + weight * probability
        return shares

    def _votes(self, hidden: Tensor, logits: Tensor, before: Sequence[Sequence[int]]) -> list[dict[int, float]]:
        """`vote` at each of n positions, by hidden states [n, d] and logits fp32 [n, V]."""
        summary = summarize(logits)
        keys = compute_keys(self.basis, hidden).cpu().numpy()
        rows = zip(logits.cpu().numpy(), summary.log_sum_exp.tolist(), summary.tokens.tolist(), strict=True)
        found = zip(keys, rows, before, strict=True)
        return [self.vote(key, Prediction(*row), context) if context else {} for key, row, context in found]

    @torch.inference_mode()
    def target_votes(
        self, hidden: Tensor, logits: Tensor, before: Sequence[Sequence[int]], targets: Sequence[int]
    ) -> list[tuple[float, float]]:
        """(λ, the memory's probability of the target) at each of n positions.

        `hidden` [n, d] are final hidden states before the final map, `logits` [n, V] fp32 the model's, `before` the
        tokens up to each position (see `suffixes`).
        """
        if self._kernel_mixer is not None and logits.device.type == "cpu":
            rows = logits.float().contiguous()
            found = self._kernel_mixer.votes(hidden.float().contiguous(), rows, before, targets)
            return [(weight, probability) for weight, probability in found.tolist()]
        shares = self._votes(hidden, logits, before)
        weights = [sum(share.values()) for share in shares]
        return [
            (weight, share.get(target, 0.0) / weight if weight else 0.0)
            for weight, share, target in zip(weights, shares, targets, strict=True)
        ]

    @torch.inference_mode()
    def interpolate(self, hidden: Tensor, logits: Tensor, before: Sequence[Sequence[int]]) -> Tensor:
        """Logits [n, V] fp32 of the mixture p, up to a constant per row; arguments as in `target_votes`.

        Dividing p by 1 − λ leaves the logits of tokens without a vote as they are: y rises to
        logaddexp(logit_y, log Z + log(share(y) / (1 − λ))), with log Z the log-sum-exp of the row.
        """
        out = logits.float().clone()
        if self._kernel_mixer is not None and out.device.type == "cpu":
            self._kernel_mixer.mix(hidden.float().contiguous(), out, before)
            return out
        rows, tokens, values = list[int](), list[int](), list[float]()
        norms = summarize(out).log_sum_exp.tolist()
        for row, shares in enumerate(self._votes(hidden, out, before)):
            rest = 1 - sum(shares.values())
            for token, share in shares.items():
                if share > 0 and 0 <= token < out.shape[1]:
                    rows.append(row)
                    tokens.append(token)
                    values.append(float(np.log(share / rest)) + norms[row])
        if rows:
            logaddexp_at(out, rows, np.array(tokens, np.int32), np.array(values))
        return out


def suffixes(ids: Sequence[int], begin: int, end: int) -> list[Sequence[int]]:
    """For each position `begin` ≤ i < `end` of a text: its last MAX_CONTEXT tokens up to and including i."""
    return [ids[max(0, i + 1 - MAX_CONTEXT) : i + 1] for i in range(begin, end)]
