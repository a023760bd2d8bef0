"""The prior of `memory`: the cases its scalars are tuned on, and the coordinate search."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from c2l_lab.corpus.corpus import Document
from c2l_lab.train.memory import estimate_prior

from c2l_lsp.model.hypernet.gradient_memory import GradientMemory
from c2l_lsp.model.hypernet.prior import MemoryPrior, damped_inverse

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def corpus(sources: list[str]) -> list[Document]:
    """Two repositories of a dozen files."""
    texts = sorted((text for text in sources if len(text) > 2500), key=len)[-24:]
    return [Document(f"{i}", f"owner{i % 2}/name", f"m{i}.py", text) for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def made(tiny, corpus):
    return estimate_prior.make_prior(tiny, corpus, tokens=600, repositories=2, chars=1200, report=lambda _: None)


@pytest.fixture(scope="module")
def cases(tiny, made, corpus):
    short = [replace(document, text=document.text[:2600]) for document in corpus]
    return estimate_prior.tuning_cases(GradientMemory(tiny, made), short, repositories=1, report=lambda _: None)


def test_case_has_small_grown_and_edited_states_of_one_repository(cases):
    (case,) = cases
    small, whole = float(case.small.tensors["n"]), float(case.state.tensors["n"])
    assert 0 < small < whole / 4
    assert case.edited
    assert all(float(state.tensors["n"]) == whole for state in case.grown)
    recent = [float(state.tensors["recent"].norm()) for state in case.grown]
    assert 0 < recent[0] < recent[2]


def test_mean_is_the_average_of_the_repositories(tiny, corpus, made):
    means = estimate_prior.repository_means(tiny, corpus, 2, 1200, lambda _: None)
    torch.testing.assert_close(made.mean, torch.stack(means).mean(0))


def test_search_finds_the_optimum_of_each_scalar(tiny, made, cases, monkeypatch):
    """The planted loss has its optimum inside each grid; shrinkage depends on small states alone."""

    def loss(model, scored, C):
        return 0.0 if C is None else C

    wanted = float(estimate_prior.with_damping(made, 0.2).P.trace())

    class PlantedMemory:
        def __init__(self, model, prior):
            self.scalars, self.trace_error = prior.scalars, abs(float(prior.P.trace() / wanted) - 1)

        def generate(self, state):
            s = self.scalars
            if state is cases[0].small:
                value = abs(s.n0 - 500.0) / 1e3
            elif state is cases[0].state:
                value = abs(s.eta - 0.05) + abs(s.clip - 3.0) / 10 - 1 + self.trace_error
            else:
                value = abs(s.eta_recent - 0.04) + abs(s.n0_recent - 800.0) / 1e4 + abs(s.fade_recent - 1000.0) / 1e10
            return type("Made", (), {"final_map": value})

    monkeypatch.setattr(estimate_prior, "mean_loss", loss)
    monkeypatch.setattr(estimate_prior, "GradientMemory", PlantedMemory)
    chosen = estimate_prior.tune_scalars(tiny, made, cases, lambda _: None)
    scalars = chosen.scalars
    assert float(chosen.P.trace()) == pytest.approx(wanted, rel=1e-3)
    assert (scalars.eta, scalars.clip, scalars.n0) == (pytest.approx(0.05), 3.0, 500.0)
    assert (scalars.eta_recent, scalars.n0_recent, scalars.fade_recent) == (0.04, 800.0, 1000.0)


def test_harm_counts_twice(tiny, made, cases, monkeypatch):
    """A step that gains 3 here and loses 2 there is worse than one that gains nothing."""
    several = [cases[0], replace(cases[0], state=deepcopy(cases[0].state))]
    values = {0.01: (0.0, 0.0), 0.02: (-3.0, 2.0)}

    class PlantedMemory:
        def __init__(self, model, prior):
            self.scalars = prior.scalars

        def generate(self, state):
            found = values.get(self.scalars.eta, (9.0, 9.0))
            return type("Made", (), {"final_map": found[state is several[1].state]})

    monkeypatch.setattr(estimate_prior, "mean_loss", lambda model, scored, C: 0.0 if C is None else C)
    monkeypatch.setattr(estimate_prior, "GradientMemory", PlantedMemory)
    monkeypatch.setattr(estimate_prior, "_best_recent", lambda model, prior, *_: prior)
    assert estimate_prior.tune_scalars(tiny, made, several, lambda _: None).scalars.eta == 0.01


def test_with_damping_equals_an_estimate_with_that_damping():
    rng = torch.Generator().manual_seed(3)
    F = torch.randn(12, 12, generator=rng, dtype=torch.float64)
    F = F @ F.T
    made = MemoryPrior(damped_inverse(F), damped_inverse(2 * F), torch.zeros(12, 12), torch.eye(12))
    again = estimate_prior.with_damping(made, 0.4)
    torch.testing.assert_close(again.P, damped_inverse(F, 0.4), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(again.Q, damped_inverse(2 * F, 0.4), rtol=1e-3, atol=1e-6)
    assert not torch.allclose(again.P, made.P, rtol=1e-2)
