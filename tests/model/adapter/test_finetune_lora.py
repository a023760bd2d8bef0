"""LoRA by gradient descent: the loss falls, the base stays frozen, and the result is an ordinary adapter."""

from __future__ import annotations

import pytest
import torch

from c2l_lsp.errors import AdapterError, RequestCancelled
from c2l_lsp.model.adapter import finetune_lora
from c2l_lsp.model.adapter.lora import AdapterSlot, export_peft
from tests.support.benchmark_repositories import module

TEXTS = [module("ledger"), module("planet", 3)]


def _loss(model, text: str, adapter) -> float:
    slot = AdapterSlot(model)
    if adapter is not None:
        adapter.check(model)
    slot.activate(adapter)
    ids = torch.tensor([[model.start_id, *model.encode(text)[:400]]])
    logits = slot.logits(model.hidden(ids[:, :-1]))[0].float()
    loss = float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]))
    slot.activate(None)
    return loss


def test_training_lowers_the_loss_and_leaves_the_base_unchanged(tiny):
    before = {name: tensor.clone() for name, tensor in tiny.lm.state_dict().items()}
    adapter = finetune_lora.fit_lora(tiny, TEXTS, rank=4, steps=24, rate=1e-2, length=128, batch=2)
    assert _loss(tiny, TEXTS[0], adapter) < _loss(tiny, TEXTS[0], None) - 0.3
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny.lm.state_dict().items())
    assert len(adapter.pairs) == 2 * 7 and adapter.rank == 4 and adapter.kind == finetune_lora.KIND
    assert _loss(tiny, TEXTS[0], None) == _loss(tiny, TEXTS[0], adapter.scaled(0.0))  # no hook was left behind


def test_without_a_rank_whole_matrices_are_trained(tiny):
    adapter = finetune_lora.fit_lora(tiny, TEXTS, rank=None, steps=24, rate=2e-3, length=128, batch=2)
    assert _loss(tiny, TEXTS[0], adapter) < _loss(tiny, TEXTS[0], None) - 0.3
    down = next(pair for name, pair in adapter.pairs.items() if name.endswith("down_proj"))
    delta = down.B @ down.A
    assert int(torch.linalg.matrix_rank(delta)) > 16
    assert len(adapter.pairs) == 2 * 7


def test_equal_seeds_give_equal_bits(tiny):
    made = [
        finetune_lora.fit_lora(tiny, TEXTS, rank=2, steps=3, rate=1e-3, length=64, seed=s).digest for s in (0, 0, 1)
    ]
    assert made[0] == made[1] != made[2]


def test_epochs_cover_every_window(tiny):
    lines: list[str] = []
    rows = len(finetune_lora.windows(tiny, TEXTS, 64))
    finetune_lora.fit_lora(tiny, TEXTS, rank=2, epochs=2.0, rate=1e-3, length=64, batch=4, progress=lines.append)
    assert len(lines) == -(-2 * rows // 4)


def test_training_continues_from_an_adapter_and_keeps_its_final_map(tiny):
    first = finetune_lora.fit_lora(tiny, TEXTS, rank=2, steps=4, rate=2e-3, length=128, alpha=4.0)
    first = type(first)(first.base, first.kind, torch.eye(tiny.d) * 0.01, first.pairs)
    same = finetune_lora.fit_lora(tiny, TEXTS, rank=8, steps=1, rate=0.0, length=128, start=first)
    assert same.digest == first.digest
    later = finetune_lora.fit_lora(tiny, TEXTS, steps=12, rate=4e-3, length=128, start=first)
    assert _loss(tiny, TEXTS[0], later) < _loss(tiny, TEXTS[0], first)


def test_peft_runs_the_export_as_the_engine_does(tiny, tiny_folder, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = finetune_lora.fit_lora(tiny, TEXTS, rank=4, steps=4, rate=1e-2, length=128)
    export_peft(adapter, tiny, tmp_path)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), tmp_path)
    ids = torch.tensor([[tiny.start_id, *tiny.encode(TEXTS[1])[:60]]])
    slot = AdapterSlot(tiny)
    slot.activate(adapter)
    ours = slot.logits(tiny.hidden(ids))
    slot.activate(None)
    with torch.inference_mode():
        assert torch.allclose(theirs(input_ids=ids).logits, ours, atol=1e-4)


def test_cancelled_empty_and_diverged_training_raises(tiny):
    with pytest.raises(RequestCancelled):
        finetune_lora.fit_lora(tiny, TEXTS, steps=5, rate=1e-3, cancelled=lambda: True)
    with pytest.raises(AdapterError, match="no text"):
        finetune_lora.fit_lora(tiny, ["", "  \n"], steps=1, rate=1e-3)
    with pytest.raises(AdapterError, match="diverged"):
        finetune_lora.fit_lora(tiny, TEXTS, steps=4, rate=float("inf"), length=64)
