"""The kernel against the same arithmetic in PyTorch, at every register width of the processor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from c2l_lsp.model.adapter.forward import NativeReader
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime import kernel
from c2l_lsp.model.runtime.lora_pair import LoraPair
from c2l_lsp.model.runtime.quantized_linear import KernelInt8Linear
from c2l_lsp.model.runtime.weights import DenseLinear

pytestmark = pytest.mark.skipif(
    not kernel.is_available(), reason="the kernel was not built: no C compiler at installation"
)


@pytest.fixture(params=[4, 8])
def lanes(request: pytest.FixtureRequest) -> Iterator[int]:
    """Each register width in turn."""
    select = kernel.extension().select_lanes
    if not select(request.param):
        pytest.skip(f"this processor has no registers of {request.param} numbers")
    yield request.param
    assert select(8) or select(4)


SHAPES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaForCausalLM, LlamaConfig(
        vocab_size=160, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, attention_bias=True, max_position_embeddings=2048, tie_word_embeddings=True,
    )),
    "qwen": (Qwen2ForCausalLM, Qwen2Config(
        vocab_size=192, hidden_size=128, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, head_dim=48,
    )),
    "even": (LlamaForCausalLM, LlamaConfig(
        vocab_size=144, hidden_size=256, intermediate_size=272, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=2048,
    )),
}  # fmt: skip


def make_model(name: str, dtype: torch.dtype = torch.float32) -> BaseModel:
    """A random model whose matrices are exactly representable in int8."""
    torch.manual_seed(3)
    kind, config = SHAPES[name]
    lm = kind(config).eval().requires_grad_(False)
    for parameter_name, p in lm.named_parameters():
        if p.ndim == 2 and "embed" not in parameter_name and "lm_head" not in parameter_name:
            p.normal_(std=0.15)
            scale = p.abs().amax(1, keepdim=True) / 127
            p.copy_((p / scale).round() * scale)
        elif p.ndim == 1:
            p.normal_(std=0.1).add_(1.0 if "norm" in parameter_name else 0.0)
    return BaseModel("m", "m", lm.to(dtype), None, None, torch.device("cpu"), dtype, 2048, 0.0)


def make_readers(base: BaseModel, slot: AdapterSlot) -> tuple[NativeReader, NativeReader]:
    """A reader by PyTorch in the model's dtype, and one by the kernel."""
    plain = NativeReader(base.lm, slot, int8=False)
    quick = NativeReader(base.lm, slot, int8=True, compiled=True)
    assert quick.compiled_decode is not None
    return plain, quick


def assert_near(got: Tensor, expected: Tensor, tolerance: float = 2e-3) -> None:
    """Equal up to the rounding of activations, keys and values to 16 bits: in norm, and tenfold in single elements."""
    got, expected = got.float(), expected.float()
    torch.testing.assert_close(got, expected, rtol=10 * tolerance, atol=10 * tolerance)
    assert float((got - expected).norm() / expected.norm()) < tolerance


def ids_of(base: BaseModel, count: int) -> list[int]:
    return torch.randint(0, base.vocabulary, (count,), generator=torch.Generator().manual_seed(1)).tolist()


@pytest.mark.parametrize("name", SHAPES)
def test_steps_equal_pytorch_across_growth_of_the_kv_cache(name: str, lanes: int) -> None:
    base = make_model(name)
    plain, quick = make_readers(base, AdapterSlot(base))
    ids = ids_of(base, 700)
    for begin in (1, 63, 300):
        ours, theirs = quick.new_sequence(), plain.new_sequence()
        for text in (ours, theirs):
            text.prefill(ids[:begin])
        at = begin
        for count in (1, 2, 3, 4, 5, 9, 1, 260):  # 260 exceeds the capacity
            expected, got = theirs.decode(ids[at : at + count]), ours.decode(ids[at : at + count])
            at += count
            assert_near(got, expected)
        assert len(ours._layer_kv[0]) == len(theirs._layer_kv[0])
        for mine, yours in zip(ours._layer_kv, theirs._layer_kv, strict=True):
            assert_near(mine[:at], yours[:at])


