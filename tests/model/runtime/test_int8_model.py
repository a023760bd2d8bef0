"""The int8 form of a base model: close to the model, the same bits in every batch, in cooperative steps."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from c2l_lsp.cooperative import drain, timed
from c2l_lsp.model.adapter.forward import NativeReader
from c2l_lsp.model.adapter.kv_sequence import sequence_reader
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime import int8_model, kernel, kernel_layers
from c2l_lsp.model.runtime.int8_model import Int8Model, runs_in_int8

pytestmark = pytest.mark.skipif(
    not kernel.is_available(), reason="the kernel was not built: no C compiler at installation"
)


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> BaseModel:
    monkeypatch.setattr(int8_model, "int8_is_faster", lambda lm: True)  # also on a CPU without AVX2
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048,
    )  # fmt: skip
    lm = LlamaForCausalLM(config).eval().requires_grad_(False)
    tokenizer = SimpleNamespace(bos_token_id=0, eos_token_id=None)
    return BaseModel("m", "m", lm, tokenizer, None, torch.device("cpu"), torch.float32, 2048, 0.0)


def texts(*lengths: int) -> list[list[int]]:
    dice = torch.Generator().manual_seed(3)
    return [torch.randint(0, 300, (n,), generator=dice).tolist() for n in lengths]


def test_text_has_the_same_bits_alone_in_a_batch_and_in_a_completion(base: BaseModel) -> None:
    assert isinstance(base.int8_model, Int8Model)
    rows = texts(7, 300, 1, 0, 65)
    together = drain(base.hidden_states_in_slices(rows))
    assert [len(states) for states in together] == [7, 300, 1, 0, 65]
    assert torch.equal(torch.cat([drain(base.hidden_states_in_slices([row]))[0] for row in rows]), torch.cat(together))
    reader = NativeReader(base.lm, AdapterSlot(base), int8=True, int8_model=base.int8_model)
    assert torch.equal(reader.new_sequence().prefill(rows[1], all_positions=True), together[1])
    assert torch.equal(reader.logits(together[1]), base.inference_logits(together[1]))


def test_int8_model_is_close_to_the_model(base: BaseModel) -> None:
    (row,) = texts(200)
    (states,) = drain(base.hidden_states_in_slices([row]))
    own = base.hidden(torch.tensor([row]))[0]
    assert 0 < float((states - own).norm() / own.norm()) < 0.03
    logits = base.logits(own)
    assert float((base.inference_logits(own) - logits).norm() / logits.norm()) < 0.01


def test_work_per_cooperative_step_is_bounded(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert base.int8_model is not None
    monkeypatch.setattr(kernel_layers, "_SLICE_WORK", base.int8_model.layers.weight_count * 16)
    rows = texts(45, 3, 16)
    states = drain(base.hidden_states_in_slices(rows))
    again, spent = drain(timed(base.hidden_states_in_slices(rows)))
    assert len(spent) == 3 + 1 + 1 + 1
    assert all(torch.equal(a, b) for a, b in zip(again, states, strict=True))


@pytest.mark.parametrize("change", [{"dtype": torch.bfloat16}, {"kernel": False}, {"large": True}])
def test_other_models_and_machines_use_the_original_weights(
    base: BaseModel, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runs_in_int8(base.lm)
    if "dtype" in change:
        base.lm.to(torch.bfloat16)
    if "kernel" in change:
        monkeypatch.setattr(int8_model, "kernel_supports", lambda lm: False)
    if "large" in change:
        monkeypatch.setattr(int8_model, "is_small", lambda lm: False)
    assert not runs_in_int8(base.lm) and base.int8_model is None
    rows = texts(9, 30)
    states = drain(base.hidden_states_in_slices(rows))
    assert [len(s) for s in states] == [9, 30]
    torch.testing.assert_close(states[0], base.hidden(torch.tensor([rows[0]]))[0], atol=2e-2, rtol=2e-2)
    assert torch.equal(base.inference_logits(states[0]), base.logits(states[0]))


def test_reader_reuses_the_int8_weights_of_the_base_model(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert base.int8_model is not None
    monkeypatch.setattr(
        "c2l_lsp.model.adapter.forward.fuse_projections", Mock(side_effect=AssertionError("fused a second time"))
    )
    monkeypatch.setattr("c2l_lsp.model.adapter.forward.int8_is_faster", lambda lm: True)
    reader = sequence_reader(replace(base), AdapterSlot(base))
    (row,) = texts(4)
    assert reader.new_sequence().prefill(row).shape == (1, 64)
