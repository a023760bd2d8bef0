"""The mixture of three experts at one position: the base model, the token vote and the key vote.

After tokens …, x₋₁, x₀ the base model gives p_LM. Two memories of the repository add a vote each:

    token vote  candidates (m_j, y_j) of the token index: y_j followed where the last m_j tokens were the same
                s_j = length_weight · min(m_j, 8) + long_weight · log₂(max(m_j, 8) / 8) + longest_bonus · [m_j = L]
                      + agreement · ln p_LM(y_j),                                            L = max m_j
    key vote    neighbours (cos_j, m_j, y_j) of the kNN memory, which have the same last token and a neural key
                s_j = cos_j / temperature + key_length_weight · m_j

    r(y) = Σ_{j: y_j = y} softmax(s)_j       for either vote
    p(y) = (1 − w_tok − w_key) p_LM(y) + w_tok r_tok(y) + w_key r_key(y)

The mixture gate, a network with one hidden layer, computes the weights from FEATURES:

    (z_tok, z_key) = V tanh(W features + c) + b
    (w_LM, w_tok, w_key) = softmax(0, z_tok, z_key)      an absent vote has weight 0

The strength, which validation chooses, multiplies w_tok and w_key; their sum is at most MAX_MEMORY_WEIGHT. All
arithmetic is fp64. The C kernel holds the same (_knn.h).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from c2l_lsp.errors import CheckpointError
from c2l_lsp.model.adapter.token_index import TokenCandidates
from c2l_lsp.model.lm.base import ASSETS
from c2l_lsp.model.runtime.kernel import Int32Array
from c2l_lsp.model.runtime.logits import Float32Array

Float64Array = NDArray[np.float64]

MAX_MEMORY_WEIGHT = 0.95
"""Upper bound of w_tok + w_key: the base model always keeps 5 % of the probability."""

FEATURES = (
    "highest model probability",  # max p_LM
    "longest match up to 8",  # min(L, 8) / 8; this and the next six are 0 without a token vote
    "longest match beyond 8",  # log₂(max(L, 8) / 8) / 3
    "log longest matches",  # ln(1 + number of positions of the index that match in L tokens) / 8
    "log tokens after the longest",  # ln(1 + number of different y_j with m_j = L) / 4
    "log tokens",  # ln(1 + number of different y_j) / 4
    "highest token vote",  # max r_tok
    "log model for the token vote",  # lg p_LM(argmax r_tok), see _lg
    "highest cosine",  # this and all that follow are 0 without a key vote
    "longest keyed match",  # max m_j / 8
    "log keyed candidates",  # ln(1 + number of keyed positions with the same last token) / 8
    "highest key vote",  # max r_key
    "log model for the key vote",  # lg p_LM(argmax r_key)
)
"""Inputs of the mixture gate, in order."""

_HIDDEN = 16
_SCORES = 6  # the numbers before W in the flat form
_KNEE = 8  # match length up to which every token counts the same
_LEAST = 1e-9  # of p_LM in the score of a candidate
_FORMAT = "c2l-mixture-1"


def _lg(value: float) -> float:
    """ln(value) / 10, at least ln(1e-6) / 10."""
    return float(np.log(max(value, 1e-6))) / 10


@dataclass(frozen=True)
class Prediction:
    """The base model's prediction at one position: logits [V] fp32, their log-sum-exp, and the most likely token."""

    logits: Float32Array
    log_sum_exp: float
    top_token: int

    def probabilities(self, tokens: Int32Array) -> Float64Array:
        """p_LM of some tokens."""
        inside = (tokens >= 0) & (tokens < len(self.logits))  # false for a token of a damaged memory
        logits = self.logits[np.where(inside, tokens, 0)].astype(np.float64)
        result: Float64Array = np.where(inside, np.exp(logits - self.log_sum_exp), 0.0)
        return result

    def probability(self, token: int) -> float:
        """p_LM of one token."""
        return float(self.probabilities(np.array([token], np.int32))[0])


