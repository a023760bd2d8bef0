"""Operations and bytes of a decode step, of a growing cache and of a change of adapter; benchmarks measure time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2Config, Qwen2ForCausalLM

from c2l_lsp.model.adapter.forward import NativeReader
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime import kernel
from c2l_lsp.model.runtime.lora_pair import LoraPair
from c2l_lsp.model.runtime.quantized_linear import TorchInt8Linear

LAYERS, D = 3, 64


class Ops(TorchDispatchMode):
    """Counts what PyTorch dispatches: products, and bytes that are copied."""

    def __init__(self) -> None:
        super().__init__()
        self.products, self.copied, self.all = 0, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        self.all += 1
        self.products += name in ("mm", "addmm", "bmm", "matmul", "linear", "_linear_pointwise", "_weight_int8pack_mm")
        out = func(*args, **(kwargs or {}))
        if name in ("copy_", "clone", "cat", "stack", "_to_copy"):
            self.copied += out.numel() * out.element_size()
        return out


def model() -> BaseModel:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=300, hidden_size=D, intermediate_size=96, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048,
    )  # fmt: skip
    lm = Qwen2ForCausalLM(config).eval().requires_grad_(False)
    return BaseModel("m", "m", lm, None, None, torch.device("cpu"), torch.float32, 2048, 0.0)


def counted(action: Any) -> Ops:
    with torch.inference_mode(), Ops() as ops:
        action()
    return ops


def test_decode_step_has_six_products_per_layer_and_the_head():
    base = model()
    reader = NativeReader(base.lm, AdapterSlot(base), int8=False)
    text = reader.new_sequence()
    text.prefill([5] * 100)
    ops = counted(lambda: reader.logits(text.decode([7]), step=True))
    assert ops.products == 6 * LAYERS + 1, "q, k, v in one, gate and up in one, two for attention"
    drafted = counted(lambda: reader.logits(text.decode([7, 8, 9, 10, 11]), step=True))
    assert drafted.products == ops.products, "a draft is checked in one pass"
    assert drafted.all == ops.all


def test_bytes_copied_per_step_do_not_grow_with_the_text():
    base = model()
    reader = NativeReader(base.lm, AdapterSlot(base), int8=False)
    copied = []
    for length in (70, 240):
        text = reader.new_sequence()
        text.prefill([5] * length)
        copied.append(counted(lambda text=text: text.decode([7])).copied)
    row = 2 * 2 * 16 * 4  # keys and values of a token in one layer
    assert max(copied) < 12 * LAYERS * row, "a few vectors, never the KV of 70 or 240 tokens"


def test_kv_cache_moves_once_in_256_tokens():
    base = model()
    text = NativeReader(base.lm, AdapterSlot(base), int8=False).new_sequence()
    text.prefill([5])
    addresses = set()
    for _ in range(700):
        text.decode([7])
        addresses.add(text._layer_kv[0].data_ptr())
    assert len(addresses) <= 3


def test_recent_adapter_is_activated_without_any_computation():
    base = model()
    slot = AdapterSlot(base)
    reader = NativeReader(base.lm, slot, int8=False)
    pair = LoraPair(torch.randn(4, D), torch.randn(D, 4))
    adapters = [Adapter("m", "t", torch.randn(D, D), {"model.layers.1.self_attn.q_proj": pair}) for _ in range(2)]
    for adapter in adapters:
        slot.activate(adapter)
        reader.prepare()

    def swap() -> None:
        for adapter in (None, *adapters, None, adapters[0]):
            slot.activate(adapter)
            reader.prepare()

    ops = counted(swap)
    assert (ops.all, ops.copied) == (0, 0)


def test_int8_steps_read_half_of_the_bytes():
    base = model()
    base.lm.to(torch.bfloat16)
    reader = NativeReader(base.lm, AdapterSlot(base), int8=True, compiled=False)
    step = reader.weights(step=True)
    held = [part for layer in step.layers for part in (layer.qkv, layer.output, layer.gate_up, layer.down)]
    assert all(isinstance(part, TorchInt8Linear) for part in [*held, step.head])
    matrices = [p for name, p in base.lm.named_parameters() if p.ndim == 2 and "embed" not in name]
    plain = sum(p.numel() * 2 for p in matrices)
    assert sum(part.weight.numel() for part in [*held, step.head]) == plain // 2


@pytest.mark.skipif(not kernel.is_available(), reason="the kernel was not built: no C compiler at installation")
def test_compiled_step_is_one_call(monkeypatch: pytest.MonkeyPatch):
    base = model()
    reader = NativeReader(base.lm, AdapterSlot(base), int8=True, compiled=True)
    text = reader.new_sequence()
    text.prefill([5] * 100)
    calls = list[str]()
    for name in ("step", "multiply"):
        real = getattr(kernel.extension(), name)
        monkeypatch.setattr(kernel.extension(), name, lambda *a, name=name, real=real: (calls.append(name), real(*a)))
    ops = counted(lambda: reader.logits(text.decode([7, 8, 9]), step=True))
    assert calls == ["step", "multiply"]
    assert ops.products == 0
    assert ops.all <= 8, "room for what is computed"
