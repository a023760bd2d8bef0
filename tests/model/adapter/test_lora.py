"""Adapters: application, checks and export. PEFT is the independent reference."""

from __future__ import annotations

import warnings

import pytest
import torch

from c2l_lsp.errors import AdapterError, StorageError
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot, export_peft, low_rank_factors
from c2l_lsp.model.runtime.lora_pair import LoraPair

TARGET = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def adapter(tiny):
    torch.manual_seed(3)
    down = LoraPair(torch.randn(4, 128) * 0.1, torch.randn(64, 4) * 0.1, 2.0)
    q = LoraPair(torch.randn(4, 64) * 0.1, torch.randn(64, 4) * 0.1, 2.0)
    pairs = {TARGET: q, "model.layers.1.mlp.down_proj": down}
    return Adapter(tiny.digest, "test", torch.randn(64, 64) * 0.02, pairs)


@pytest.fixture
def ids(tiny, sources):
    return torch.tensor([tiny.encode(sources[0])[:120]])


def peft_logits(folder, out, ids):
    import peft
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings")  # the head is adapted, not the embedding
        lm = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), out)
    with torch.inference_mode():
        return lm(ids).logits


@pytest.mark.parametrize("parts", ["final", "pairs", "both"])
def test_exported_adapter_gives_the_same_logits_in_peft(tiny, tiny_folder, adapter, ids, tmp_path, parts):
    chosen = Adapter(
        tiny.digest,
        "test",
        adapter.final_map if parts != "pairs" else None,
        adapter.pairs if parts != "final" else {},
    )
    _, error = export_peft(chosen, tiny, tmp_path / "out")
    assert error < 1e-6
    slot = AdapterSlot(tiny)
    slot.activate(chosen)
    with torch.inference_mode():
        ours = slot.logits(tiny.hidden(ids))
        slot.activate(None)
        base = tiny.logits(tiny.hidden(ids))
    theirs = peft_logits(tiny_folder, tmp_path / "out", ids)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert float((ours - base).abs().max()) > 1e-2


def test_low_rank_export_returns_its_error(tiny, adapter, tmp_path):
    final = Adapter(tiny.digest, "test", adapter.final_map)
    rank, error = export_peft(final, tiny, tmp_path / "out", rank=8)
    assert rank == 8
    B, A, same = low_rank_factors(final.final_map, 8)
    assert error == same
    assert float((B @ A - final.final_map).norm() / final.final_map.norm()) == pytest.approx(error, rel=1e-3)


def test_export_to_an_unwritable_folder_raises_storage_error(tiny, adapter, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        export_peft(adapter, tiny, tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: Adapter("other", a.kind, a.final_map, a.pairs), "another base"),
        (lambda a: Adapter(a.base, a.kind, a.final_map[:32], {}), "shape"),
        (lambda a: Adapter(a.base, a.kind, a.final_map * float("nan"), {}), "not finite"),
        (lambda a: Adapter(a.base, a.kind, None, {"model.layers.9.mlp.up_proj": a.pairs[TARGET]}), "does not have"),
        (lambda a: Adapter(a.base, a.kind, None, {"model.layers.0.mlp.up_proj": a.pairs[TARGET]}), "does not fit"),
    ],
)
def test_wrong_adapter_is_refused(tiny, adapter, change, words):
    adapter.check(tiny)
    with pytest.raises(AdapterError, match=words):
        change(adapter).check(tiny)


def test_norm_equals_the_norm_of_delta_w(adapter):
    pair = adapter.pairs[TARGET]
    only = Adapter(adapter.base, "test", None, {TARGET: pair})
    assert only.norm == pytest.approx(float((pair.scale * pair.B @ pair.A).norm()), rel=1e-4)


def test_relative_change_sees_a_change_that_keeps_the_norm(adapter):
    assert adapter.relative_change(adapter) == pytest.approx(0.0, abs=1e-3)
    assert adapter.relative_change(adapter.scaled(0.5)) == pytest.approx(0.5, rel=1e-3)
    assert adapter.relative_change(adapter.scaled(-1.0)) == pytest.approx(2.0, rel=1e-3)
    pair = adapter.pairs[TARGET]
    permuted = Adapter(adapter.base, "test", None, {TARGET: LoraPair(pair.A.flip(1), pair.B, pair.scale)})
    only = Adapter(adapter.base, "test", None, {TARGET: pair})
    assert permuted.norm == pytest.approx(only.norm, rel=1e-4)
    change = pair.scale * (pair.B @ pair.A.flip(1) - pair.B @ pair.A)
    assert permuted.relative_change(only) == pytest.approx(float(change.norm()) / only.norm, rel=1e-3)


def test_scaling_changes_norm_and_digest(adapter):
    assert adapter.scaled(0.5).norm == pytest.approx(0.5 * adapter.norm, rel=1e-5)
    assert adapter.scaled(1.0).digest == adapter.digest
    assert adapter.scaled(0.5).digest != adapter.digest or adapter.final_map is None
