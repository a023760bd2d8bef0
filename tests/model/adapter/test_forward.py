"""Our forward pass: equal to transformers for each family, equal bits for any division into calls, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from c2l_lsp.model.adapter.forward import NativeReader
from c2l_lsp.model.adapter.kv_sequence import TransformersReader, sequence_reader
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime import kernel
from c2l_lsp.model.runtime.fusion import fuse_projections, packing_is_faster, unsupported_reason
from c2l_lsp.model.runtime.lora_pair import LoraPair
from c2l_lsp.model.runtime.quantized_linear import LinearWithLora, TorchInt8Linear, int8_is_faster
from c2l_lsp.model.runtime.weights import DenseLinear

torch.set_num_threads(1)
V, D = 300, 64
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("qwen2", {}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "llama": ("llama", {}),
    "llama, every bias": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, all heads have keys": ("llama", {"num_attention_heads": 8, "num_key_value_heads": 8}),
    "llama, one head of keys": ("llama", {"num_key_value_heads": 1, "head_dim": 32}),
    "llama, linear positions": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    ),
    "llama, llama3 positions": ("llama", {"rope_parameters": LLAMA3}),
    "mistral": ("mistral", {"sliding_window": None}),
}
FAMILIES = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
}


def make(family: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A tiny model with random weights, norms and biases; logits up to about 8."""
    torch.manual_seed(0)
    config, model = FAMILIES[family]
    sizes = {
        "vocab_size": V, "hidden_size": D, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 4096, "initializer_range": 0.2,
        "attn_implementation": "sdpa", **changes,
    }  # fmt: skip
    lm = model(config(**sizes)).eval().requires_grad_(False)
    for name, weight in lm.named_parameters():
        if name.endswith("bias") or "norm" in name:
            weight.data += 0.2 * torch.randn_like(weight)
    return lm.to(dtype)


def wrap(lm: Any) -> BaseModel:
    return BaseModel(
        id="tiny", digest="tiny", lm=lm, tokenizer=SimpleNamespace(), fim=None, device=torch.device("cpu"),
        dtype=lm.dtype, max_context=4096, load_ms=0.0,
    )  # fmt: skip


def tokens(count: int) -> list[int]:
    return torch.randint(0, V, (count,), generator=torch.Generator().manual_seed(1)).tolist()


def expected(lm: Any, ids: list[int]) -> Tensor:
    return lm(input_ids=torch.tensor([ids])).logits[0]


@torch.inference_mode()
def read(reader: Any, ids: list[int], *sizes: int) -> Tensor:
    """Logits [n, V] of ids, prefilled in parts of the given sizes and the rest."""
    text, parts, at = reader.new_sequence(), [], 0
    for size in (*sizes, len(ids) - sum(sizes)):
        parts.append(text.prefill(ids[at : at + size], all_positions=True))
        at += size
    return reader.logits(torch.cat(parts))


PART_SIZES = (1, 1, 5, 100, 1, 16, 17, 64, 130, 1, 8)


@pytest.mark.parametrize("name", SHAPES)
def test_fp32_equals_transformers_for_any_division_into_calls(name: str):
    family, changes = SHAPES[name]
    lm = make(family, **changes)
    ids = tokens(450)
    want = expected(lm, ids)
    assert unsupported_reason(lm) == ""
    reader = NativeReader(lm, AdapterSlot(wrap(lm)), int8=False)
    assert (read(reader, ids) - want).abs().max() <= 1e-4
    assert (read(reader, ids, *PART_SIZES) - want).abs().max() <= 1e-4
    assert torch.equal(expected(lm, ids), want), "fusing changed the model itself"


