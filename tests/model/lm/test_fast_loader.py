"""Our own Llama code gives the same numbers as transformers and leaves other models to it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from c2l_lsp.config import Model
from c2l_lsp.errors import ModelError
from c2l_lsp.model.adapter.finetune_lora import fit_lora
from c2l_lsp.model.adapter.kv_sequence import TransformersReader
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm import base, fast_loader
from c2l_lsp.model.lm.llama import LlamaLM
from c2l_lsp.model.runtime.fusion import unsupported_reason

SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.2,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "wide heads, turning slowly": {"head_dim": 32, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
}


def folder_of(tmp_path: Path, tiny_folder: Path, name: str) -> Path:
    """A folder with the tiny tokenizer and a random model of this shape."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    about = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(about | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    size = json.loads((tiny_folder / "config.json").read_text())["vocab_size"]
    torch.manual_seed(0)
    lm = LlamaForCausalLM(LlamaConfig(vocab_size=size, **SIZES, **SHAPES[name]))
    for path, weight in lm.named_parameters():
        if path.endswith("bias") or "norm" in path:
            weight.data += 0.2 * torch.randn_like(weight)
    lm.save_pretrained(folder)
    return folder


def both(folder: Path, dtype: str = "float32") -> tuple[base.BaseModel, base.BaseModel]:
    settings = Model(path=str(folder), device="cpu", dtype=dtype)
    ours = fast_loader.load(settings)
    assert isinstance(ours.lm, LlamaLM)
    return ours, base.load(settings)


@pytest.mark.parametrize("name", SHAPES)
def test_model_equals_that_of_transformers(name: str, tmp_path: Path, tiny_folder: Path):
    ours, theirs = both(folder_of(tmp_path, tiny_folder, name))
    ids = torch.randint(0, ours.vocabulary, (3, 70), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours.hidden(ids), theirs.hidden(ids), atol=2e-5, rtol=1e-4)
    states = theirs.hidden(ids)
    torch.testing.assert_close(ours.logits(states), theirs.logits(states))
    assert ours.digest == theirs.digest
    assert (ours.parameters, ours.d, ours.max_context, ours.fim) == (
        theirs.parameters, theirs.d, theirs.max_context, theirs.fim,
    )  # fmt: skip
    assert unsupported_reason(ours.lm) == ""


@pytest.mark.parametrize("name", base.SHIPPED)
def test_shipped_models_qualify_for_the_fast_loader(name: str):
    settings = Model(id=name, device="cpu", dtype="float32")
    ours, theirs = fast_loader.load(settings), base.load(settings)
    assert isinstance(ours.lm, LlamaLM)
    assert (ours.digest, ours.fim, ours.stops, ours.start_id) == (
        theirs.digest,
        theirs.fim,
        theirs.stops,
        theirs.start_id,
    )
    text = Path(fast_loader.__file__).read_text(encoding="utf-8")
    ids = ours.encode(text)
    assert ids == theirs.encode(text)
    assert ours.decode(ids) == theirs.decode(ids)
    row = torch.tensor([ids[:300]])
    torch.testing.assert_close(ours.hidden(row), theirs.hidden(row), atol=2e-4, rtol=1e-3)


def test_bf16_is_as_close_to_fp32_as_transformers_bf16(tmp_path: Path, tiny_folder: Path):
    folder = folder_of(tmp_path, tiny_folder, "plain")
    exact = both(folder)[1]
    ids = torch.randint(0, exact.vocabulary, (2, 100), generator=torch.Generator().manual_seed(1))
    off = [(model.hidden(ids).float() - exact.hidden(ids)).square().mean().sqrt() for model in both(folder, "bfloat16")]
    assert off[0] <= 1.25 * off[1]


@torch.inference_mode()
def test_text_read_in_parts_with_a_crop_equals_one_pass(tmp_path: Path, tiny_folder: Path):
    ours, _ = both(folder_of(tmp_path, tiny_folder, "biases"))
    ids = torch.randint(0, ours.vocabulary, (60,), generator=torch.Generator().manual_seed(1)).tolist()
    whole = ours.hidden(torch.tensor([ids]))[0]
    text = TransformersReader(ours, AdapterSlot(ours)).new_sequence()
    text.prefill(ids[:20])
    text.prefill([1, 2, 3, 4, 5])
    text.crop(20)
    rest = [
        text.prefill(ids[20:21], all_positions=True),
        text.prefill(ids[21:59], all_positions=True),
        text.decode(ids[59:]),
    ]
    torch.testing.assert_close(torch.cat(rest), whole[20:], atol=2e-5, rtol=1e-4)


