"""The GGUF file contains the model: it is read back by transformers, an independent implementation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from c2l_lab.benchmarks.perf import peers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from c2l_lsp.config import Model
from c2l_lsp.errors import ModelError
from c2l_lsp.model.lm.base import BaseModel

pytest.importorskip("gguf", reason="the extra perf is not installed")


def llama(tiny: BaseModel) -> BaseModel:
    """A Llama with the tiny model's vocabulary, untied."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tiny.vocabulary, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, initializer_range=0.2, max_position_embeddings=512,
    )  # fmt: skip
    lm = LlamaForCausalLM(config).eval().requires_grad_(False)
    return BaseModel("llama", "llama", lm, tiny.tokenizer, None, torch.device("cpu"), torch.float32, 512, 0.0)


@pytest.mark.parametrize(("kind", "tolerance"), [("BF16", 0.02), ("Q8_0", 0.05)])
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_gguf_file_contains_the_model(family: str, kind: str, tolerance: float, tiny: BaseModel, tmp_path: Path):
    from c2l_lab.benchmarks.perf import gguf

    model = tiny if family == "qwen2" else llama(tiny)
    gguf.export(model, tmp_path / "model.gguf", kind)
    back = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    ids = torch.randint(5, tiny.vocabulary, (1, 60), generator=torch.Generator().manual_seed(0))
    want, got = (lm(input_ids=ids).logits[0].detach() for lm in (model.lm, back))
    assert (got - want).square().mean().sqrt() <= tolerance * want.square().mean().sqrt()


def test_other_architectures_are_rejected(tmp_path: Path):
    from c2l_lab.benchmarks.perf import gguf

    other = SimpleNamespace(lm=SimpleNamespace(config=SimpleNamespace(model_type="gpt2")))
    with pytest.raises(ModelError, match="gpt2"):
        gguf.export(other, tmp_path / "model.gguf", "BF16")  # type: ignore[arg-type]


@pytest.mark.skipif(not peers.has_llama(), reason="the extra perf is not installed")
def test_llama_cpp_generates_the_same_text(tiny: BaseModel, sources: list[str], tmp_path: Path):
    ids = tiny.encode(sources[3])[:120]
    want, _ = peers.Ours(tiny, draft=0).decode(ids, 12)
    peer = peers.Llama(tiny, "BF16", tmp_path, 1)
    assert peer.decode(ids, 12)[0][:4] == want[:4]  # random weights: what rounds to bf16 may part later
    assert peer.read([*ids[:100], 7, 8]) == 100


@pytest.mark.skipif(not peers.has_llama(), reason="the extra perf is not installed")
@pytest.mark.parametrize("least", [0.0, 0.4])
def test_both_sides_of_replay_apply_the_same_rules(least: float, sources: list[str], tmp_path: Path):
    from c2l_lab.benchmarks.perf.replay import LlamaSide, OurSide

    from c2l_lsp.engine import wire
    from c2l_lsp.model.lm import base

    model = base.load(Model(id=base.NANO))
    ours, theirs = OurSide(model), LlamaSide(model, peers.Llama(model, "BF16", tmp_path, 1))
    same = 0
    for number in range(6):
        text = sources[number]
        at = len(text) // 2
        asked = wire.Complete(
            folder="", path="", language="python", prefix=text[:at], suffix=text[at + 30 :], min_confidence=least,
            max_latency_ms=60_000,
        )  # fmt: skip
        mine, yours = (side.complete(asked, lambda: False) for side in (ours, theirs))
        assert mine.prompt_tokens == yours.prompt_tokens
        same += (mine.texts, mine.stop, mine.new_tokens) == (yours.texts, yours.stop, yours.new_tokens)
    assert same >= 4  # weights of 8 bits here, bf16 there