@pytest.mark.parametrize("name", ["qwen2", "llama", "llama, all heads have keys"])
def test_bf16_is_as_close_to_fp32_as_bf16_of_transformers(name: str):
    family, changes = SHAPES[name]
    ids = tokens(300)
    exact = expected(make(family, **changes), ids)
    lm = make(family, torch.bfloat16, **changes)
    theirs = (expected(lm, ids).float() - exact).square().mean().sqrt()
    ours = (read(NativeReader(lm, AdapterSlot(wrap(lm)), int8=False), ids).float() - exact).square().mean().sqrt()
    assert ours <= 1.25 * theirs


@pytest.mark.parametrize("name", SHAPES)
def test_bf16_bits_are_independent_of_the_division_into_calls(name: str):
    family, changes = SHAPES[name]
    lm = make(family, torch.bfloat16, **changes)
    if not packing_is_faster(lm):
        pytest.skip("this CPU does not multiply bf16, so products of few and many rows differ in the last bit")
    reader = NativeReader(lm, AdapterSlot(wrap(lm)), int8=False)
    ids = tokens(450)
    assert torch.equal(read(reader, ids), read(reader, ids, *PART_SIZES))


def test_packing_changes_no_bit(monkeypatch: pytest.MonkeyPatch):
    lm = make("qwen2", torch.bfloat16)
    if not packing_is_faster(lm):
        pytest.skip("nothing is packed on this CPU")
    ids = tokens(200)
    packed = read(NativeReader(lm, AdapterSlot(wrap(lm)), int8=False), ids)
    monkeypatch.setattr("c2l_lsp.model.runtime.fusion._SMALL_MODEL_BYTES", 0)
    reader = NativeReader(lm, AdapterSlot(wrap(lm)), int8=False)
    assert isinstance(reader.weights().head, DenseLinear) and not reader.weights().head.packed
    assert torch.equal(read(reader, ids), packed)


def test_last_row_alone_equals_the_last_of_all_rows():
    lm = make("llama")
    reader = NativeReader(lm, AdapterSlot(wrap(lm)), int8=False)
    ids = tokens(200)
    last = reader.logits(reader.new_sequence().prefill(ids))
    assert last.shape == (1, V)
    assert (last[0] - expected(lm, ids)[-1]).abs().max() <= 1e-4


def test_cropped_sequence_continues_as_if_the_rest_never_existed():
    lm = make("qwen2")
    reader = NativeReader(lm, AdapterSlot(wrap(lm)), int8=False)
    ids, other = tokens(400), tokens(800)[500:540]
    text = reader.new_sequence()
    text.prefill(ids)
    text.crop(123)
    got = reader.logits(text.prefill(other, all_positions=True))
    assert (got - expected(lm, ids[:123] + other)[123:]).abs().max() <= 1e-4


def test_long_sequences_grow_the_kv_cache_and_the_rotary_table():
    lm = make("llama", num_hidden_layers=2)
    reader = NativeReader(lm, AdapterSlot(wrap(lm)), int8=False)
    ids = tokens(2500)
    assert (read(reader, ids, 10, 1000, 1, 300) - expected(lm, ids)).abs().max() <= 1e-4


def test_fused_gpu_attention_equals_plain_attention(monkeypatch: pytest.MonkeyPatch):
    lm = make("qwen2")
    reader = NativeReader(lm, AdapterSlot(wrap(lm)), int8=False)
    ids = tokens(200)
    want = read(reader, ids, 60)
    from c2l_lsp.model.runtime.attention import Attention

    monkeypatch.setattr(Attention, "__call__", Attention.fused)
    assert (read(reader, ids, 60, 1) - want).abs().max() <= 1e-4


# --- adapters --------------------------------------------------------------------------------------------------------

INNER = ("q_proj", "k_proj", "v_proj", "o_proj")


def adapter(seed: int, *, names: tuple[str, ...] = ()) -> Adapter:
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return 0.2 * torch.randn(*shape, generator=generator)

    lm = make("qwen2")
    found = names or tuple(f"model.layers.{i}.self_attn.{part}" for i in (0, 2) for part in INNER)
    found += () if names else ("model.layers.1.mlp.gate_proj", "model.layers.1.mlp.down_proj")
    pairs = {}
    for name in found:
        out, into = lm.get_submodule(name).weight.shape
        pairs[name] = LoraPair(noise(4, into), noise(out, 4), scale=0.5)
    return Adapter("tiny", "static", final_map=noise(D, D) * 0.1, pairs=pairs)


