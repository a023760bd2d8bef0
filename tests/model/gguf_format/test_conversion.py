"""A GGUF file becomes a folder with the same logits, or one sentence says why not; what was converted before stays."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import psutil
import pytest
import torch

from c2l_lsp.config import Model
from c2l_lsp.errors import ModelError
from c2l_lsp.model.gguf_format import conversion, families, header
from c2l_lsp.model.lm import base, fast_loader
from c2l_lsp.model.lm.llama import LlamaLM
from tests.support import gguf_files

TEXT = "def first(items: list[int]) -> int:\n    return items[0] + 12345  # é\n"


def vocabulary_of(folder: Path) -> int:
    return base.load(Model(path=str(folder), device="cpu")).vocabulary


def load(path: Path) -> base.BaseModel:
    return fast_loader.load(Model(path=str(path), device="cpu", dtype="float32"))


def write(path: Path, folder: Path, architecture: str = "qwen2", kind: str = "F32", **metadata: Any) -> Path:
    lm = gguf_files.random_model(architecture, vocabulary_of(folder))
    gguf_files.write(path, architecture, lm, folder, kind, **metadata)
    return path


@pytest.mark.parametrize("architecture", families.FAMILIES)
def test_logits_are_those_of_the_model(architecture: str, tiny_folder: Path, tmp_path: Path) -> None:
    lm = gguf_files.random_model(architecture, vocabulary_of(tiny_folder))
    gguf_files.write(tmp_path / "tiny.gguf", architecture, lm, tiny_folder)
    model = load(tmp_path / "tiny.gguf")
    ids = torch.tensor([model.encode(TEXT)])
    with torch.inference_mode():
        torch.testing.assert_close(model.logits(model.hidden(ids)), lm(ids).logits, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1", "Q4_K"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_every_format_gives_its_weights(architecture: str, kind: str, tiny_folder: Path, tmp_path: Path) -> None:
    lm = gguf_files.random_model(architecture, vocabulary_of(tiny_folder))
    expected = gguf_files.write(tmp_path / "tiny.gguf", architecture, lm, tiny_folder, kind)
    lm.load_state_dict({name: torch.from_numpy(np.array(values)) for name, values in expected.items()}, strict=True)
    model = load(tmp_path / "tiny.gguf")
    ids = torch.tensor([model.encode(TEXT)])
    with torch.inference_mode():
        torch.testing.assert_close(model.logits(model.hidden(ids)), lm(ids).logits, atol=2e-4, rtol=1e-4)


def test_tokenizer_is_the_same_and_fim_is_found(tiny_folder: Path, tmp_path: Path, tiny: base.BaseModel) -> None:
    model = load(write(tmp_path / "tiny.gguf", tiny_folder))
    assert model.encode(TEXT) == tiny.encode(TEXT)
    assert model.decode(model.encode(TEXT)) == TEXT
    assert model.fim == tiny.fim
    assert model.stops == tiny.stops


def test_a_llama_is_loaded_by_the_fast_loader(tiny_folder: Path, tmp_path: Path) -> None:
    assert isinstance(load(write(tmp_path / "tiny.gguf", tiny_folder, "llama")).lm, LlamaLM)


@pytest.mark.parametrize("kind", ["F32", "Q4_0"])
def test_a_matrix_that_is_stored_twice_is_kept_once(kind: str, tiny_folder: Path, tmp_path: Path) -> None:
    lm = gguf_files.random_model("qwen2", vocabulary_of(tiny_folder))
    lm.lm_head.weight.data = lm.model.embed_tokens.weight.data.clone()
    gguf_files.write(tmp_path / "tiny.gguf", "qwen2", lm, tiny_folder, kind)
    model = load(tmp_path / "tiny.gguf")
    assert model.lm.config.tie_word_embeddings
    assert model.parameters == sum(p.numel() for p in lm.parameters()) - lm.lm_head.weight.numel()


def test_linear_and_llama3_positions_are_converted(tiny_folder: Path, tmp_path: Path) -> None:
    vocabulary = vocabulary_of(tiny_folder)
    rope = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
    lm = gguf_files.random_model("llama", vocabulary, rope_parameters=rope)
    path = tmp_path / "linear.gguf"
    gguf_files.write(path, "llama", lm, tiny_folder, rope__scaling__type="linear", rope__scaling__factor=4.0)
    model = load(path)
    ids = torch.tensor([model.encode(TEXT)])
    with torch.inference_mode():
        torch.testing.assert_close(model.logits(model.hidden(ids)), lm(ids).logits, atol=2e-4, rtol=1e-4)


def test_llama3_factors_give_transformers_frequencies() -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip
    config = LlamaConfig(hidden_size=512, num_attention_heads=4, rope_parameters=rope, max_position_embeddings=131072)
    scaled = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))[0].numpy()
    plain = 1 / 500_000.0 ** (np.arange(64) / 64)
    about = header.Header(Path("x.gguf"), 0, {})
    found = conversion._with_factor(about, {**rope, "factor": None}, plain / scaled)
    assert found["factor"] == pytest.approx(8.0, rel=1e-5)
    with pytest.raises(ModelError, match="factors of its own"):
        conversion._with_factor(about, {**rope, "factor": None}, (plain / scaled) ** 2)


def test_a_file_is_converted_once_and_again_after_a_change(tiny_folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", tiny_folder)
    folder = conversion.converted(path)
    before = (folder / "model.safetensors").stat()
    assert conversion.converted(path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before.st_mtime_ns
    os.utime(path, ns=(1, 1))
    assert not conversion.is_converted(path)
    assert conversion.converted(path) == folder
    assert conversion.is_converted(path)
    assert [one.name for one in folder.parent.iterdir()] == [folder.name]


def test_what_a_killed_conversion_left_is_deleted(tiny_folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", tiny_folder)
    folder = conversion.converted_folder(path)
    dead = folder.with_name(f"{folder.name}.{2**22 + 1}.partial")
    dead.mkdir(parents=True)
    conversion.converted(path)
    assert not dead.exists()


def test_a_disk_that_fills_up_leaves_the_old_conversion(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "tiny.gguf", tiny_folder)
    folder = conversion.converted(path)
    os.utime(path, ns=(1, 1))

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelError, match="The disk is full"):
        conversion.converted(path)
    assert (folder / "model.safetensors").is_file()
    assert [one.name for one in folder.parent.iterdir()] == [folder.name]


def test_a_disk_that_is_too_small_is_known_before(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "tiny.gguf", tiny_folder)
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(ModelError, match=r"The disk is full: .*tiny.gguf needs 0\.\d GB"):
        conversion.converted(path)


def test_a_model_larger_than_memory_is_refused(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "tiny.gguf", tiny_folder)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"total": 1000}))
    with pytest.raises(ModelError, match="Choose a smaller model"):
        conversion.converted(path)


def test_a_missing_library_is_named(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "tiny.gguf", tiny_folder)
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(ModelError, match="run pip install gguf"):
        conversion.converted(path)


def changed(content: bytes, old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    assert old in content
    return content.replace(old, new)


DAMAGES: dict[str, tuple[Any, str]] = {
    "empty": (lambda _: b"", "truncated"),
    "another format": (lambda c: b"PK\3\4" + c[4:], "is no GGUF file"),
    "another version": (lambda c: c[:4] + b"\x63" + c[5:], "GGUF version 99"),
    "big endian": (lambda c: c[:4] + b"\0\0\0\3" + c[8:], "GGUF version"),
    "cut in the header": (lambda c: c[:100], "truncated"),
    "cut in the weights": (lambda c: c[:-1000], "is truncated"),
    "endless tensors": (lambda c: c[:8] + b"\xff" * 8 + c[16:], "declares"),
    "endless metadata": (lambda c: c[:16] + b"\xff" * 8 + c[24:], "declares"),
    "endless name": (lambda c: c[:24] + b"\xff" * 8 + c[32:], "declares a text"),
    "unknown architecture": (lambda c: changed(c, b"qwen2", b"qwen9"), "has the architecture qwen9"),
    "tokenizer of another kind": (lambda c: changed(c, b"\4\0\0\0\0\0\0\0gpt2", b"\4\0\0\0\0\0\0\0bert"), "kind bert"),
    "unknown pattern": (lambda c: changed(c, b"gpt-2", b"xyz-2"), "cuts texts as xyz-2"),
    "tokenizer missing": (lambda c: changed(c, b"tokenizer.ggml.tokens", b"tokenizer.ggml.tokenz"), "no tokenizer"),
    "merges missing": (lambda c: changed(c, b"tokenizer.ggml.merges", b"tokenizer.ggml.mergez"), "no merges"),
    "a size missing": (lambda c: changed(c, b"qwen2.block_count", b"qwen2.block_counX"), "block_count is None"),
    "a foreign tensor": (lambda c: changed(c, b"blk.0.ffn_gate", b"blk.0.ffn_xxxx"), "which no qwen2 model has"),
    "no embedding": (lambda c: changed(c, b"token_embd", b"token_embx"), "no token_embd"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_sentence(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    damage, sentence = DAMAGES[name]
    path = write(tmp_path / "tiny.gguf", tiny_folder)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match=sentence) as caught:
        load(path)
    assert str(path) in str(caught.value)
    root = conversion.converted_root()
    assert not root.exists() or not list(root.iterdir())


def test_weights_that_are_missing_are_named(tiny_folder: Path, tmp_path: Path) -> None:
    lm = gguf_files.random_model("qwen2", vocabulary_of(tiny_folder))
    path = tmp_path / "tiny.gguf"
    gguf_files.write(path, "qwen2", lm, tiny_folder, block_count=3)
    with pytest.raises(ModelError, match=r"lacks the weights model\.layers\.2"):
        load(path)


def test_numbers_that_are_not_finite_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    lm = gguf_files.random_model("qwen2", vocabulary_of(tiny_folder))
    lm.model.norm.weight.data[0] = float("nan")
    gguf_files.write(tmp_path / "tiny.gguf", "qwen2", lm, tiny_folder)
    with pytest.raises(ModelError, match="not finite"):
        load(tmp_path / "tiny.gguf")


def test_an_unknown_quantisation_is_named(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "tiny.gguf", tiny_folder, kind="Q4_0")
    monkeypatch.delitem(header.FORMATS, 2)
    with pytest.raises(ModelError, match="quantisation 2, which c2l-lsp does not know"):
        load(path)


def test_a_part_of_a_split_model_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="one of 2 parts; join them"):
        load(write(tmp_path / "tiny-00001-of-00002.gguf", tiny_folder))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="FIFOs")
def test_something_else_than_a_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelError, match="not a regular file"):
        load(tmp_path / "pipe.gguf")


def test_a_folder_of_gguf_files_is_told_to_name_one(tiny_folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "tiny.gguf", tiny_folder)
    with pytest.raises(ModelError, match=r"no config.json; name one of its GGUF files: tiny.gguf"):
        load(tmp_path)


def test_formats_are_those_of_the_library() -> None:
    for number, block in header.FORMATS.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (block.name, (block.weights, block.size))
