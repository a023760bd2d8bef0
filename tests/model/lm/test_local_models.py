"""The list of models on this machine says of each what limits its use, and nothing in it can make the list fail."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest

from c2l_lsp.config import Model
from c2l_lsp.errors import ModelError
from c2l_lsp.model.gguf_format import conversion
from c2l_lsp.model.lm import fast_loader, local_models
from c2l_lsp.model.lm.local_models import LocalModel, describe_gguf, is_instruct
from tests.model.gguf_format.test_conversion import write


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty Hub cache and without Ollama and LM Studio."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def listed() -> dict[str, LocalModel]:
    return {model.name: model for model in local_models.local_models()}


def lm_studio(machine: Path, name: str, folder: Path, **metadata: Any) -> Path:
    path = machine / ".lmstudio" / "models" / "owner" / "tiny" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(path, folder, **metadata)


def cached(machine: Path, folder: Path, **changes: Any) -> None:
    snapshot = machine / "hub" / "models--owner--tiny" / "snapshots" / "0123"
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(folder, snapshot)
    config = json.loads((snapshot / "config.json").read_text()) | changes
    (snapshot / "config.json").write_text(json.dumps(config))


def test_every_source_is_listed(machine: Path, tiny_folder: Path) -> None:
    cached(machine, tiny_folder)
    path = lm_studio(machine, "tiny.gguf", tiny_folder)
    models = listed()
    assert list(models) == ["c2l-nano", "c2l-small", "owner/tiny", "lmstudio:owner/tiny/tiny.gguf"]
    assert all(model.fim and not model.note and model.gb > 0 for model in models.values())
    assert models["owner/tiny"].architecture == "qwen2"
    assert not models["lmstudio:owner/tiny/tiny.gguf"].ready
    conversion.converted(path)
    assert listed()["lmstudio:owner/tiny/tiny.gguf"].ready


def test_a_model_that_cannot_be_used_says_why(
    machine: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lm_studio(machine, "tiny.gguf", tiny_folder)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"total": 1000}))
    assert "Choose a smaller model" in listed()["lmstudio:owner/tiny/tiny.gguf"].note
    path.write_bytes(path.read_bytes()[:5000])
    assert "truncated" in listed()["lmstudio:owner/tiny/tiny.gguf"].note
    path.write_bytes(b"")
    assert "truncated" in listed()["lmstudio:owner/tiny/tiny.gguf"].note


def test_models_that_do_not_complete_text_are_told_apart(machine: Path, tiny_folder: Path) -> None:
    cached(machine, tiny_folder, architectures=["BertModel"])
    assert "owner/tiny" not in listed()


def test_an_instruct_model_and_one_without_fim_are_told(tiny_folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", tiny_folder)
    assert "An instruct model" in describe_gguf("ollama:tiny:0.5b-instruct", path).note
    path.write_bytes(path.read_bytes().replace(b"<|fim_middle|>", b"<|fim_center|>"))
    assert "No fill-in-the-middle" in describe_gguf("ollama:tiny:0.5b-base", path).note
    both = describe_gguf("ollama:tiny:0.5b-instruct", path).note
    assert "An instruct model" in both and "No fill-in-the-middle" in both


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen2.5-Coder-0.5B", False), ("Qwen/Qwen2.5-Coder-0.5B-Instruct", True), ("google/gemma-3-1b-it", True),
        ("gemma-3-1b-it-Q4_0.gguf", True), ("bigcode/starcoder2-3b", False), ("owner/Little-items", False),
        ("deepseek-llm-7b-chat", True),
    ],
)  # fmt: skip
def test_instruct_models_are_known_by_their_names(name: str, expected: bool) -> None:
    assert is_instruct(name) is expected


@pytest.mark.parametrize("method", ["awq", "gptq", "fp8", "compressed-tensors"])
def test_quantised_safetensors_that_cannot_be_computed_are_one_sentence(
    method: str, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "quantised"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": 128}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=f"quantised by {method}, which cannot be computed here .* or as GGUF"):
        fast_loader.load(Model(path=str(folder), device="cpu"))


def test_a_folder_larger_than_memory_is_refused(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"total": 1000}))
    with pytest.raises(ModelError, match="Choose a smaller model"):
        fast_loader.load(Model(path=str(tiny_folder), device="cpu"))