def test_adapters_act_as_in_transformers_and_are_removed_completely():
    lm = make("qwen2")
    model = wrap(lm)
    slot = AdapterSlot(model)
    ours, theirs = NativeReader(lm, slot, int8=False), TransformersReader(model, slot)
    ids = tokens(150)
    bare = read(ours, ids)
    for current in (adapter(1), adapter(2), replace(adapter(1), final_map=None), replace(adapter(1), pairs={}), None):
        slot.activate(current)
        got = read(ours, ids, 100, 3)
        assert (got - read(theirs, ids)).abs().max() <= 1e-4
        assert torch.equal(read(ours, ids), bare) == (current is None)


def test_pairs_are_merged_once_per_adapter(monkeypatch: pytest.MonkeyPatch):
    lm = make("qwen2")
    slot = AdapterSlot(wrap(lm))
    reader, current = NativeReader(lm, slot, int8=False), adapter(1)
    slot.activate(current)
    first = reader.weights()
    slot.activate(current)
    assert reader.weights() is first
    slot.activate(None)  # as adapter work does between two completions
    assert reader.weights() is not first
    merges = []
    monkeypatch.setattr("c2l_lsp.model.adapter.forward.merge_lora", lambda *a: merges.append(1))
    slot.activate(current)
    assert reader.weights() is first
    assert merges == []


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_beside_a_large_model_act_as_in_transformers(family: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("c2l_lsp.model.runtime.fusion._SMALL_MODEL_BYTES", 0)
    lm = make(family, **({"sliding_window": None} if family == "mistral" else {}))
    model = wrap(lm)
    slot = AdapterSlot(model)
    ours, theirs = NativeReader(lm, slot, int8=False), TransformersReader(model, slot)
    ids = tokens(120)
    bare = read(ours, ids)
    for current in (adapter(1), adapter(2), None):
        slot.activate(current)
        assert (read(ours, ids, 100, 3) - read(theirs, ids)).abs().max() <= 1e-4
        assert torch.equal(read(ours, ids), bare) == (current is None)
    slot.activate(adapter(1))
    layers = ours.weights().layers
    assert isinstance(layers[0].qkv, LinearWithLora) and isinstance(layers[1].gate_up, LinearWithLora)
    assert layers[1].qkv is ours.shape.layers[1].qkv  # what has no pairs is not touched


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("adapted", [False, True])
def test_logits_equal_transformers_with_peft(family: str, adapted: bool, tmp_path: Path):
    """Tolerance 1e-4 in fp32, on logits of up to about 8."""
    from peft import PeftModel

    from c2l_lsp.model.adapter.lora import export_peft

    changes = {"sliding_window": None} if family == "mistral" else {}
    lm = make(family, **changes)
    model, ids = wrap(lm), tokens(90)
    slot = AdapterSlot(model)
    reader = NativeReader(lm, slot, int8=False)
    want = expected(lm, ids)
    if adapted:
        slot.activate(adapter(1))
        export_peft(adapter(1), model, tmp_path)
        want = expected(PeftModel.from_pretrained(make(family, **changes), tmp_path), ids)
    assert (read(reader, ids, 60, 1) - want).abs().max() <= 1e-4
    text = reader.new_sequence()
    prompt = reader.logits(text.prefill(ids[:70]))
    steps = [reader.logits(text.decode(ids[at : at + 4]), step=True) for at in range(70, 90, 4)]
    assert (torch.cat([prompt, *steps]) - want[69:]).abs().max() <= 1e-4


# --- steps of fixed shapes, for a CUDA graph -------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_steps_of_fixed_shapes_equal_transformers_across_growth_and_crops(name: str):
    family, changes = SHAPES[name]
    lm = make(family, **changes)
    slot = AdapterSlot(wrap(lm))
    reader, ids = NativeReader(lm, slot, int8=False, fixed_shapes=True), tokens(620)
    want = expected(lm, ids)
    text = reader.new_sequence()
    text.prefill(ids[:480])
    at, sizes = 480, (1, 1, 5, 3, 1, 9, 4, *[1] * 20)  # 512 is where the KV grows
    for size in sizes:
        hidden = text.decode(ids[at : at + size])
        assert (reader.logits(hidden) - want[at : at + size]).abs().max() <= 1e-4
        at += size
    text.crop(500)  # drafts that were wrong
    assert (reader.logits(text.decode(ids[500:504])) - want[500:504]).abs().max() <= 1e-4
    assert (reader.logits(text.prefill(ids[504:600], all_positions=True)) - want[504:600]).abs().max() <= 1e-4
    assert (reader.logits(text.decode(ids[600:612])) - want[600:612]).abs().max() <= 1e-4  # more than any graph takes


def test_fixed_steps_follow_the_adapter():
    lm = make("qwen2")
    slot = AdapterSlot(wrap(lm))
    fixed, plain = (NativeReader(lm, slot, int8=False, fixed_shapes=fixed) for fixed in (True, False))
    ids = tokens(60)
    for current in (adapter(1), None, adapter(2)):
        slot.activate(current)
        texts = [reader.new_sequence() for reader in (fixed, plain)]
        for text in texts:
            text.prefill(ids[:40])
        got, want = (reader.logits(text.decode(ids[40:45])) for reader, text in zip((fixed, plain), texts, strict=True))
        assert (got - want).abs().max() <= 1e-4


# --- int8 ------------------------------------------------------------------------------------------------------------


def steps(reader: NativeReader, ids: list[int], *sizes: int) -> Tensor:
    text, parts, at = reader.new_sequence(), [], 0
    for size in sizes:
        parts.append(reader.logits(text.decode(ids[at : at + size]), step=True))
        at += size
    return torch.cat(parts)


@pytest.mark.parametrize("name", ["qwen2", "llama, every bias", "llama, one head of keys"])
def test_int8_steps_have_the_same_bits_for_any_draft_length(name: str):
    family, changes = SHAPES[name]
    lm = make(family, torch.bfloat16, **changes)
    if not packing_is_faster(lm):
        pytest.skip("this CPU does not multiply bf16, so products of few and many rows differ in the last bit")
    reader, ids = NativeReader(lm, AdapterSlot(wrap(lm)), int8=True, compiled=False), tokens(48)
    assert isinstance(reader.weights(step=True).layers[0].qkv, TorchInt8Linear)
    single = steps(reader, ids, *[1] * 48)
    assert torch.equal(steps(reader, ids, 5, 1, 9, 5, 1, 1, 2, 16, 8), single)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("compiled", [False, True])
def test_int8_is_close_and_used_in_prefill_only_where_bits_match(dtype: torch.dtype, compiled: bool):
    if compiled and not kernel.is_available():
        pytest.skip("the kernel was not built: no C compiler at installation")
    lm = make("qwen2", dtype)
    slot = AdapterSlot(wrap(lm))
    plain = NativeReader(lm, slot, int8=False)
    quick = NativeReader(lm, slot, int8=True, compiled=compiled)
    ids, one = tokens(100), compiled and dtype == torch.float32
    for current in (None, adapter(1)):
        slot.activate(current)
        want, got = read(plain, ids), read(quick, ids)
        assert torch.equal(want, got) is not one
        assert (got - want).float().square().mean().sqrt() <= 0.1 * want.float().square().mean().sqrt()
        want, got = steps(plain, ids, *[10] * 10).float(), steps(quick, ids, *[10] * 10).float()
        assert not torch.equal(want, got)
        assert (got - want).square().mean().sqrt() <= 0.1 * want.square().mean().sqrt()
    assert (plain.decode_matches_prefill, quick.decode_matches_prefill) == (True, one)


@pytest.mark.parametrize(
    ("native", "capability", "dtype", "pays"),
    [
        (True, "AVX512", torch.bfloat16, True),
        (True, "AVX512", torch.float32, False),  # somebody asked for fp32 where bf16 is faster: they get it
        (False, "AVX2", torch.float32, True),
        (False, "AVX2", torch.bfloat16, False),
        (False, "DEFAULT", torch.float32, False),
    ],
)
def test_int8_is_used_for_the_fastest_dtype_of_a_cpu(native, capability, dtype, pays, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert int8_is_faster(make("llama", dtype, num_hidden_layers=1)) is pays


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_int8_rows_have_the_same_bits_alone_and_together(dtype: torch.dtype):
    quick, x = TorchInt8Linear.quantize(DenseLinear(torch.randn(96, 64, dtype=dtype))), torch.randn(7, 64, dtype=dtype)
    assert torch.equal(torch.cat([quick(row[None]) for row in x]), quick(x)) and quick(x).dtype == dtype


def test_matrix_of_unsupported_width_is_not_quantised():
    W = torch.randn(40, 33, dtype=torch.bfloat16)
    assert isinstance(TorchInt8Linear.quantize(DenseLinear(W)), DenseLinear)
    kept = TorchInt8Linear.quantize(
        DenseLinear(torch.randn(37, 64, dtype=torch.bfloat16), torch.ones(37, dtype=torch.bfloat16))
    )
    assert isinstance(kept, TorchInt8Linear)
    x = torch.randn(3, 64, dtype=torch.bfloat16)
    want = (x.float() @ kept.weight.float().T) * kept.scale.float() + 1
    assert (kept(x).float() - want).abs().max() <= 0.2


def test_large_model_has_one_copy_of_gate_and_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("c2l_lsp.model.runtime.fusion._SMALL_MODEL_BYTES", 0)
    lm = make("qwen2")
    fused = fuse_projections(lm).layers[0].gate_up
    assert isinstance(fused, DenseLinear)
    assert fused.weight.data_ptr() == lm.model.layers[0].mlp.gate_proj.weight.data_ptr()


def test_pairs_outside_the_layers_use_the_transformers_reader():
    lm = make("qwen2")
    model = wrap(lm)
    slot = AdapterSlot(model)
    reader = sequence_reader(model, slot)
    ids = tokens(50)
    slot.activate(replace(adapter(1, names=("lm_head",)), final_map=None))
    want = read(TransformersReader(model, slot), ids)
    assert (read(reader, ids) - want).abs().max() <= 1e-4
    slot.activate(None)
    assert (want - read(reader, ids)).abs().max() > 0.1


# --- where it steps aside --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"hidden_act": "gelu"}, "activation"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "position scaling"),
    ],
)
def test_unsupported_architecture_is_refused(changes: dict[str, Any], why: str):
    assert why in unsupported_reason(make("llama", **changes))


def test_sliding_windows_are_refused():
    assert "window" in unsupported_reason(make("mistral", sliding_window=128))
    windowed = make("qwen2", use_sliding_window=True, sliding_window=128, max_window_layers=1)
    assert "window" in unsupported_reason(windowed)


def test_unsupported_architecture_uses_the_transformers_reader():
    torch.manual_seed(0)
    lm = GPT2LMHeadModel(GPT2Config(vocab_size=V, n_embd=D, n_layer=2, n_head=4)).eval().requires_grad_(False)
    reader = sequence_reader(wrap(lm), AdapterSlot(wrap(lm)))
    ids = tokens(60)
    assert (read(reader, ids, 20, 1) - expected(lm, ids)).abs().max() <= 1e-4
    text = reader.new_sequence()
    text.prefill(ids)
    text.crop(30)
    assert (reader.logits(text.prefill(ids[30:]))[0] - expected(lm, ids)[-1]).abs().max() <= 1e-4
