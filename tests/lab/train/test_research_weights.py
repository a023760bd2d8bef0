"""The hypernetworks in lab/weights: they load for their base model, and their adapters change it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from c2l_lsp.config import Model
from c2l_lsp.model.hypernet import checkpoint
from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder
from c2l_lsp.model.hypernet.protocol import StateChange
from c2l_lsp.model.lm import base

WEIGHTS = Path(__file__).parents[3] / "lab" / "weights" / "c2l-nano"


@pytest.mark.parametrize("kind", ["static", "evo"])
def test_weights_for_research_load_and_are_trained(kind: str, sources: list[str]) -> None:
    nano = base.load(Model(id=base.NANO, device="cpu"))
    found = checkpoint.load(WEIGHTS / kind)
    network = found.hypernetwork(nano, EmbeddingEncoder.of_base(nano))
    with torch.inference_mode():
        files = network.embed([chunk for text in sources[3:5] for chunk in network.chunks(text[:2000])])
    (state,) = network.update([network.empty_state()], [StateChange(added=files, first=True)])
    adapter = network.generate(state)
    assert adapter.base == nano.digest
    assert all(float(pair.B.norm()) > 0 for pair in adapter.pairs.values())
    assert not (base.ASSETS / nano.id / kind).exists()  # the server offers what is in that folder


def test_every_training_repository_is_named_with_commit_and_licence() -> None:
    manifest = json.loads((WEIGHTS / "training_manifest.json").read_text("utf-8"))
    about = {one["name"]: one for one in manifest["repositories"]}
    for kind in ("static", "evo"):
        assert {*manifest["hypernetworks"][kind]["train"], *manifest["hypernetworks"][kind]["tune"]} <= about.keys()
    assert all(one["commit"] and one["licence"] for one in about.values())