@dataclass(frozen=True)
class Vote:
    """A distribution r over tokens [n], in ascending order, with probabilities [n] above 0."""

    tokens: Int32Array
    probabilities: Float64Array

    @classmethod
    def of(cls, scores: Float64Array, next_tokens: Int32Array) -> Vote:
        """softmax(scores) [k], summed by next token [k]."""
        weights = np.exp(scores - scores.max())
        tokens, where = np.unique(next_tokens, return_inverse=True)
        return cls(tokens, np.bincount(where, weights / weights.sum()).astype(np.float64))

    @cached_property
    def best(self) -> int:
        """argmax r; of equal ones the lowest token."""
        return int(self.tokens[self.probabilities.argmax()])

    @cached_property
    def highest(self) -> float:
        """max r."""
        return float(self.probabilities.max())

    def probability(self, token: int) -> float:
        """r(token); 0 if no candidate is followed by it."""
        return float(self.probabilities[self.tokens == token].sum())


@dataclass(frozen=True)
class KeyCandidates:
    """The nearest neighbours of a position, at least one.

    cosines, match_lengths [k] fp32 and next_tokens [k] int32. `count` is the number of keyed positions with the same
    last token.
    """

    cosines: Float32Array
    match_lengths: Float32Array
    next_tokens: Int32Array
    count: int


@dataclass(frozen=True)
class MixtureGate:
    """Scores the candidates of both votes and computes their weights.

    hidden_weights W [16, F], hidden_biases c [16], output_weights V [2, 16], output_biases b [2], all fp64. The other
    numbers are those of the two scores. `c2l_lab.train.memory` fits them.
    """

    length_weight: float
    long_weight: float
    longest_bonus: float
    agreement: float
    temperature: float
    key_length_weight: float
    hidden_weights: Float64Array
    hidden_biases: Float64Array
    output_weights: Float64Array
    output_biases: Float64Array

    def token_vote(self, found: TokenCandidates, prediction: Prediction) -> Vote:
        """r_tok."""
        m = found.lengths.astype(np.float64)
        scores = self.length_weight * np.minimum(m, _KNEE) + self.long_weight * np.log2(np.maximum(m, _KNEE) / _KNEE)
        scores += self.longest_bonus * (m == m.max())
        scores += self.agreement * np.log(np.maximum(prediction.probabilities(found.next_tokens), _LEAST))
        return Vote.of(scores, found.next_tokens)

    def key_vote(self, found: KeyCandidates) -> Vote:
        """r_key."""
        scores = found.cosines.astype(np.float64) / self.temperature + self.key_length_weight * found.match_lengths
        return Vote.of(scores, found.next_tokens)

    def weights(self, features: Float64Array, *, has_tok: bool, has_key: bool, strength: float = 1.0) -> Float64Array:
        """(w_tok, w_key) for features [F]."""
        z = self.output_weights @ np.tanh(self.hidden_weights @ features + self.hidden_biases) + self.output_biases
        odds = np.exp(np.clip(z, -30, 30)) * (has_tok, has_key)
        weights: Float64Array = strength * odds / (1 + odds.sum())
        total = weights.sum()
        return weights if total <= MAX_MEMORY_WEIGHT else weights * (MAX_MEMORY_WEIGHT / total)

    def to_vector(self) -> Float64Array:
        """The numbers in the order of the fields, matrices by rows: the form in which C reads and files store them."""
        scores = (self.length_weight, self.long_weight, self.longest_bonus, self.agreement, self.temperature,
                  self.key_length_weight)  # fmt: skip
        arrays = (self.hidden_weights, self.hidden_biases, self.output_weights, self.output_biases)
        return np.concatenate([scores, *(array.ravel() for array in arrays)])

    @classmethod
    def from_vector(cls, numbers: Sequence[float] | Float64Array) -> MixtureGate:
        """The inverse of `to_vector`. Raises ValueError if the count is wrong or a number is not finite."""
        values = np.asarray(numbers, np.float64)
        if values.shape != (VECTOR_SIZE,):
            raise ValueError(f"a mixture gate has {VECTOR_SIZE} numbers, not {values.size}")
        if not np.isfinite(values).all() or values[4] <= 0:
            raise ValueError("a mixture gate has finite numbers and a temperature above 0")
        parts = np.split(values[_SCORES:], np.cumsum([rows * columns for rows, columns in _SHAPES])[:-1])
        W, c, V, b = (part.reshape(shape) for part, shape in zip(parts, _SHAPES, strict=True))
        length, long, longest, agreement, temperature, key_length = values[:_SCORES].tolist()
        return cls(length, long, longest, agreement, temperature, key_length, W, c[0], V, b[0])


