"""Models of Ollama and LM Studio are found by name, and every way to name none or two is one sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from c2l_lsp.config import Model
from c2l_lsp.errors import ModelError
from c2l_lsp.model.gguf_format import sources
from c2l_lsp.model.lm import fast_loader
from tests.model.gguf_format.test_conversion import write

DIGEST = "sha256:" + "0f" * 32


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    return tmp_path


def pull(home: Path, name: str = "registry.ollama.ai/library/tiny/0.5b", digest: str = DIGEST) -> Path:
    """What `ollama pull` leaves; returns the path of the blob, which does not exist yet."""
    manifest = home / "ollama" / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    (home / "ollama" / "blobs").mkdir(exist_ok=True)
    layers = [
        {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:" + "1" * 64, "size": 3},
        {"mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": 5},
    ]
    manifest.write_text(json.dumps({"schemaVersion": 2, "config": {"digest": digest}, "layers": layers}))
    return home / "ollama" / "blobs" / digest.replace(":", "-")


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("registry.ollama.ai/library/tiny/0.5b", "ollama:tiny:0.5b"),
        ("registry.ollama.ai/library/tiny/latest", "ollama:tiny"),
        ("registry.ollama.ai/someone/tiny/7b", "ollama:someone/tiny:7b"),
        ("hf.co/owner/tiny-GGUF/Q4_K_M", "ollama:hf.co/owner/tiny-GGUF:Q4_K_M"),
    ],
)
def test_ollama_models_are_found(stored: str, name: str, home: Path) -> None:
    blob = pull(home, stored)
    blob.touch()
    assert sources.find(name) == blob
    assert [model.path for model in sources.installed()] == [blob]
    assert sources.find(next(model.name for model in sources.installed())) == blob


def test_an_ollama_model_is_loaded_by_name(home: Path, tiny_folder: Path) -> None:
    write(pull(home), tiny_folder)
    model = fast_loader.load(Model(path="ollama:tiny:0.5b", device="cpu"))
    assert model.id == "ollama:tiny:0.5b"
    assert model.fim is not None


def test_an_lm_studio_model_is_found(home: Path) -> None:
    file = home / ".lmstudio" / "models" / "owner" / "tiny-GGUF" / "tiny-Q4_K_M.gguf"
    file.parent.mkdir(parents=True)
    file.touch()
    (file.parent / "mmproj-tiny.gguf").touch()
    assert sources.find("lmstudio:owner/tiny-GGUF") == file
    assert sources.find("lmstudio:owner/tiny-GGUF/tiny-Q4_K_M.gguf") == file
    assert [model.name for model in sources.installed()] == ["lmstudio:owner/tiny-GGUF/tiny-Q4_K_M.gguf"]


def test_a_name_of_two_files_lists_them(home: Path) -> None:
    folder = home / ".lmstudio" / "models" / "owner" / "tiny-GGUF"
    folder.mkdir(parents=True)
    for name in ("tiny-Q4_K_M.gguf", "tiny-Q8_0.gguf"):
        (folder / name).touch()
    with pytest.raises(ModelError, match=r"2 files; name one of them: .*Q4_K_M.gguf, .*Q8_0.gguf"):
        sources.find("lmstudio:owner/tiny-GGUF")


def test_two_models_of_one_name_are_told_apart_by_path(home: Path) -> None:
    for root in (".lmstudio/models", ".cache/lm-studio/models"):
        (home / root / "owner" / "tiny").mkdir(parents=True)
        (home / root / "owner" / "tiny" / "tiny.gguf").touch()
    with pytest.raises(ModelError, match=r"Two files are named .*Give the path of one"):
        sources.find("lmstudio:owner/tiny/tiny.gguf")


def test_a_name_that_does_not_exist_lists_those_that_do(home: Path) -> None:
    with pytest.raises(ModelError, match=r"no model other on this machine; there is none at all \(or run ollama pull"):
        sources.find("ollama:other")
    pull(home).touch()
    with pytest.raises(ModelError, match=r"there are ollama:tiny:0.5b"):
        sources.find("ollama:other")
    with pytest.raises(ModelError, match="LM Studio has no model a/b"):
        sources.find("lmstudio:a/b")


@pytest.mark.parametrize(
    "name", ["ollama:", "ollama:../../x", "ollama:a/../b:c", "ollama:a/b/c/d/e", "lmstudio:x", "lmstudio:../x"]
)
def test_a_name_cannot_leave_the_folder(name: str, home: Path) -> None:
    with pytest.raises(ModelError, match=r"no name of|are named"):
        sources.find(name)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "cannot be read"),
        (b"[]", "cannot be read"),
        (b'{"layers": []}', "does not name one file"),
        (
            b'{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../x"}]}',
            "not name one",
        ),
        (b" " * (2 << 20), "cannot be read"),
    ],
)
def test_a_damaged_manifest_is_one_sentence(content: bytes, sentence: str, home: Path) -> None:
    pull(home)
    (home / "ollama/manifests/registry.ollama.ai/library/tiny/0.5b").write_bytes(content)
    with pytest.raises(ModelError, match=sentence):
        sources.find("ollama:tiny:0.5b")
    assert list(sources.installed()) == []


def test_a_blob_that_is_missing_is_named(home: Path) -> None:
    pull(home)
    with pytest.raises(ModelError, match="is missing; pull the model again"):
        sources.find("ollama:tiny:0.5b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="FIFOs")
def test_a_manifest_that_is_a_pipe_does_not_block(home: Path) -> None:
    folder = home / "ollama/manifests/registry.ollama.ai/library/tiny"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "0.5b")
    with pytest.raises(ModelError, match="not a regular file"):
        sources.find("ollama:tiny:0.5b")
