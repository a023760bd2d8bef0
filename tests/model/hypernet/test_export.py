"""`static` and `evo` end to end: a published file gives an adapter with equal logits live, merged and in PEFT."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from c2l_lsp.errors import CheckpointError
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot, export_peft
from c2l_lsp.model.hypernet.checkpoint import convert, load
from c2l_lsp.model.hypernet.code2lora import Evo, Static
from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder
from c2l_lsp.model.hypernet.gru import CommitGRU, GRUConfig
from c2l_lsp.model.hypernet.lora_head import Code2LoRAHead, HeadConfig
from c2l_lsp.model.hypernet.protocol import RepoState, StateChange
from c2l_lsp.model.lm.base import BaseModel

torch.set_num_threads(1)
HIDDEN, KEYS, INNER, RANK, ALPHA = 16, 8, 24, 4, 12.0
DIMS = {
    "q_proj": (HIDDEN, HIDDEN), "k_proj": (HIDDEN, KEYS), "v_proj": (HIDDEN, KEYS), "o_proj": (HIDDEN, HIDDEN),
    "gate_proj": (HIDDEN, INNER), "up_proj": (HIDDEN, INNER), "down_proj": (INNER, HIDDEN),
}  # fmt: skip
SOURCE = "def total(values):\n    return sum(value for value in values)\n"


def tokenizer() -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={"<|endoftext|>": 0} | {c: i + 1 for i, c in enumerate(letters)}, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>")


def base(inner: int = INNER) -> BaseModel:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=257, hidden_size=HIDDEN, intermediate_size=inner, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, initializer_range=0.3, tie_word_embeddings=True,
    )  # fmt: skip
    return BaseModel(
        id="tiny", digest="tiny-digest", lm=Qwen2ForCausalLM(config).eval().requires_grad_(False),
        tokenizer=tokenizer(), fim=None, device=torch.device("cpu"), dtype=torch.float32, max_context=512, load_ms=0.0,
    )  # fmt: skip


def published(path: Path, kind: str) -> Path:
    """A file in the published format, with weights large enough to change the logits."""
    torch.manual_seed(1)
    head = Code2LoRAHead(HeadConfig(type_dims=DIMS, input_dim=2 * HIDDEN, hidden_dim=12, rank=RANK))
    for scales in (head.log_scale_A, head.log_scale_B):
        for scale in scales.values():
            scale.data.fill_(-1.5)
    config = {"input_dim": 2 * HIDDEN, "hidden_dim": 12, "rank": RANK, "types": sorted(DIMS), "type_dims": DIMS}
    content = {"type_dims": DIMS, "args": {"alpha": ALPHA}}
    if kind == "static":
        content |= {"state_dict": head.state_dict(), "config": config}
    else:
        shape = dict.fromkeys(("diff_input_dim", "repo_state_dim", "hidden_dim"), 2 * HIDDEN)
        gru = CommitGRU(GRUConfig(**shape))
        content |= {"gru_state": gru.state_dict(), "gru_config": shape}
        content |= {"head_state": head.state_dict(), "head_config": config}
    torch.save(content, path)
    return path


def hypernetwork(kind: str, tmp_path: Path, model: BaseModel) -> Static | Evo:
    convert(published(tmp_path / "published.pt", kind), tmp_path / "converted")
    return load(tmp_path / "converted").hypernetwork(model, EmbeddingEncoder.of_base(model))


def state_after(net: Static | Evo, diff: str = "") -> RepoState:
    (state,) = net.update([net.empty_state()], [StateChange(net.embed(net.chunks(SOURCE)), first=True)])
    (state,) = net.update([state], [StateChange(diffs=net.embed(net.diff_chunks(diff)))]) if diff else (state,)
    return state


def logits_by_formula(model: BaseModel, adapter: Adapter, ids: Tensor) -> Tensor:
    """Logits of a copy of the model whose weights are W + (alpha/rank)·B A."""
    lm = copy.deepcopy(model.lm)
    for name, pair in adapter.pairs.items():
        lm.get_submodule(name).weight += (ALPHA / RANK) * (pair.B @ pair.A)
    with torch.no_grad():
        out: Tensor = lm(input_ids=ids).logits
    return out


@pytest.mark.parametrize("kind", ["static", "evo"])
def test_live_merged_and_exported_adapters_give_the_same_logits(kind: str, tmp_path: Path) -> None:
    from peft import PeftModel

    model = base()
    net = hypernetwork(kind, tmp_path, model)
    adapter = net.generate(state_after(net, diff="-    return 0\n+    return total(values)\n"))
    adapter.check(model)
    assert len(adapter.pairs) == 2 * 7
    ids = torch.tensor([model.encode("def total(values):")])
    bare, expected = model.logits(model.hidden(ids)), logits_by_formula(model, adapter, ids)
    assert float((bare - expected).abs().max()) > 0.1

    slot = AdapterSlot(model)
    slot.activate(adapter)
    torch.testing.assert_close(slot.logits(model.hidden(ids)), expected, atol=1e-4, rtol=1e-5)
    slot.activate(None)
    assert torch.equal(slot.logits(model.hidden(ids)), bare)

    rank, error = export_peft(adapter, model, tmp_path / "peft")
    assert (rank, error) == (RANK, 0.0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        loaded = PeftModel.from_pretrained(base().lm, tmp_path / "peft").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-5)


def test_adapter_is_a_function_of_the_repository(tmp_path: Path) -> None:
    net = hypernetwork("static", tmp_path, base())
    (other,) = net.update(
        [net.empty_state()], [StateChange(net.embed(net.chunks("import os\n\nprint(os.getcwd())\n")), first=True)]
    )
    assert net.generate(state_after(net)).digest == net.generate(state_after(net)).digest
    assert net.generate(state_after(net)).digest != net.generate(other).digest


def test_evo_continues_bit_equal_from_a_saved_state(tmp_path: Path) -> None:
    net = hypernetwork("evo", tmp_path, base())
    state = state_after(net, diff="+    import os, sys, re\n")
    stored = RepoState(
        {name: torch.frombuffer(bytearray(t.numpy().tobytes()), dtype=t.dtype) for name, t in state.tensors.items()}
    )
    again = hypernetwork("evo", tmp_path, base())
    assert again.digest == net.digest
    change = StateChange(diffs=net.embed(net.diff_chunks("-    import os, sys, re\n+    import sys\n")))
    (one,), (other,) = net.update([state], [change]), again.update([stored], [change])
    assert torch.equal(one.tensors["h"], other.tensors["h"])
    assert net.generate(one).digest == again.generate(other).digest
    assert net.generate(one).digest != net.generate(state).digest


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda model: (base(inner=20), EmbeddingEncoder.of_base(model)), "down_proj is 24→16; in tiny it is 20→16"),
        (lambda model: (model, _wide(model)), "needs embeddings of width 32, the text encoder has width 64"),
    ],
)
def test_other_base_or_encoder_is_refused(
    tmp_path: Path, change: Callable[[BaseModel], tuple[BaseModel, EmbeddingEncoder]], sentence: str
) -> None:
    convert(published(tmp_path / "published.pt", "evo"), tmp_path / "converted")
    with pytest.raises(CheckpointError, match=sentence):
        load(tmp_path / "converted").hypernetwork(*change(base()))


def _wide(model: BaseModel) -> EmbeddingEncoder:
    encoder = EmbeddingEncoder.of_base(model)
    encoder.hidden = 32
    return encoder