@pytest.mark.parametrize("name", SHAPES)
def test_bits_do_not_depend_on_how_a_text_is_divided_into_prompts_and_steps(name: str, lanes: int) -> None:
    base = make_model(name)
    for parameter in base.lm.parameters():
        parameter.mul_(1 + 0.03 * torch.randn_like(parameter))  # no longer exact in int8
    slot = AdapterSlot(base)
    plain, quick = make_readers(base, slot)
    assert quick.decode_matches_prefill and quick.compiled_prefill is not None and plain.compiled_prefill is None
    ids = ids_of(base, 300)
    whole, cut, unrounded = quick.new_sequence(), quick.new_sequence(), plain.new_sequence()
    expected, lost = whole.prefill(ids, all_positions=True), unrounded.prefill(ids, all_positions=True)
    at, parts = 0, []
    for count in (90, 1, 2, 8, 5, 100, 3, 4, 87):
        read = cut.decode if count in (2, 5) else lambda some: cut.prefill(some, all_positions=True)
        parts.append(read(ids[at : at + count]))
        at += count
    got = torch.cat(parts)
    assert torch.equal(got, expected)
    assert torch.equal(cut._cache[:, :300], whole._cache[:, :300])
    assert torch.equal(quick.logits(got), quick.logits(expected, step=True))
    assert torch.equal(quick.new_sequence().prefill(ids), expected[-1:]), "the last row alone"
    assert 0 < float((lost - expected).norm()) < 0.1 * float(lost.norm()), "the int8 rounding error, and not more"


def test_keys_and_values_are_rounded_to_fp16_as_in_pytorch(lanes: int) -> None:
    base = make_model("qwen")
    attention = base.lm.model.layers[0].self_attn
    attention.v_proj.weight.zero_()
    special = [
        0.1,
        -1 / 3,
        65504.0,
        65519.9,
        -65520.0,
        1e9,
        -torch.inf,
        torch.nan,
        6e-8,
        -2e-8,
        3e-5,
        6.1e-5,
        0.0,
        2049.0,
    ]
    values = torch.cat((torch.tensor(special), torch.randn(96 - len(special))))
    attention.v_proj.bias.copy_(values)
    reader = NativeReader(base.lm, AdapterSlot(base), int8=True, compiled=True)
    text = reader.new_sequence()
    text.prefill([5])
    assert text._cache.dtype == torch.float16
    torch.testing.assert_close(text._cache[0, 0, 96:], values.half(), rtol=0, atol=0, equal_nan=True)
    attention.v_proj.bias.copy_(torch.where(values.isfinite() & (values.abs() < 1e3), values, 1e-7))  # subnormals too
    quick = NativeReader(base.lm, AdapterSlot(base), int8=True, compiled=True)
    seen, twin = quick.new_sequence(), NativeReader(base.lm, AdapterSlot(base), int8=False).new_sequence()
    assert_near(seen.prefill([5]), twin.prefill([5]))


def test_bf16_model_reads_prompts_by_pytorch() -> None:
    reader = NativeReader(
        make_model("even", torch.bfloat16).lm, AdapterSlot(make_model("even")), int8=True, compiled=True
    )
    assert reader.compiled_decode is not None and reader.compiled_prefill is None and not reader.decode_matches_prefill


def test_bf16_model_has_a_bf16_kv_cache(lanes: int) -> None:
    base = make_model("qwen", torch.bfloat16)
    quick, torchs = (
        NativeReader(base.lm, AdapterSlot(base), int8=True, compiled=compiled) for compiled in (True, False)
    )
    ids = ids_of(base, 100)
    ours, theirs = quick.new_sequence(), torchs.new_sequence()
    ours.prefill(ids[:80]), theirs.prefill(ids[:80])
    got, expected = ours.decode(ids[80:84]), theirs.decode(ids[80:84])
    assert got.dtype == ours._layer_kv[0].dtype == torch.bfloat16
    for mine, yours in ((got, expected), (ours._cache[:, 80:84], torch.stack(theirs._layer_kv)[:, 80:84])):
        assert float((mine.float() - yours.float()).norm() / yours.float().norm()) < 0.03  # bf16 activations


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_of_a_step_do_not_depend_on_its_number_of_tokens(lanes: int, dtype: torch.dtype) -> None:
    base = make_model("llama", dtype)
    _, quick = make_readers(base, AdapterSlot(base))
    ids = ids_of(base, 90)
    whole, single = quick.new_sequence(), quick.new_sequence()
    whole.prefill(ids[:70]), single.prefill(ids[:70])
    together = whole.decode(ids[70:87])
    assert torch.equal(together, torch.cat([single.decode([token]) for token in ids[70:87]]))
    assert torch.equal(whole._cache[:, :87], single._cache[:, :87])