def test_lora_finetuning_equals_that_on_transformers(tmp_path: Path, tiny_folder: Path, sources: list[str]):
    ours, theirs = both(folder_of(tmp_path, tiny_folder, "plain"))
    kind = {"rate": 1e-3, "rank": 2, "alpha": 4.0, "steps": 3, "length": 64, "batch": 1}
    made = [fit_lora(model, sources[:2], **kind) for model in (ours, theirs)]
    assert set(made[0].pairs) == set(made[1].pairs)
    for name, pair in made[0].pairs.items():
        torch.testing.assert_close(pair.B, made[1].pairs[name].B, atol=1e-4, rtol=1e-2)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"hidden_act": "gelu"},
        {"sliding_window": 128},
        {"layer_types": ["full_attention", "sliding_attention"]},
        {"quantization_config": {"quant_method": "gptq"}},
        {"architectures": ["LlamaForSequenceClassification"]},
        {"model_type": "mistral", "architectures": ["MistralForCausalLM"]},
        {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]},
        {"num_hidden_layers": "two"},
    ],
    ids=lambda changes: ", ".join(changes),
)
def test_unsupported_configurations_are_left_to_transformers(
    changes: dict[str, Any], tmp_path: Path, tiny_folder: Path
):
    folder = folder_of(tmp_path, tiny_folder, "plain")
    assert fast_loader.read_config(folder) is not None
    plain = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(plain | changes))
    assert fast_loader.read_config(folder) is None


def test_other_tokenizers_and_sharded_weights_are_left_to_transformers(tmp_path: Path, tiny_folder: Path):
    folder = folder_of(tmp_path, tiny_folder, "plain")
    about = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(about | {"tokenizer_class": "Qwen2Tokenizer"}))
    assert fast_loader.read_config(folder) is None
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    assert fast_loader.read_config(folder) is None
    assert fast_loader.read_config(tmp_path / "nothing") is None


@pytest.mark.parametrize("fault", ["cut short", "a weight missing", "another shape", "no tokenizer in it"])
def test_broken_folder_is_refused(fault: str, tmp_path: Path, tiny_folder: Path):
    from safetensors.torch import load_file, save_file

    folder = folder_of(tmp_path, tiny_folder, "plain")
    path = folder / "model.safetensors"
    weights = load_file(path)
    if fault == "cut short":
        path.write_bytes(path.read_bytes()[:-1000])
    elif fault == "a weight missing":
        del weights["model.layers.1.mlp.up_proj.weight"]
        save_file(weights, path)
    elif fault == "another shape":
        weights["model.norm.weight"] = torch.ones(7)
        save_file(weights, path)
    else:
        (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        fast_loader.load(Model(path=str(folder)))


def test_weights_do_not_depend_on_the_file_after_loading(tmp_path: Path, tiny_folder: Path):
    """Truncating a memory-mapped file would end the process at the next access."""
    folder = folder_of(tmp_path, tiny_folder, "plain")
    ours = fast_loader.load(Model(path=str(folder), device="cpu", dtype="float32"))
    before = ours.head_weight.clone()
    (folder / "model.safetensors").write_bytes(b"")
    assert torch.equal(ours.head_weight, before)


HEAVY = ("transformers.modeling_utils", "torch._dynamo", "torch.distributed.tensor", "scipy", "sympy", "peft")


def test_engine_with_a_shipped_model_imports_no_modelling_library(tmp_path: Path):
    """Those libraries took two thirds of the start-up time and a third of the memory."""
    program = f"""
import sys
from c2l_lsp.config import Settings
from c2l_lsp.engine import worker, wire
from c2l_lsp.engine.engine import Engine
engine = Engine(Settings(), lambda frame: None)
asked = wire.Complete(folder="", path="a.py", prefix="import o", suffix="", language="python", invoked=True)
assert engine.complete(asked, lambda: False).new_tokens > 0
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_all_tensors_move_to_another_device(tmp_path: Path, tiny_folder: Path):
    """The rotary frequencies too: they once stayed on the CPU, where our own forward pass read them."""
    lm = both(folder_of(tmp_path, tiny_folder, "plain"))[0].lm.to("meta")
    assert lm.base_model.rotary_emb.inv_freq.device.type == "meta"
    assert {tensor.device.type for tensor in (*lm.parameters(), *lm.buffers())} == {"meta"}
