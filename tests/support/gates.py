"""Mixture gates for tests."""

from __future__ import annotations

import numpy as np

from c2l_lsp.model.adapter.mixture import VECTOR_SIZE, MixtureGate

SCORES = (0.5, 0.5, 0.0, 0.0)
"""length_weight, long_weight, longest_bonus, agreement."""


def constant_gate(z_tok: float, z_key: float, temperature: float = 0.07, key_length_weight: float = 0.6) -> MixtureGate:
    """A gate with the same weights everywhere."""
    return MixtureGate.from_vector([*SCORES, temperature, key_length_weight, *[0.0] * (VECTOR_SIZE - 8), z_tok, z_key])


def random_gate(seed: int) -> MixtureGate:
    """A gate with random weights."""
    numbers = np.random.default_rng(seed).normal(0, 0.7, VECTOR_SIZE)
    numbers[:6] = (0.6, 1.5, 1.0, 0.25, 0.1, 0.5)
    return MixtureGate.from_vector(numbers)


ALWAYS = constant_gate(30.0, 30.0)
"""The highest weight wherever there is a candidate."""