def test_steps_use_merged_lora_pairs() -> None:
    base = make_model("even")
    slot = AdapterSlot(base)
    plain, quick = make_readers(base, slot)
    name = "model.layers.0.mlp.down_proj"
    out, inside = base.lm.get_submodule(name).weight.shape
    ids = ids_of(base, 40)

    def stepped(reader: NativeReader) -> Tensor:
        text = reader.new_sequence()
        text.prefill(ids[:30])
        return text.decode(ids[30:33])

    unadapted = stepped(quick)
    torch.manual_seed(4)
    slot.activate(Adapter("m", "test", pairs={name: LoraPair(torch.randn(4, inside), torch.randn(out, 4), 0.05)}))
    adapted = stepped(quick)
    assert float((adapted - unadapted).norm() / unadapted.norm()) > 0.05
    expected = stepped(plain)
    assert float((adapted - expected).norm() / expected.norm()) < 0.01  # merged weights are quantised again


@pytest.mark.parametrize("name", SHAPES)
def test_steps_of_a_large_model_use_unmerged_lora_pairs(name: str, lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("c2l_lsp.model.runtime.fusion._SMALL_MODEL_BYTES", 0)
    base = make_model(name)
    slot = AdapterSlot(base)
    plain, quick = make_readers(base, slot)
    assert not quick.decode_matches_prefill, "a large model does not read prompts in int8"
    ids = ids_of(base, 60)

    def stepped(reader: NativeReader) -> Tensor:
        text = reader.new_sequence()
        text.prefill(ids[:40])
        return torch.cat([text.decode(ids[40:43]), text.decode(ids[43:44]), text.decode(ids[44:50])])

    unadapted = stepped(quick)
    assert_near(unadapted, stepped(plain))
    torch.manual_seed(4)
    some = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
    pairs = {}
    for number, projection in enumerate(some):
        out, inside = base.lm.get_submodule(f"model.layers.0.{projection}").weight.shape
        rank = 3 + 9 * number  # not multiples of the alignment, and unequal within a fused matrix
        A, B = torch.randn(rank, inside) / inside**0.5, torch.randn(out, rank) / rank**0.5
        pairs[f"model.layers.0.{projection}"] = LoraPair(A, B, 0.5)
    slot.activate(Adapter("m", "test", pairs=pairs))
    assert quick.compiled_decode is not None, "the step must remain one compiled call"
    expected, got = stepped(plain), stepped(quick)
    assert float((expected - unadapted).norm() / unadapted.norm()) > 0.2
    assert float((got - expected).norm() / expected.norm()) < 0.02  # the factors are int8
    slot.activate(None)
    assert torch.equal(stepped(quick), unadapted)


def test_nan_reaches_the_hidden_state(lanes: int) -> None:
    base = make_model("llama")
    base.lm.model.layers[0].self_attn.q_proj.weight[0, 0] = float("nan")  # affects the scores of one head only
    _, quick = make_readers(base, AdapterSlot(base))
    text = quick.new_sequence()
    text.prefill([3, 4, 5])
    assert bool(torch.isnan(text.decode([6])).any())


def dequantized(matrix: kernel.Int8Matrix) -> Tensor:
    """s·Q, [out, in]."""
    rows = matrix.weight.transpose(1, 2).flatten(2).flatten(0, 1)[: len(matrix.scale)]
    return rows.float() * matrix.scale[:, None]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 16])
@pytest.mark.parametrize("out", [1, 5, 8, 37])
def test_product_is_exact_up_to_rounding_of_activations(rows: int, out: int, lanes: int) -> None:
    torch.manual_seed(rows)
    matrix = DenseLinear(torch.randn(out, 80), torch.randn(out) if out != 5 else None)
    quick = KernelInt8Linear.quantize(matrix)
    assert isinstance(quick, KernelInt8Linear)
    x = torch.randn(rows, 80)
    W = dequantized(quick.matrix).double()
    assert W.shape == matrix.weight.shape
    expected = x.double() @ W.T + (0 if matrix.bias is None else matrix.bias.double())
    half = x.abs().amax(1, keepdim=True).double() / 32767 / 2  # the largest rounding error of an activation
    assert bool(((quick(x).double() - expected).abs() <= 1.01 * half * W.abs().sum(1) + 1e-5).all())
    assert float((quick(x) - expected).norm() / expected.norm()) < 1e-4
    assert float((W - matrix.weight.double()).abs().max() / matrix.weight.abs().max()) < 1 / 127
    torch.testing.assert_close(quick(x.bfloat16()).double(), expected, rtol=0.02, atol=0.1)


def test_softmax_is_stable_for_scores_far_apart(lanes: int) -> None:
    base = make_model("even")
    attention = base.lm.model.layers[0].self_attn
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight.mul_(12.0)  # scores of several thousands
    plain, quick = make_readers(base, AdapterSlot(base))
    ids = ids_of(base, 60)
    ours, theirs = quick.new_sequence(), plain.new_sequence()
    ours.prefill(ids[:50]), theirs.prefill(ids[:50])
    torch.testing.assert_close(ours.decode(ids[50:54]), theirs.decode(ids[50:54]), rtol=2e-3, atol=2e-3)


