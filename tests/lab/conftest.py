"""Temporary repositories, a small corpus and a tokenizer trained on it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from c2l_lab.corpus.corpus import Document
from c2l_lab.corpus.tokenizer import CodeTokenizer, save, train_tokenizer

from tests.support.training_text import MakeRepository


@pytest.fixture
def make_repository(tmp_path: Path) -> MakeRepository:
    """Creates `tmp_path/mirror/owner+name/repo`, a bare repository with one commit."""

    def make(name: str, files: Mapping[str, str | bytes]) -> Path:
        work = tmp_path / "work" / name.replace("/", "+")
        for path, content in files.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_bytes(content.encode() if isinstance(content, str) else content)
        git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        for command in (["init", "-q"], ["add", "-A", "-f"], ["commit", "-q", "-m", "all"]):
            subprocess.run([*git, *command], cwd=work, check=True, capture_output=True)
        target = tmp_path / "mirror" / name.replace("/", "+") / "repo"
        subprocess.run(["git", "clone", "-q", "--bare", str(work), str(target)], check=True, capture_output=True)
        return target

    return make


@pytest.fixture(scope="session")
def documents(sources: list[str]) -> list[Document]:
    """The modules of this package as a corpus."""
    return [Document(f"{i:016x}", "own/package", f"m{i}.py", text) for i, text in enumerate(sources) if len(text) > 200]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory, sources: list[str]) -> Path:
    """The folder of a saved tokenizer with 512 entries."""
    folder = tmp_path_factory.mktemp("tokenizer")
    save(train_tokenizer(sources[:20], 512), folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> CodeTokenizer:
    """The tokenizer in `tokenizer_folder`."""
    return CodeTokenizer(tokenizer_folder)
