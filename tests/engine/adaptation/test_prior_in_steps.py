"""The prior of a model without a shipped one is estimated in cooperative steps."""

from __future__ import annotations

import pytest

from c2l_lsp.cooperative import Slices, drain, timed
from c2l_lsp.engine.adaptation import registry
from c2l_lsp.model.hypernet import output_gradients
from c2l_lsp.model.lm.base import BaseModel


def _reading(text: str) -> Slices[str]:
    yield
    return text


def test_a_prior_is_estimated_in_steps_as_small_as_those_of_the_gradients(
    tiny: BaseModel, sources: list[str], monkeypatch: pytest.MonkeyPatch
):
    """One text was one step of 26 s of CPU with a model of 494 million weights, and the engine was ended for it."""
    monkeypatch.setattr(output_gradients, "_STEP_WORK", 64 * tiny.head_weight.numel() // 4)
    texts, reported = sources[:3], list[int]()
    prior, seconds = drain(timed(registry.estimate_prior(tiny, map(_reading, texts), lambda n, _: reported.append(n))))
    assert prior is not None
    assert reported == sorted(reported)
    groups = sum(-(-min(n, 768) // 64) for n in (len(tiny.encode(text[:6000])) for text in texts))
    assert len(seconds) > 8 * groups  # 4 parts of the vocabulary, twice