_SHAPES = ((_HIDDEN, len(FEATURES)), (1, _HIDDEN), (2, _HIDDEN), (1, 2))
VECTOR_SIZE = _SCORES + sum(rows * columns for rows, columns in _SHAPES)
"""Numbers of a mixture gate."""


def features(
    prediction: Prediction, tokens: tuple[TokenCandidates, Vote] | None, keys: tuple[KeyCandidates, Vote] | None
) -> Float64Array:
    """FEATURES at one position [F], from the candidates of both memories and their votes; None where there are none."""
    top = prediction.probability(prediction.top_token)
    return np.array([top, *_token_features(prediction, tokens), *_key_features(prediction, keys)])


def _token_features(prediction: Prediction, tokens: tuple[TokenCandidates, Vote] | None) -> list[float]:
    if tokens is None:
        return [0.0] * 7
    found, vote = tokens
    longest = found.longest
    distinct = len(np.unique(found.next_tokens[found.lengths == longest]))
    return [
        min(longest, _KNEE) / _KNEE, float(np.log2(max(longest, _KNEE) / _KNEE)) / 3, float(np.log1p(found.count)) / 8,
        float(np.log1p(distinct)) / 4, float(np.log1p(len(vote.tokens))) / 4, *_against_model(prediction, vote),
    ]  # fmt: skip


def _key_features(prediction: Prediction, keys: tuple[KeyCandidates, Vote] | None) -> list[float]:
    if keys is None:
        return [0.0] * 5
    found, vote = keys
    return [
        float(found.cosines.max()), float(found.match_lengths.max()) / _KNEE, float(np.log1p(found.count)) / 8,
        *_against_model(prediction, vote),
    ]  # fmt: skip


def _against_model(prediction: Prediction, vote: Vote) -> list[float]:
    """max r, and the logarithm of p_LM(argmax r)."""
    return [vote.highest, _lg(prediction.probability(vote.best))]


def load(model: str, digest: str, folder: Path = ASSETS / "mixture") -> MixtureGate:
    """The gate that was fitted for a shipped base model with this id and digest; for any other the general one.

    Raises CheckpointError if a file cannot be read or has the wrong numbers.
    """
    own = folder / f"{model}.safetensors"
    if "/" not in model and own.is_file():
        gate, base = _read(own)
        if base == digest:
            return gate
    return _read(folder / "any.safetensors")[0]


def save(gate: MixtureGate, path: Path, base: str, note: str = "") -> None:
    """Write a gate. `base` is the digest of its base model, or "" for the general one."""
    from safetensors.numpy import save_file

    save_file({"gate": gate.to_vector()}, path, metadata={"format": _FORMAT, "base": base, "note": note})


def _read(path: Path) -> tuple[MixtureGate, str]:
    """The gate of a file and the digest of its base model."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            numbers = file.get_tensor("gate") if metadata.get("format") == _FORMAT else None
        if numbers is None:
            raise ValueError(f"its format is not {_FORMAT}")
        return MixtureGate.from_vector(numbers), metadata.get("base", "")
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"The mixture gate {path.name} cannot be read: {error}.") from error
