"""Memory priors: they round-trip through files, and damaged files are refused."""

from __future__ import annotations

import pytest
import torch

from c2l_lsp.errors import CheckpointError
from c2l_lsp.model.hypernet import prior as priors
from c2l_lsp.model.hypernet.prior import Curvature, estimate


@pytest.fixture
def prior():
    torch.manual_seed(0)
    curvature = Curvature.zeros(8)
    curvature.add(torch.randn(200, 8), torch.randn(200, 8))
    return estimate(curvature, means=[torch.randn(8, 8)])


def test_prior_round_trips_through_a_file(prior, tmp_path):
    priors.save(prior, tmp_path / "p.safetensors", base="b")
    back = priors.load(tmp_path / "p.safetensors", base="b")
    assert back.scalars == prior.scalars
    assert torch.equal(back.P, prior.P)
    assert torch.equal(back.mean, prior.mean)
    assert back.digest == prior.digest


def test_scalar_missing_in_an_older_file_gets_its_default(prior, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "p.safetensors"
    about = {
        "format": "c2l-memory-prior-2",
        "base": "b",
        "steps": '{"eta": 0.07}',
    }
    tensors = {name: tensor.contiguous() for name, tensor in priors.to_tensors(prior).items()}
    save_file(tensors | {"steps": torch.zeros(3)}, path, metadata=about)
    assert priors.load(path, base="b").scalars == priors.PriorScalars(eta=0.07)
    for steps in ('{"of another kind": 1}', "no JSON"):
        save_file(tensors, path, metadata=about | {"steps": steps})
        with pytest.raises(CheckpointError, match="scalars"):
            priors.load(path, base="b")


def test_prior_of_another_base_is_refused(prior, tmp_path):
    priors.save(prior, tmp_path / "p.safetensors", base="b")
    with pytest.raises(CheckpointError, match="another base"):
        priors.load(tmp_path / "p.safetensors", base="c")


def test_prior_with_numbers_that_are_not_finite_is_refused(prior, tmp_path):
    prior.P[0, 0] = float("nan")
    priors.save(prior, tmp_path / "p.safetensors", base="b")
    with pytest.raises(CheckpointError, match="not finite"):
        priors.load(tmp_path / "p.safetensors", base="b")


def test_truncated_file_is_refused(prior, tmp_path):
    path = tmp_path / "p.safetensors"
    priors.save(prior, path, base="b")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        priors.load(path, base="b")


def test_missing_tensor_is_refused(prior):
    tensors = priors.to_tensors(prior)
    del tensors["Q"]
    with pytest.raises(CheckpointError, match="incomplete"):
        priors.from_tensors(tensors)


def test_estimate_without_text_is_refused():
    with pytest.raises(CheckpointError, match="at least one"):
        estimate(Curvature.zeros(4))


def test_damped_inverse_without_damping_is_the_inverse():
    torch.manual_seed(0)
    root = torch.randn(10, 30)
    M = root @ root.T / 30
    inverse = priors.damped_inverse(M, damping=0.0)
    torch.testing.assert_close(inverse @ M, torch.eye(10), atol=1e-3, rtol=1e-3)
