"""The mixture of base model, token vote and key vote: the formulas by hand, the bounds of the weights, the files."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from c2l_lsp.errors import CheckpointError
from c2l_lsp.model.adapter import mixture
from c2l_lsp.model.adapter.mixture import (
    FEATURES,
    MAX_MEMORY_WEIGHT,
    VECTOR_SIZE,
    KeyCandidates,
    MixtureGate,
    Prediction,
    TokenCandidates,
    Vote,
)
from c2l_lsp.model.lm.base import ASSETS, SHIPPED


def gate(seed: int = 0) -> MixtureGate:
    numbers = np.random.default_rng(seed).normal(size=VECTOR_SIZE) / 4
    numbers[:6] = 0.6, 2.0, 2.0, 0.25, 0.05, 0.6
    return MixtureGate.from_vector(numbers)


def constant(z_tok: float, z_key: float) -> MixtureGate:
    """A gate that ignores its features."""
    made = gate()
    return replace(made, output_weights=np.zeros_like(made.output_weights), output_biases=np.array([z_tok, z_key]))


def prediction(*probabilities: float) -> Prediction:
    logits = np.log(np.array(probabilities)).astype(np.float32) + np.float32(3)
    return Prediction(logits, float(np.log(np.exp(logits.astype(np.float64)).sum())), int(logits.argmax()))


def tokens(*pairs: tuple[int, int], count: int = 1) -> TokenCandidates:
    lengths, following = zip(*pairs, strict=True)
    return TokenCandidates(np.array(lengths, np.int32), np.array(following, np.int32), count)


def keys(*triples: tuple[float, float, int], count: int = 1) -> KeyCandidates:
    cosines, lengths, following = zip(*triples, strict=True)
    return KeyCandidates(
        np.array(cosines, np.float32), np.array(lengths, np.float32), np.array(following, np.int32), count
    )


BASE = prediction(0.5, 0.3, 0.15, 0.05)


def test_token_vote_is_the_formula() -> None:
    vote = gate().token_vote(tokens((32, 2), (5, 1), (5, 2), (1, 3)), BASE)
    scores = [
        0.6 * 8 + 2 * math.log2(4) + 2 + 0.25 * math.log(0.15),
        0.6 * 5 + 0.25 * math.log(0.3),
        0.6 * 5 + 0.25 * math.log(0.15),
        0.6 * 1 + 0.25 * math.log(0.05),
    ]
    total = sum(map(math.exp, scores))
    assert vote.tokens.tolist() == [1, 2, 3] and vote.best == 2
    assert vote.probability(2) == pytest.approx((math.exp(scores[0]) + math.exp(scores[2])) / total, rel=1e-6)
    assert vote.probability(1) == pytest.approx(math.exp(scores[1]) / total, rel=1e-6)
    assert vote.probability(0) == 0
    assert vote.probabilities.sum() == pytest.approx(1)


def test_key_vote_is_the_formula() -> None:
    vote = gate().key_vote(keys((0.9, 3, 1), (0.8, 8, 0), (0.8, 1, 1)))
    scores = [0.9 / 0.05 + 0.6 * 3, 0.8 / 0.05 + 0.6 * 8, 0.8 / 0.05 + 0.6]
    total = sum(map(math.exp, scores))
    assert vote.probability(0) == pytest.approx(math.exp(scores[1]) / total, rel=1e-5)
    assert vote.best == 0 and vote.highest == vote.probability(0)


def test_a_tie_is_won_by_the_lowest_token() -> None:
    assert Vote.of(np.zeros(3), np.array([7, 2, 5], np.int32)).best == 2


def test_features_have_their_documented_values() -> None:
    made = gate()
    found, near = tokens((32, 2), (32, 1), (5, 1), (5, 2), (1, 3), count=40), keys((0.9, 3, 0), (0.5, 2, 1), count=9)
    tok, key = made.token_vote(found, BASE), made.key_vote(near)
    values = dict(zip(FEATURES, mixture.features(BASE, (found, tok), (near, key)), strict=True))
    assert values == pytest.approx(
        {
            "highest model probability": 0.5,
            "longest match up to 8": 1.0,
            "longest match beyond 8": 2 / 3,
            "log longest matches": math.log(41) / 8,
            "log tokens after the longest": math.log(3) / 4,
            "log tokens": math.log(4) / 4,
            "highest token vote": tok.probability(1),  # the model finds 1 twice as likely as 2
            "log model for the token vote": math.log(0.3) / 10,
            "highest cosine": 0.9,
            "longest keyed match": 3 / 8,
            "log keyed candidates": math.log(10) / 8,
            "highest key vote": key.probability(0),
            "log model for the key vote": math.log(0.5) / 10,
        },
        rel=1e-6,
    )


def test_features_of_an_absent_vote_are_zero() -> None:
    made = gate()
    found, near = tokens((3, 1)), keys((0.5, 1, 1))
    without_keys = mixture.features(BASE, (found, made.token_vote(found, BASE)), None)
    without_tokens = mixture.features(BASE, None, (near, made.key_vote(near)))
    assert without_keys[8:].tolist() == [0.0] * 5 and without_keys[1] > 0
    assert without_tokens[1:8].tolist() == [0.0] * 7 and without_tokens[8] == 0.5


def test_weights_are_a_softmax_without_the_absent_votes() -> None:
    made, x = constant(math.log(2.0), math.log(3.0)), np.zeros(len(FEATURES))
    assert made.weights(x, has_tok=True, has_key=True) == pytest.approx([2 / 6, 3 / 6])
    assert made.weights(x, has_tok=True, has_key=False) == pytest.approx([2 / 3, 0])
    assert made.weights(x, has_tok=False, has_key=False).tolist() == [0.0, 0.0]
    assert made.weights(x, has_tok=True, has_key=True, strength=0.5) == pytest.approx([1 / 6, 1 / 4])


def test_the_model_keeps_a_part_of_the_probability() -> None:
    x = np.zeros(len(FEATURES))
    for strength in (1.0, 1.5):
        weights = constant(1000.0, 1000.0).weights(x, has_tok=True, has_key=True, strength=strength)
        assert weights == pytest.approx([MAX_MEMORY_WEIGHT / 2] * 2)
    assert constant(1000.0, -1000.0).weights(x, has_tok=True, has_key=True).sum() == pytest.approx(MAX_MEMORY_WEIGHT)


def test_the_gate_is_the_network() -> None:
    made, x = gate(), np.random.default_rng(1).normal(size=len(FEATURES))
    W, c, V, b = made.hidden_weights, made.hidden_biases, made.output_weights, made.output_biases
    hidden = [math.tanh(sum(W[i, j] * x[j] for j in range(len(x))) + c[i]) for i in range(len(c))]
    odds = [math.exp(sum(V[k, i] * hidden[i] for i in range(len(hidden))) + b[k]) for k in range(2)]
    expected = [odds[0] / (1 + sum(odds)), odds[1] / (1 + sum(odds))]
    assert made.weights(x, has_tok=True, has_key=True) == pytest.approx(expected)


def test_vector_form_is_lossless_and_checked() -> None:
    vector = gate().to_vector()
    assert np.array_equal(MixtureGate.from_vector(vector).to_vector(), vector)
    with pytest.raises(ValueError, match=str(VECTOR_SIZE)):
        MixtureGate.from_vector(vector[1:])
    for place, number in ((9, math.nan), (4, 0.0)):
        damaged = vector.copy()
        damaged[place] = number
        with pytest.raises(ValueError, match="temperature above 0"):
            MixtureGate.from_vector(damaged)


def test_load_prefers_the_gate_of_the_model_with_this_digest(tmp_path: Path) -> None:
    mixture.save(gate(1), tmp_path / "c2l-nano.safetensors", "abc")
    mixture.save(gate(2), tmp_path / "any.safetensors", "")

    def loaded(model: str, digest: str) -> list[float]:
        return mixture.load(model, digest, tmp_path).to_vector().tolist()

    assert loaded("c2l-nano", "abc") == gate(1).to_vector().tolist()
    assert loaded("c2l-nano", "other weights") == gate(2).to_vector().tolist()
    assert loaded("/models/mine", "abc") == loaded("owner/name", "abc") == gate(2).to_vector().tolist()


def test_a_damaged_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "any.safetensors"
    with pytest.raises(CheckpointError, match=r"any\.safetensors"):
        mixture.load("any-model", "", tmp_path)
    path.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=r"any\.safetensors"):
        mixture.load("any-model", "", tmp_path)
    save_file({"gate": np.zeros(3)}, path, metadata={"format": "c2l-mixture-1"})
    with pytest.raises(CheckpointError, match=str(VECTOR_SIZE)):
        mixture.load("any-model", "", tmp_path)
    save_file({"gate": gate().to_vector()}, path, metadata={"format": "c2l-mixture-9"})
    with pytest.raises(CheckpointError, match="format"):
        mixture.load("any-model", "", tmp_path)


@pytest.mark.parametrize("model", [*SHIPPED, "another"])
def test_shipped_gates_trust_a_long_unique_match_more_than_a_short_ambiguous_one(model: str) -> None:
    own = ASSETS / "mixture" / f"{model}.safetensors"
    made, base = mixture._read(own if own.is_file() else ASSETS / "mixture" / "any.safetensors")
    loaded = mixture.load(model, base)
    assert np.array_equal(loaded.to_vector(), made.to_vector())
    unsure = prediction(0.4, 0.3, 0.2, 0.1)

    def token_weight(found: TokenCandidates) -> float:
        x = mixture.features(unsure, (found, loaded.token_vote(found, unsure)), None)
        return float(loaded.weights(x, has_tok=True, has_key=False)[0])

    assert token_weight(tokens((40, 1), (2, 3))) > 0.6
    assert token_weight(tokens((1, 1), (1, 2), (1, 3), (1, 0), count=4)) < 0.3


@pytest.mark.parametrize("model", SHIPPED)
def test_shipped_gates_belong_to_the_shipped_weights(model: str) -> None:
    from c2l_lsp.config import Model
    from c2l_lsp.model.lm import fast_loader

    if not (ASSETS / model / "model.safetensors").exists():
        pytest.skip("the shipped model is not in this checkout")
    base = mixture._read(ASSETS / "mixture" / f"{model}.safetensors")[1]
    assert base == fast_loader.load(Model(id=model, device="cpu")).digest
