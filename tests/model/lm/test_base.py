"""Loading a base model, the errors when it cannot be loaded, and the FIM families."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from c2l_lsp.config import Model
from c2l_lsp.cooperative import drain, timed
from c2l_lsp.errors import ModelError
from c2l_lsp.model.lm import base
from c2l_lsp.model.lm.fim import FAMILIES, ORDERS, resolve_fim


def test_logits_of_hidden_states_equal_the_models_own(tiny, sources):
    ids = torch.tensor([tiny.encode(sources[0])[:100]])
    with torch.inference_mode():
        torch.testing.assert_close(tiny.logits(tiny.hidden(ids)), tiny.lm(ids).logits)


def test_digest_changes_with_the_weights(tiny, tiny_folder):
    again = base.load(Model(path=str(tiny_folder), dtype="float32"))
    assert again.digest == tiny.digest
    with torch.no_grad():
        again.lm.get_input_embeddings().weight.add_(0.01)
    assert base._digest(again.lm, type(again.lm).__name__) != tiny.digest


def test_missing_folder_is_an_error_that_names_the_setting(tmp_path):
    with pytest.raises(ModelError, match=r"c2l\.model\.path"):
        base.load(Model(path=str(tmp_path / "nowhere")))


def test_unavailable_hub_model_is_an_error_that_names_offline_mode():
    with pytest.raises(ModelError, match="offline is on"):
        base.load(Model(id="nobody/nothing", offline=True))


def test_missing_device_is_an_error():
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ModelError, match="device"):
        base.load(Model(device="cuda"))


def test_folder_of_pickles_is_refused(tiny_folder, tmp_path):
    for path in tiny_folder.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(X\x04\x00\x00\x00falsetR.")
    with pytest.raises(ModelError, match="cannot be loaded"):
        base.load(Model(path=str(tmp_path)))


class Vocabulary:
    unk_token_id = None

    def __init__(self, *tokens):
        self.ids = {token: number for number, token in enumerate(tokens)}

    def convert_tokens_to_ids(self, tokens):
        return self.ids.get(tokens)


BEFORE, AFTER, LINE = [70, 71], [80], [90, 91]


def has_the_order_of_its_family(tokens):
    prompts = {
        "psm": [tokens.prefix, *BEFORE, tokens.suffix, *AFTER, tokens.middle, *LINE],
        "spm": [tokens.suffix, *AFTER, tokens.prefix, *BEFORE, *LINE],
        "joined": [tokens.prefix, tokens.suffix, *AFTER, tokens.middle, *BEFORE, *LINE],
    }
    prompt = tokens.prompt(BEFORE, AFTER, LINE)
    return prompt == prompts[tokens.order] and tokens.text_before(prompt) == BEFORE + LINE


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_family_resolves_and_orders_its_prompt(family):
    found = resolve_fim(Vocabulary(family.prefix, family.suffix, family.middle, *family.stops))
    assert (found.family, found.order) == (family.name, family.order)
    assert has_the_order_of_its_family(found)


@pytest.mark.parametrize("order", ORDERS)
def test_order_of_the_config_overrides_the_family(order):
    family = FAMILIES[0]
    found = resolve_fim(Vocabulary(family.prefix, family.suffix, family.middle), order)
    assert found.order == order
    assert has_the_order_of_its_family(found)


def test_first_family_whose_tokens_exist_wins():
    family = FAMILIES[0]
    tokens = [token for row in FAMILIES for token in (row.prefix, row.suffix, row.middle)]
    assert resolve_fim(Vocabulary(*tokens)).family == family.name


def test_tokenizer_without_fim_tokens_has_no_family():
    assert resolve_fim(Vocabulary("<s>", "</s>")) is None


def test_a_model_of_transformers_reads_texts_in_steps(tiny, monkeypatch):
    """One step for 768 tokens of a model of 494 million weights was so long that the engine was taken for dead."""
    rows = [[3, *tiny.encode("def f(a):\n    return a\n" * 9)], [5, 6, 7], []]
    plain = dataclasses.replace(tiny)
    monkeypatch.setattr(base.BaseModel, "int8_model", None)
    monkeypatch.setattr(base, "LlamaLM", type(None))  # as of another architecture
    whole = drain(plain.hidden_states_in_slices(rows))
    monkeypatch.setattr(base, "_STEP_WORK", 8 * 3 * plain.parameters)
    columns: list[int] = []
    body = plain.body.forward

    def counted(*args, input_ids, **options):
        columns.append(input_ids.shape[1])
        return body(*args, input_ids=input_ids, **options)

    monkeypatch.setattr(plain.body, "forward", counted)
    parts, seconds = drain(timed(plain.hidden_states_in_slices(rows)))
    assert max(columns) == 8
    assert len(seconds) > len(columns) > 5
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
