"""What ships inside: every model loads offline, speaks Python, and the larger one speaks it better."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from c2l_lsp.config import Model
from c2l_lsp.model import base

TEXT = Path(base.__file__).with_name("heal.py").read_text(encoding="utf-8")


@torch.inference_mode()
def bits_per_byte(name: str) -> float:
    model = base.load(Model(id=name))
    ids = [model.start, *model.encode(TEXT)][:700]
    rows = torch.tensor([ids])
    logits = model.logits(model.hidden(rows[:, :-1])[0]).float()
    total = torch.nn.functional.cross_entropy(logits, rows[0, 1:], reduction="sum")
    return float(total) / 0.6931 / len(model.decode(ids[1:]).encode())


def test_the_larger_model_knows_more_of_text_that_neither_saw() -> None:
    found = {name: bits_per_byte(name) for name in base.SHIPPED}
    assert found["c2l-default"] < 1.5
    assert found["c2l-small"] < found["c2l-default"] - 0.05, found


@pytest.mark.parametrize("name", base.SHIPPED)
def test_a_shipped_model_has_its_card_and_knows_how_to_fill(name: str) -> None:
    assert base.load(Model(id=name)).fim is not None
    card = (base.ASSETS / name / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: apache-2.0")
    assert f"# {name}\n" in card