def test_wrong_shapes_and_dtypes_are_refused() -> None:
    s = torch.ones(4)
    Q = kernel.Int8Matrix.pack(torch.zeros(4, 32, dtype=torch.int8), s).weight
    assert kernel.multiply(torch.zeros(0, 32), kernel.Int8Matrix(Q, s)).shape == (0, 4)
    with pytest.raises(ValueError, match="multiple"):
        kernel.Int8Matrix.pack(torch.zeros(4, 24, dtype=torch.int8), s)
    for x, weight, scale, bias in (
        (torch.zeros(1, 32, dtype=torch.float64), Q, s, None),
        (torch.zeros(1, 16), Q, s, None),
        (torch.zeros(1, 64)[:, ::2], Q, s, None),
        (torch.zeros(1, 32), Q.float(), s, None),
        (torch.zeros(1, 32), Q, torch.ones(9), None),
        (torch.zeros(1, 32), Q, s, torch.ones(5)),
        (torch.zeros(1, 32), Q.bfloat16(), s, None),
        (torch.zeros(1, 32), Q[:, :, :4].contiguous(), s, None),
    ):
        with pytest.raises(ValueError, match=r"expected|multiple"):
            kernel.multiply(x, kernel.Int8Matrix(weight, scale, bias))
    base = make_model("even")
    _, quick = make_readers(base, AdapterSlot(base))
    steps, text = quick.compiled_decode, quick.new_sequence()
    text.prefill([1, 2, 3])
    assert steps is not None
    room, turns = text._cache, quick.rotations(2048)
    for kv, rotations in (
        (room.double(), turns),
        (room.bfloat16(), turns),
        (room[:, :, :-1].contiguous(), turns),
        (room[:, :-1].contiguous(), turns),
        (room, turns[:4]),
        (room, turns[:, :2].contiguous()),
    ):
        with pytest.raises(ValueError, match="expected"):
            steps.bind(kv, rotations)
    stepping = steps.bind(room, turns)
    for ids, start in (([1, 2], room.shape[1] - 1), ([1], -1), ([], 3), ([base.vocabulary], 3), ([-1], 3)):
        with pytest.raises(ValueError, match="fit"):
            stepping(ids, start)


@pytest.mark.parametrize("count", [1, 7, 8, 50, 8192])
def test_argmax_and_logsumexp_equal_pytorch(count: int, lanes: int) -> None:
    torch.manual_seed(count)
    logits = 4 * torch.randn(6, count)
    logits[1] = -torch.inf
    logits[1, count // 2] = 3.0
    logits[2] = 1.5  # ties: the first one
    logits[3, count // 3] = torch.nan
    found = kernel.argmax_and_logsumexp(logits)
    assert found is not None
    for row in (0, 1, 2, 4, 5):
        assert found[0][row] == int(logits[row].argmax())
        assert found[1][row] == pytest.approx(float(torch.logsumexp(logits[row].double(), -1)), abs=1e-5)
    assert found[1][3] != found[1][3]
    assert kernel.argmax_and_logsumexp(logits.double()) is None


def test_final_map_gives_a_row_the_same_bits_alone_and_in_a_batch(lanes: int) -> None:
    torch.manual_seed(0)
    x, final = torch.randn(5, 96), 0.1 * torch.randn(96, 96)
    found = kernel.apply_final_map(x, final)
    assert found is not None
    torch.testing.assert_close(found, x + x @ final.T, rtol=1e-5, atol=1e-5)
    assert torch.equal(found[2:3], kernel.apply_final_map(x[2:3].contiguous(), final))  # type: ignore[arg-type]
    assert kernel.apply_final_map(x[:, :40].contiguous(), final[:40, :40].contiguous()) is None  # not aligned
    assert kernel.apply_final_map(x.bfloat16(), final.bfloat16()) is None
    assert kernel.apply_final_map(torch.randn(200, 96), final) is None
    assert kernel.apply_final_map(x, final[:48].contiguous()) is None, "a smaller map would be read beyond its end"


def test_model_with_unsupported_head_size_steps_in_pytorch() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=100, hidden_size=96, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    lm = LlamaForCausalLM(config).eval().requires_grad_(False)  # heads of 24 elements
    base = BaseModel("m", "m", lm, None, None, torch.device("cpu"), torch.float32, 256, 0.0)
    reader = NativeReader(lm, AdapterSlot(base), int8=True, compiled=True)
    assert reader.compiled_decode is None
    text = reader.new_sequence()
    text.prefill([1, 2, 3])
    assert text.decode([4, 5]).shape == (2, 96)
